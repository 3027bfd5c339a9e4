"""HTTP connections kept open between requests, separately for each process and thread."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from mimsuite.data.stores import retry
from mimsuite.data.stores.retry import Transient
from mimsuite.errors import DataError, UserError

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LEFT = 1 << 12  # with at most this many bytes left, reading them is cheaper than reconnecting
_PLAIN = "%/:=&?~#+!$,;'@()*[]"
_DEFAULT_PORT = {"http": 80, "https": 443}


class _Kept(threading.local):
    """This thread's connections by (scheme, host, port), and the process that opened them."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.open: dict[tuple[str, str, int], HTTPConnection] = {}
        self.answered: set[str] = set()

    def own(self) -> _Kept:
        # After a fork, both processes would use the same connection.
        if self.owner != os.getpid():
            self.owner, self.open = os.getpid(), {}
        return self


_kept = _Kept()


def get(link: str, headers: dict[str, str], what: object) -> HTTPResponse:
    """Send a GET request and follow redirects; the body is not read yet.

    Redirects are followed from http to http or https, and from https to https only.

    Raises:
        Transient: no connection, or no response.
        DataError: a redirect to another scheme, or too many redirects.
        UserError: there is no such host, or its certificate is not valid.
    """
    for _ in range(_MOST_REDIRECTS + 1):
        parts = urlsplit(link)
        response = _answer(parts, headers, what)
        target = response.getheader("Location")
        if response.status not in _REDIRECTS or target is None:
            return response
        finish(response)
        link = urljoin(link, target)
        new = _parsed(link, what)
        if new.scheme not in _DEFAULT_PORT or (parts.scheme, new.scheme) == ("https", "http"):
            raise DataError(f"{what}: redirected to {new.scheme}:, which is not followed")
        if _endpoint(new) != _endpoint(parts):
            headers = {name: text for name, text in headers.items() if name != "Authorization"}
    raise DataError(f"{what}: more than {_MOST_REDIRECTS} redirects")


def _parsed(link: str, what: object) -> SplitResult:
    try:
        parts = urlsplit(link)
        if parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise DataError(f"{what}: redirected to an invalid address")


def finish(response: HTTPResponse) -> None:
    """Finish a response; keep its connection only if little of the body is left to read."""
    if response.length is not None and response.length <= _LEFT:
        try:
            response.read()
            return
        except (OSError, HTTPException):
            pass
    drop(response)


def drop(response: HTTPResponse) -> None:
    """Close the connection of a response that was not read to the end."""
    response.close()
    for endpoint, connection in list(_kept.own().open.items()):
        if getattr(connection, "answer", None) is response:
            connection.close()
            del _kept.open[endpoint]


def _answer(parts: SplitResult, headers: dict[str, str], what: object) -> HTTPResponse:
    endpoint = _endpoint(parts)
    connection = _kept.own().open.get(endpoint)
    if connection is not None:
        try:
            return _ask(connection, parts, headers)
        except (OSError, HTTPException):
            # Servers close idle connections; a new one may work.
            connection.close()
            del _kept.open[endpoint]
    connection = _connect(parts)
    try:
        response = _ask(connection, parts, headers)
    except ssl.SSLCertVerificationError as fault:
        connection.close()
        raise UserError(
            f"{what}: the server's certificate is not valid ({fault.verify_message})"
        ) from None
    except (OSError, HTTPException) as fault:
        connection.close()
        unknown = isinstance(fault, socket.gaierror) and fault.errno == socket.EAI_NONAME
        if unknown and endpoint[1] not in _kept.answered:
            raise UserError(f"{what}: there is no host '{endpoint[1]}'") from None
        raise Transient(reason(fault)) from None
    _kept.answered.add(endpoint[1])
    _kept.open[endpoint] = connection
    return response


def _ask(connection: HTTPConnection, parts: SplitResult, headers: dict[str, str]) -> HTTPResponse:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    own: dict[str, str] = {}
    if getattr(connection, "forwards", None) is not None:
        target = parts._replace(fragment="").geturl()
        own = connection.forwards  # type: ignore[attr-defined]
    # Escape characters that are not allowed in a request line.
    target = quote(target, safe=_PLAIN)
    connection.request("GET", target, headers={**headers, **own})
    if connection.sock is not None:
        connection.sock.settimeout(retry.STALL_SECONDS)
    response = connection.getresponse()
    connection.answer = response  # type: ignore[attr-defined]
    return response


def _connect(parts: SplitResult) -> HTTPConnection:
    """An unopened connection, through the environment's proxy if one is set."""
    scheme, host, port = _endpoint(parts)
    proxy = None if proxy_bypass(f"{host}:{port}") else getproxies().get(scheme)
    timeout = retry.CONNECT_SECONDS
    if proxy is None:
        if scheme == "https":
            return HTTPSConnection(host, port, timeout=timeout, context=_tls())
        return HTTPConnection(host, port, timeout=timeout)
    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not through.hostname:
        raise UserError(f"the proxy of the environment names no host: {scheme}_proxy={proxy}")
    login = {}
    if through.username is not None:
        pair = f"{unquote(through.username)}:{unquote(through.password or '')}"
        login["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    proxy_port = through.port or _DEFAULT_PORT.get(through.scheme, 80)
    if scheme == "https":
        tunnel = HTTPSConnection(through.hostname, proxy_port, timeout=timeout, context=_tls())
        tunnel.set_tunnel(host, port, login)
        return tunnel
    plain = HTTPConnection(through.hostname, proxy_port, timeout=timeout)
    plain.forwards = login  # type: ignore[attr-defined]
    return plain


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _endpoint(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORT[parts.scheme]


def reason(fault: Exception) -> str:
    """A short description of a network error."""
    if isinstance(fault, TimeoutError):
        return "no answer in time"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror.lower()
    return str(fault) or type(fault).__name__
