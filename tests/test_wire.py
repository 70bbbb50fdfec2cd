"""Headers and requests as values."""

import pickle

from prodia_async._secret import REDACTED
from prodia_async._uploads import BytesBody
from prodia_async._wire import Headers, Order, Sending, Target, WireRequest

PAIRS = [("X-A", "1"), ("Retry-After", "5"), ("x-a", "2")]


def test_headers_in_any_case() -> None:
    """Looked up in any case, joined by commas, in wire order; absent is absent."""
    headers = Headers(PAIRS)
    assert headers["x-A"] == "1, 2"
    assert headers.get("RETRY-AFTER") == "5"
    assert headers.get("date") is None
    assert "X-a" in headers
    assert dict(headers) == {"x-a": "1, 2", "retry-after": "5"}
    assert len(headers) == 2


def test_get_all_is_a_copy() -> None:
    """All values come one by one; changing the list changes nothing."""
    headers = Headers(PAIRS)
    headers.get_all("X-A").clear()
    assert headers.get_all("X-A") == ["1", "2"]
    assert headers.get_all("no") == []


def test_headers_never_show_values() -> None:
    """A value may be a secret; names are not."""
    assert repr(Headers([("a", "secret")])) == "<Headers a>"


def test_without_a_secret() -> None:
    """It is blotted out wherever it stands; an empty one stands nowhere."""
    secret = "a-secret"
    headers = Headers([("a", f"Bearer {secret}"), ("a", "x"), ("b", secret * 2)])
    assert headers.without(secret).get_all("a") == [f"Bearer {REDACTED}", "x"]
    assert headers.without(secret)["b"] == REDACTED * 2
    assert headers.without("x")["a"] == f"Bearer {secret}, {REDACTED}"
    assert headers.without("") is headers
    assert headers.without("another-secret") is headers


def test_headers_pickle() -> None:
    """They survive a pickle, since errors and records carry them."""
    assert pickle.loads(pickle.dumps(Headers(PAIRS))) == Headers(PAIRS)


def test_a_requests_repr_has_no_secrets() -> None:
    """Method, path, kind and size; neither headers nor query nor body."""
    body = BytesBody(b"secret", "text/plain")
    secret = (("x", "secret"),)
    assert repr(WireRequest("POST", "/p", secret, secret, body, "k")) == (
        "<WireRequest POST /p k 6 bytes>"
    )
    assert repr(WireRequest("GET", "/p", (), (), None, "k")) == "<WireRequest GET /p k 0 bytes>"


def test_an_orders_repr_has_no_token() -> None:
    """What is handed to a transport holds it among its headers."""
    target = Target("https", "api.test", 443, b"/v2/job?x=secret")
    order = Order(
        "POST", target, [(b"authorization", b"Bearer secret")], body=b"secret", length=6,
        sending=Sending(), connect=1, read=1, write=1,
    )  # fmt: skip
    assert repr(order) == "<Order POST to api.test>"


def test_an_equal_header_counts_once() -> None:
    """What a proxy repeats is one value; what differs is joined, and `get_all` has them all."""
    headers = Headers([("A", "x"), ("a", "x"), ("a", "y"), ("B", "1"), ("b", "1")])
    assert (headers["a"], headers["b"]) == ("x, y", "1")
    assert headers.get_all("b") == ["1", "1"]
