"""One file that a job made, whole and in memory. Imports no errors, so that they may carry it."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import anyio.to_thread

from . import _notebook
from ._files import Saving
from ._media import suffix_of
from ._show import MAX_SHOWN, one_line, shown

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import PIL.Image


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a job made, whole and in memory."""

    content: bytes = field(repr=False)
    """The bytes."""
    content_type: str
    """The media type as the server said it, else what the first bytes tell."""
    filename: str | None = None
    """The name it came under, if any. Not safe to use as a path; `save` makes it so."""

    def __repr__(self) -> str:
        return (
            f"<Output {one_line(self.content_type, longest=MAX_SHOWN)} {len(self.content)} bytes"
            f"{f' {shown(self.filename)}' if self.filename else ''}>"
        )

    @property
    def suffix(self) -> str:
        """The extension for `content_type`, with its dot; ``""`` when it is not a known one."""
        return suffix_of(self.content_type)

    async def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """
        Write the output to a file.

        Nothing that may have been paid for is lost on the way: a file that is
        there already stays, and the output goes to the first free of
        ``name``, ``name-2``, ``name-3`` ... unless it holds the same bytes.

        Args:
            path: A file; or a folder, which is one that is there or a path
                that ends in a slash. In a folder the output keeps the name it
                came under, made safe. Folders that are missing are made. A
                pipe or a device is written to as it is.
            overwrite: Replace a file that is there.

        Returns:
            Where it was written.

        Raises:
            OSError: It cannot be written there, or the disk is full. Nothing
                is left under the final name then. It names the path as given.
        """
        run = anyio.to_thread.run_sync
        saving = Saving(path, self.filename, self.suffix, overwrite=overwrite)
        try:
            await run(saving.open, self.content, abandon_on_cancel=True)
            await run(saving.write, [self.content], abandon_on_cancel=saving.may_wait)
            return await run(saving.publish)
        finally:
            saving.discard()

    def to_pil(self) -> PIL.Image.Image:
        """
        Return the picture as Pillow has it, decoded.

        Raises:
            ImportError: Pillow is not installed; it comes with the extra ``pillow``.
            ValueError: It is no picture that Pillow can read.
        """
        try:
            from PIL import Image  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise ImportError("to_pil needs Pillow: pip install 'prodia-async[pillow]'") from error
        try:
            picture = Image.open(BytesIO(self.content))
            picture.load()
        except Exception as error:
            # The readers of forty formats raise what they run into; one that is too large, too.
            raise ValueError(f"{self!r} is no picture that Pillow can read: {error}") from error
        return picture

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> dict[str, bytes | str]:
        """Show the picture, the video or the text in a notebook."""
        del include, exclude  # a notebook filters by itself
        return _notebook.output_bundle(self)
