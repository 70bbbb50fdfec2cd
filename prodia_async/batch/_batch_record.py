"""A record for people: read, shown, exported, and made a page of."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _checks
from ._reader import RecordReader

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


class BatchRecord(RecordReader):
    """
    Reads what a folder holds: of a finished batch, a crashed or a running one.

    Nothing here changes the folder, but for what it is asked to write. Its
    methods block; in an event loop, call them in a thread.

    Args:
        folder: The folder that `Batch` was given, or the URL of the store that a
            cluster's workers wrote to.

    Raises:
        RecordDamagedError: There is no record, or it cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        path = _checks.path("folder", folder)
        self._url = path if "://" in path else None
        if self._url is not None:
            from ._carry import folder_of  # noqa: PLC0415  (what only stores need)

            super().__init__(folder_of(path))
        else:
            super().__init__(Path(path))

    def _give_back(self, numbers: Mapping[int, str]) -> None:
        if self._url is not None:
            from ._objects import ObjectRecord  # noqa: PLC0415  (what only stores need)

            store = ObjectRecord(self._url)
            for key in numbers.values():
                store.forget(key)
        super()._give_back(numbers)

    def _repr_html_(self) -> str:
        from ._report import strip  # noqa: PLC0415  (what only reports need)

        with self.snapshot() as snapshot:
            told = escape(str(snapshot.summary()))
            return f"<p><b>{escape(self.folder.name)}</b>: {told}</p>{strip(snapshot, 12)}"

    def strip_html(self, most: int = 12) -> str:
        """
        Return some of the pictures, small, as HTML; empty where Pillow is missing.

        Args:
            most: Of them, evenly over the run.
        """
        from ._report import strip  # noqa: PLC0415  (what only reports need)

        with self.snapshot() as snapshot:
            return strip(snapshot, most)

    def export(self, path: str | os.PathLike[str], *, failures: bool | None = None) -> int:
        """
        Write a manifest: a line for each row, in the order of the input.

        Args:
            path: Ends in ``.jsonl``, ``.csv`` or ``.parquet``.
            failures: Only what failed and what is in doubt, written as an
                input file that `read_jobs` takes. By default, whether the
                file is called ``failures.…``. Rows whose inputs were in
                memory are left out, and their number is logged.

        Returns:
            How many rows were written.

        Raises:
            InvalidRequestError: The ending is none of these.
            BatchError: It is ``.parquet``, and pyarrow is missing.
        """
        from ._export import export  # noqa: PLC0415  (what only exports need)

        with self.snapshot() as snapshot:
            return export(snapshot, Path(path), failures)

    def write_report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """
        Write a page for people: what was made, what failed and why, what it cost.

        One file below 3 MB, whatever the size of the run; it needs nothing beside it.

        Args:
            path: By default ``report.html`` in the folder.

        Returns:
            Where it is.

        Raises:
            BatchError: Jinja2, matplotlib or Pillow is missing.
        """
        from ._report import write_report  # noqa: PLC0415  (what only reports need)

        with self.snapshot() as snapshot:
            return write_report(snapshot, Path(path) if path else self.folder / "report.html")

    def contact_sheet(self, path: str | os.PathLike[str] | None = None, most: int = 200) -> Path:
        """
        Write one JPEG of many small pictures, for a chat or a mail.

        Args:
            path: By default ``contact-sheet.jpg`` in the folder.
            most: Pictures on it, evenly over the run.

        Raises:
            BatchError: Pillow is missing, or the run has no picture.
        """
        from ._sheet import write_sheet  # noqa: PLC0415  (what only reports need)

        target = Path(path) if path else self.folder / "contact-sheet.jpg"
        with self.snapshot() as snapshot:
            return write_sheet(snapshot, target, most)

    def grid(self, rows: str, columns: str) -> Any:
        """
        Show what two settings make of each other: a table of pictures, for a notebook.

        Args:
            rows: A setting of the config, for instance ``"prompt"``.
            columns: Another, for instance ``"seed"``.

        Returns:
            A table that shows itself in a notebook; ``str()`` of it is HTML.
        """
        from ._report import grid_table  # noqa: PLC0415  (what only reports need)

        with self.snapshot() as snapshot:
            return grid_table(snapshot, rows, columns)
