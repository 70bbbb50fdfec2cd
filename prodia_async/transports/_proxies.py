"""Which proxy the environment names."""

from __future__ import annotations

import urllib.request

import httpx

from .._wire import is_this_machine


def environment_proxy(url: httpx.URL | str) -> str | None:
    """
    Return the proxy that the environment names for this URL.

    ``HTTPS_PROXY`` or ``HTTP_PROXY`` by the URL's scheme, else ``ALL_PROXY``;
    lower case first. On macOS and Windows the system's settings count where
    no variable is set. Read by `urllib.request.getproxies`, as httpx does.
    ``NO_PROXY`` is a list of names, each standing for its subdomains too, or
    ``*`` (`urllib.request.proxy_bypass`; unlike httpx, ``.example.com`` holds
    for ``example.com`` itself, as it does for curl). This machine's own names
    and addresses need no proxy, and plain http to them must not leave it.
    """
    url = httpx.URL(url)
    if is_this_machine(url.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
