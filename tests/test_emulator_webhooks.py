"""The webhooks of Kontext tasks: called when a task has ended, signed, and only on this machine."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from prodia_async.emulator import Emulator, FireworksBehaviour, Webhook
from prodia_async.fireworks import AsyncFireworks, verify_webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

KONTEXT = "/workflows/accounts/fireworks/models/flux-kontext-pro"


class Receiver(http.server.HTTPServer):
    """Takes calls down, and answers with a status."""

    def __init__(self, status: int = 204) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                body = handler.rfile.read(int(handler.headers["content-length"]))
                self.calls.append((dict(handler.headers), body))
                handler.send_response(status)
                handler.end_headers()

            def log_message(self, *_: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/done?for=me"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


def submit(emulator: Emulator, **body: Any) -> str:
    response = httpx.post(
        emulator.fireworks_url + KONTEXT,
        json={"prompt": "a fox", **body},
        headers={"authorization": "Bearer x"},
        verify=False,
    )
    assert response.status_code == 200
    return str(response.json()["request_id"])


def called(emulator: Emulator) -> Webhook:
    deadline = time.monotonic() + 10
    while not emulator.webhooks and time.monotonic() < deadline:
        time.sleep(0.005)
    (webhook,) = emulator.webhooks
    return webhook


@pytest.mark.parametrize(
    ("states", "prompt", "state"),
    [
        (("Pending", "Ready"), "a fox", "Ready"),
        (("Pending", "Ready"), "a fox [filtered]", "Content Moderated"),
        (("Pending", "Request Moderated"), "a fox", "Request Moderated"),
        (("Error",), "a fox", "Error"),
    ],
)
def test_a_task_that_has_ended_is_told(
    receiver: Receiver, states: Any, prompt: str, state: str
) -> None:
    """One POST of what a poll would be told, signed with the secret over its exact bytes."""
    behaviour = FireworksBehaviour(shrink=16, kontext_states=states)
    with Emulator(fireworks=behaviour) as emulator:
        task = submit(emulator, prompt=prompt, webhook_url=receiver.url, webhook_secret="s3cret")
        webhook = called(emulator)
        ((headers, body),) = receiver.calls
        told = json.loads(body)
        assert (told["id"], told["status"]) == (task, state)
        assert (told["result"] is not None) == (state == "Ready")
        if state == "Ready":
            assert httpx.get(told["result"]["sample"], verify=False).status_code == 200
        expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
        assert headers["X-Fireworks-Signature"] == f"sha256={expected}"
        assert headers["Content-Type"] == "application/json"
        assert (webhook.status, webhook.url, webhook.body) == (204, receiver.url, body)
        assert "s3cret" not in repr(emulator.ledger.records()) + repr(webhook)


async def test_the_clients_own_check_takes_what_the_emulator_signed(receiver: Receiver) -> None:
    """Ordered by the client, called over HTTP, checked as it arrived: and nothing else passes."""
    behaviour = FireworksBehaviour(shrink=16)
    with Emulator(fireworks=behaviour) as emulator:
        async with AsyncFireworks("key", base_url=emulator.fireworks_url) as client:
            response = await client.kontext(
                "a fox", webhook_url=receiver.url, webhook_secret="s3cret", poll=0.01
            )
        called(emulator)
    ((headers, body),) = receiver.calls
    assert json.loads(body)["id"] == response.image.id
    assert verify_webhook(body, headers, "s3cret") is True
    assert verify_webhook(body, list(headers.items()), "s3cret") is True
    for place in (0, len(body) // 2, len(body) - 1):
        changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        assert verify_webhook(changed, headers, "s3cret") is False
    assert verify_webhook(body, headers, "s3cret2") is False
    unsigned = {name: value for name, value in headers.items() if "Signature" not in name}
    assert len(unsigned) == len(headers) - 1
    assert verify_webhook(body, unsigned, "s3cret") is False


def test_without_a_secret_it_is_not_signed(receiver: Receiver) -> None:
    """The message goes out all the same."""
    with Emulator(fireworks=FireworksBehaviour(shrink=16)) as emulator:
        submit(emulator, webhook_url=receiver.url)
        assert called(emulator).status == 204
        ((headers, _),) = receiver.calls
        assert "X-Fireworks-Signature" not in headers


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://192.0.2.1/", "this machine alone"),
        ("http://example.org/", "this machine alone"),
        ("ftp://127.0.0.1/", "this machine alone"),
        ("http://[/", "this machine alone"),
        ("http://127.0.0.1:1/", "URLError"),
    ],
)
def test_who_is_not_called(url: str, why: str) -> None:
    """Nothing leaves the machine, and who does not answer does no harm to the task."""
    with Emulator(fireworks=FireworksBehaviour(shrink=16)) as emulator:
        submit(emulator, webhook_url=url)
        webhook = called(emulator)
        assert webhook.status is None
        assert why in str(webhook.error)


def test_a_receiver_that_fails() -> None:
    """Its status is written down; it is not called again."""
    with Receiver(500) as receiver, Emulator(fireworks=FireworksBehaviour(shrink=16)) as emulator:
        thread = threading.Thread(target=receiver.handle_request)
        thread.start()
        submit(emulator, webhook_url=receiver.url)
        assert called(emulator).status == 500
        thread.join()
