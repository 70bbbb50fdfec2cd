"""Where outputs go: standard output, a folder, a file and its numbered neighbours, or a device."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from .._files import is_folder_path, is_passage
from .._media import suffix_of
from .._show import one_line
from ._app import note, wrong
from ._ending import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._outputs import Output


class Target:
    """
    Where the outputs of a job go.

    Args:
        out: A file; a folder (it exists, or ends in a slash); ``-`` for standard output.
        as_json: Standard output is for the job result, as JSON, and for nothing else.
    """

    def __init__(self, out: str, *, as_json: bool = False) -> None:
        self.is_standard_output = out == "-"
        self.as_json = as_json
        self.takes_standard_output = as_json or self.is_standard_output
        if as_json and self.is_standard_output:
            wrong("--json", "needs standard output for itself; give -o a file or a folder")
        self._out = out
        self._path = Path(out)
        self._is_folder = is_folder_path(out)

    @property
    def file(self) -> Path | None:
        """The one file that was named, if one was."""
        return None if self.is_standard_output or self._is_folder else self._path

    def prepare(self) -> None:
        """
        Find out whether it can be written; makes the folders that are missing.

        Raises:
            OSError: It cannot.
            InvalidRequestError: It is a terminal, which bytes would garble.
        """
        if self.is_standard_output:
            if sys.stdout is not None and sys.stdout.isatty():
                wrong(
                    "-o", "- would write a file's bytes to the terminal; name a file, or add | cat"
                )
            return
        if is_passage(self._path):
            # A device or a pipe is neither made nor replaced, and its folder is not ours to try.
            if not os.access(self._path, os.W_OK):
                raise PermissionError(13, "it cannot be written to", self._out)
            return
        folder = self._path if self._is_folder else self._path.parent
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
        is numbered, a second one for standard output goes to the current
        folder. What cannot be written there goes to the folder for temporary
        files, and the others are written all the same.

        Raises:
            OSError: After all were tried: one could not be written where it was to go.
        """
        failure: OSError | None = None
        for number, output in enumerate(outputs, 1):
            try:
                path = self._write(number, output)
            except BrokenPipeError as error:
                failure = failure or error  # the reader has seen enough of this one
            except OSError as error:
                failure = failure or error
                note(_rescue(output, error))
            else:
                yield output, path
        if failure is not None:
            raise failure

    def _write(self, number: int, output: Output) -> Path | None:
        if self.is_standard_output and number == 1:
            sys.stdout.buffer.write(output.content)
            sys.stdout.buffer.flush()
            return None
        # Only a file that the user named is replaced: not its neighbours, nor what a folder has.
        save = partial(output.save, overwrite=number == 1 and self.file is not None)
        if is_passage(self._path):
            return anyio.run(save, self._place(number, output))  # whose reader may never come
        with undisturbed():
            return anyio.run(save, self._place(number, output))

    def _place(self, number: int, output: Output) -> str | Path:
        if self.is_standard_output:
            return Path()
        if self._is_folder or number == 1 or is_passage(self._path):
            return self._out
        suffix = output.suffix or self._path.suffix
        return self._path.with_name(f"{self._path.stem}-{number}{suffix}")


def _rescue(output: Output, error: OSError) -> str:
    """Keep an output that could not be written where it was to go; return what to say about it."""
    what = f"an output ({one_line(output.content_type)}, {len(output.content):,} bytes)"
    why = f"could not be written: {error.strerror or error}"
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(suffix_of(output.content_type), "prodia-async-")
        try:
            with open(handle, "wb") as file:  # noqa: PTH123  (a file that is open already)
                file.write(output.content)
        except OSError:
            Path(name).unlink()
        else:
            return f"{what} {why}; it is in {name}"
    return f"{what} {why}, nor into the folder for temporary files: it is lost"
