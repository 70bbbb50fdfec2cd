"""A real Daft on its native runner: the rows of a frame, each paid once."""

import subprocess
import sys
from pathlib import Path

import pytest

from prodia_async.emulator import Emulator

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

PROGRAM = """
import sys
from pathlib import Path
import daft
from prodia_async.integrations.daft import prodia_udf

make = prodia_udf(to=sys.argv[1], job_type="inference.flux-fast.schnell.txt2img.v2")
rows = {"prompt": [f"a lake {n}" for n in range(40)], "seed": list(range(1, 41))}
told = daft.from_pydict(rows).with_column("job", make("prompt", "seed")).to_pydict()["job"]
assert [each["state"] for each in told] == ["done"] * 40
assert [each["seed"] for each in told] == list(range(1, 41))
assert all(Path(each["path"]).is_file() for each in told)
print("good")
"""


def test_a_frame_is_paid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of structs; the same frame again is answered from the store."""
    with Emulator(workers=20, latency=0.05) as emulator:
        monkeypatch.setenv("PRODIA_TOKEN", "any-token")
        monkeypatch.setenv("PRODIA_BASE_URL", emulator.base_url)
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, str(tmp_path / "run")],
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.stdout == "good\n", done.stderr[-3000:]
            assert emulator.ledger.totals().charged == 40
