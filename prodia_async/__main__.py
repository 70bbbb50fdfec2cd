"""The `prodia-async` command, also as ``python -m prodia_async``."""

from __future__ import annotations

import sys


def main() -> int:
    """
    Run the command line.

    Returns:
        The exit status: 0, or not when something went wrong; it was then said
        on standard error, in one line.
    """
    try:
        from ._cli import run  # noqa: PLC0415  (the extra may be missing, and that is an answer)

        return run()
    except ImportError as error:
        if (error.name or "").partition(".")[0] in {"", "prodia_async"}:
            raise
        print(
            f"prodia-async: {error.name} is missing; the command line needs an extra: "
            "pip install 'prodia-async[cli]'",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        # While it was loading: what it can say for itself then, `run` does not hear of.
        print("prodia-async: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
