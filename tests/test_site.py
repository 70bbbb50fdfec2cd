"""The site as it is built: every link and anchor, every public name, and pages in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import html.parser
import http.server
import importlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from browser import Page, chromium, needs_chromium
from test_help import MODULES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SEARCHED = {
    "Retry-After": "/guides/money/",
    "429": "/guides/money/",
    "resume": "/guides/batch/",
    "FastAPI": "/guides/services/",
    "paid twice": "/explanation/paid/",
    "proxy": "/guides/settings/",
    "cancel": "/guides/many/",
    "RetryPolicy": "/reference/client/",
}
"""What somebody in trouble may look for, and the page that has to be found first."""


class Read(html.parser.HTMLParser):
    """What a page is called, what it has, and what it leads to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag in {"a", "area"} and "href" in found:
            self.links.add(found["href"])
        if tag == "link" and found.get("rel") != "canonical" and "href" in found:
            self.fetched.add(found["href"])
        if tag in {"img", "script", "iframe", "source", "video", "audio", "embed"}:
            self.fetched |= {found["src"]} if "src" in found else set()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, strictly."""
    to = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(to)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return to


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Read]:
    """Return each page by its address below the site's."""
    return {
        f"/{path.relative_to(site)}".removesuffix("index.html"): Read(path)
        for path in site.rglob("*.html")
        if path.name != "404.html"
    }


def test_every_link_and_anchor_leads_somewhere(site: Path, pages: dict[str, Read]) -> None:
    """To a page or a file of the site, and to a place that is on it."""
    broken: list[str] = []
    for page, read in pages.items():
        for link in read.links | read.fetched:
            where = urlsplit(urljoin(f"http://site{page}", link))
            if where.netloc != "site" or where.scheme != "http":
                continue
            path, anchor = unquote(where.path), unquote(where.fragment)
            if path in pages:
                if anchor and anchor not in pages[path].anchors:
                    broken.append(f"{page}: {link}")
            elif not (site / path.lstrip("/")).is_file():
                broken.append(f"{page}: {link}")
    assert len(pages) > 30
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[str, Read]) -> None:
    """No fonts, no analytics: it works on an island."""
    elsewhere = {
        link for read in pages.values() for link in read.fetched if urlsplit(link).netloc != ""
    }
    assert elsewhere == set()
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(.?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_every_public_name_is_in_the_reference(pages: dict[str, Read]) -> None:
    """With an anchor of its own, by the name that it is imported by."""
    anchors = {anchor for read in pages.values() for anchor in read.anchors}
    public = {
        f"{module}.{name}"
        for module in MODULES
        for name in importlib.import_module(module).__all__
        if name != "__version__"
    }
    assert public - anchors == set()


def test_docstrings_look_like_markdown(site: Path) -> None:
    """What only reStructuredText would know how to show is on no page."""
    for path in (site / "reference").rglob("*.html"):
        text = re.sub(r"<(pre|code).*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        told = re.sub(r"<[^>]+>", "", text)
        assert not re.search(r"::\s*$|={4,}|``|\bArgs:", told, re.MULTILINE), path


# ------------------------------------------------------------------ in a browser


@contextlib.contextmanager
def served(site: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
async def test_every_page_in_a_browser(
    site: Path, pages: dict[str, Read], width: int, scheme: str
) -> None:
    """Nothing in the console, nothing from elsewhere, no page wider than the window."""
    async with asyncio.timeout(110):
        with served(site) as url:
            async with chromium() as browser:
                page = await browser.page()
                await page.size(width, 900, phone=width < 1000)
                await page.scheme(scheme)
                for path in sorted(pages):
                    await page.open(url + path)
                    assert await page.run("document.documentElement.scrollWidth") <= width, path
                    assert page.console == [], path
                shown = await page.run("getComputedStyle(document.body).backgroundColor")
                red = int(re.findall(r"\d+", shown)[0])
                assert (red > 200) == (scheme == "light")
                assert {
                    each for each in page.requested if not each.startswith((url, "data:"))
                } == set()


TABLES_OF_FIGURES = {"/guides/cluster/", "/reference/job-types/"}
"""Pages with a table that scrolls by itself on a phone."""


@needs_chromium
async def test_tables_fit_a_phone(site: Path, pages: dict[str, Read]) -> None:
    """A row of words becomes a block, so that nobody has to look for what to do beyond the edge."""
    wide = (
        "[...document.querySelectorAll('table')].some(t => t.getBoundingClientRect().right > 391)"
    )
    async with asyncio.timeout(110):
        with served(site) as url:
            async with chromium() as browser:
                page = await browser.page()
                await page.size(390, 900, phone=True)
                too_wide = set()
                for path in sorted(pages):
                    await page.open(url + path)
                    too_wide |= {path} if await page.run(wide) else set()
    assert too_wide <= TABLES_OF_FIGURES


async def found(page: Page, url: str, words: str) -> list[str]:
    """Type into the field as a reader does, and return where the results lead."""
    await page.open(f"{url}/")
    await page.run(
        "(() => { const open = document.querySelector('#__search'); open.checked = true;"
        " open.dispatchEvent(new Event('change'));"
        " const field = document.querySelector('.md-search__input'); field.focus();"
        f" field.value = {json.dumps(words)};"
        " field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true})) })()"
    )
    results = "[...document.querySelectorAll('.md-search-result__item a')]"
    await page.until(f"{results}.length > 0")
    links = await page.run(f"{results}.map(link => link.href)")
    return [urlsplit(link).path for link in links]


@needs_chromium
async def test_the_search_finds_what_people_look_for(site: Path) -> None:
    """In the page as it is."""
    with served(site) as url:
        async with chromium() as browser:
            page = await browser.page()
            await page.size(1400, 900)
            for words, where in SEARCHED.items():
                assert (await found(page, url, words))[0] == where, words
            assert page.console == []
