"""Where outputs go."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._outputs import Output


class Target:
    """Where outputs go: standard output, a folder, or a file and its numbered neighbours."""

    def __init__(self, out: str) -> None:
        self.is_standard_output = out == "-"
        path = Path(out)
        self._is_folder = out.endswith(("/", os.sep)) or path.is_dir()
        self._path = path

    def prepare(self) -> None:
        """
        Find out whether it can be written; makes the folder if one was named.

        Raises:
            OSError: It cannot.
        """
        if self.is_standard_output:
            return
        folder = self._path if self._is_folder else self._path.parent
        if self._is_folder:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            # The only sure way to know is to write.
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(
                error.errno, f"cannot write into it: {error.strerror}", str(folder)
            ) from error

    def write(self, outputs: Sequence[Output]) -> Iterator[tuple[Output, Path | None]]:
        """
        Write outputs, and tell each with where it went; ``None`` is standard output.

        None is ever lost for want of a name: a second one for a single file
        is numbered, a second one for standard output goes to the current folder.
        """
        for number, output in enumerate(outputs, 1):
            if self.is_standard_output and number == 1:
                sys.stdout.buffer.write(output.content)
                sys.stdout.buffer.flush()
                yield output, None
            else:
                # Only the file that the user named is replaced, not its neighbours.
                save = partial(output.save, overwrite=number == 1)
                yield output, anyio.run(save, self._path_for(number))

    def _path_for(self, number: int) -> Path:
        if self.is_standard_output:
            return Path()
        if self._is_folder or number == 1:
            return self._path
        return self._path.with_stem(f"{self._path.stem}-{number}")
