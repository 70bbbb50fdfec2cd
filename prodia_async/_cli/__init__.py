"""
The command line: arguments in, exit status out.

Whatever goes wrong and can be named is one line on standard error, so that
scripts can pass it on: status 2 when it was asked wrongly (nothing was sent
then), 130 when interrupted, 143 when a job was terminated, 1 otherwise. A
traceback would be a bug of ours.

Results meant for another program go to standard output, what is meant for
people beside them to standard error.

Each group of commands has a module of its own, which puts them on the `app`
when it is imported here; the order is that of the help.
"""

from . import _job, _async, _batch, _fireworks, _types, _demo, _emulator  # noqa: I001, F401  (each registers its commands)
from ._app import run

__all__ = ["run"]
