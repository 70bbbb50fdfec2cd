"""Headless Chromium, driven through its DevTools protocol; where there is none, tests skip."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0", "--remote-debugging-address=127.0.0.1",
]  # fmt: skip


TOLD = {"Runtime.exceptionThrown", "Log.entryAdded"}


class Page:
    """
    One tab.

    Attributes:
        console: What went wrong, as its console says.
        requested: Every address that it asked for.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.console: list[str] = []
        self.requested: list[str] = []
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
            elif told.get("method") == "Network.requestWillBeSent":
                self.requested.append(told["params"]["request"]["url"])
            elif told.get("method") in TOLD or (
                told.get("method") == "Runtime.consoleAPICalled"
                and told["params"]["type"] in {"error", "warning", "assert"}
            ):
                self.console.append(json.dumps(told["params"])[:500])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        told = await asyncio.wait_for(answer, 30)
        assert "error" not in told, told
        return dict(told["result"])

    async def open(self, url: str) -> None:
        await self.call("Page.enable")
        await self.call("Runtime.enable")
        await self.call("Log.enable")
        await self.call("Network.enable")
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, script: str) -> Any:
        told = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, condition: str, seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not await self.run(f"Boolean({condition})"):
                await asyncio.sleep(0.02)

    async def size(self, width: int, height: int, *, phone: bool = False) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip

    async def scheme(self, value: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": value}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def picture(self, path: Path, *, whole: bool = False) -> Path:
        """Write down what is seen, or all of the page."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    async def close(self) -> None:
        """Close the tab, as a person does."""
        with suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(self.call("Page.close"), 5)
        await self._socket.close()
        self._reader.cancel()


class Browser:
    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._session = session
        self._pages: list[Page] = []

    async def page(self) -> Page:
        async with self._session.put(f"{self._url}/json/new?about:blank") as answer:
            told = await answer.json()
        socket = await self._session.ws_connect(told["webSocketDebuggerUrl"], max_msg_size=0)
        self._pages.append(Page(socket))
        return self._pages[-1]

    async def aclose(self) -> None:
        for page in self._pages:
            page._reader.cancel()
            await page._socket.close()


@asynccontextmanager
async def chromium() -> AsyncGenerator[Browser, None]:
    """Start a browser of its own, and end it."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            said = Path(folder) / "DevToolsActivePort"
            async with asyncio.timeout(30):
                while not said.exists() or not said.read_text().strip():
                    await asyncio.sleep(0.05)
            port = int(said.read_text().split()[0])
            async with aiohttp.ClientSession() as session:
                browser = Browser(port, session)
                try:
                    yield browser
                finally:
                    await browser.aclose()
        finally:
            process.kill()
            await process.wait()
