"""One file that a job made, whole and in memory. Imports no errors, so that they may carry it."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from ._files import choose_target, write_file
from ._media import bare_type, suffix_of
from ._show import MAX_SHOWN, one_line, shown

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, slots=True)
class Output:
    """
    One file that a job made, whole and in memory.

    Attributes:
        content: The bytes.
        content_type: The media type as the server said it, else what the first bytes tell.
        filename: The name it came under, if any. Not safe to use as a path; `save` makes it so.
    """

    content: bytes = field(repr=False)
    content_type: str
    filename: str | None = None

    def __repr__(self) -> str:
        return (
            f"<Output {one_line(self.content_type, longest=MAX_SHOWN)} {len(self.content)} bytes"
            f"{f' {shown(self.filename)}' if self.filename else ''}>"
        )

    @property
    def suffix(self) -> str:
        """The extension for `content_type`, with its dot; ``""`` when it is not a known one."""
        return suffix_of(self.content_type)

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """
        Write the output to a file.

        Args:
            path: A file, which is replaced if it exists; or an existing
                folder, in which the output keeps the name it came under,
                made safe, and numbered rather than put over another file.

        Returns:
            Where it was written.

        Raises:
            OSError: The folder is missing or cannot be written, or the disk
                is full. Nothing is left under the final name then.
        """
        return await anyio.to_thread.run_sync(self._save, Path(path))

    def _save(self, path: Path) -> Path:
        target, replace = choose_target(path, self.filename, self.suffix)
        return write_file(target, self.content, replace=replace)

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> dict[str, bytes | str]:
        """Show the picture, the video or the text in a notebook."""
        del include, exclude  # a notebook filters by itself
        kind = bare_type(self.content_type) or ""
        bundle: dict[str, bytes | str] = {"text/plain": repr(self)}
        if kind in {"image/png", "image/jpeg", "image/gif", "image/webp"}:
            bundle[kind] = self.content
        elif kind == "image/svg+xml":
            bundle[kind] = self.content.decode(errors="replace")
        elif kind.startswith("text/"):
            bundle["text/plain"] = self.content.decode(errors="replace")
        elif kind.startswith(("video/", "audio/")):
            bundle["text/html"] = _media_element(kind, self.content)
        return bundle


def _media_element(kind: str, content: bytes) -> str:
    element = kind.partition("/")[0]
    # The type is the server's word, and must not become markup.
    source = f"data:{escape(kind)};base64,{b64encode(content).decode()}"
    return f'<{element} controls src="{source}"></{element}>'
