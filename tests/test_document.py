"""What the documentation shows that a program made: is it what the program makes today?"""

import document
from PIL import Image


def test_the_page_of_job_types_is_the_catalogues() -> None:
    """``python tools/document.py`` was run after the last change to the catalogue."""
    page = document.DOCS / "reference" / "job-types.md"
    assert page.read_text(encoding="utf-8") == document.job_types_page()


def test_the_badges_are_true() -> None:
    """They say what ``pyproject.toml`` says, as a drawing and in words."""
    drawn = document.DOCS / "assets" / "badges.svg"
    assert drawn.read_text(encoding="utf-8") == document.badges()
    readme = (document.DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert f"![{document.badges_in_words()}](docs/assets/badges.svg)" in readme


def test_the_contact_sheet_is_whole() -> None:
    """Two rows of four pictures, none of them empty."""
    with Image.open(document.DOCS / "assets" / "contact-sheet.jpg") as sheet:
        assert sheet.size == (984, 488)
        for number in range(8):
            row, column = divmod(number, 4)
            left, top = column * 248, row * 248
            piece = sheet.crop((left, top, left + 240, top + 240))
            assert len(piece.quantize(16).getcolors() or ()) > 4
