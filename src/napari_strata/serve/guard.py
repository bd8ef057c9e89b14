"""Who may speak to the server: token, host, origin, and the size of requests.

Plain ASGI, in front of everything else.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/auth/", "/auth/token")
"""Paths that need no token: they tell that one is needed, and take it."""
SHORTEST_TOKEN = 16
"""Characters that a token has at least."""
_TOO_LARGE = "The request is larger than allowed. See --max-upload-mb."
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may speak to the server.

    Parameters
    ----------
    token : str
        What requests must carry; "" for none.
    origins : sequence of str
        Origins of web pages that may use it; requests of all others are refused.
    is_local : bool
        Whether it listens on this machine only; requests must then be addressed to
        this machine, so that no web page can reach it under a name of its own.
    max_bytes : int
        Largest request.
    """

    token: str = ""
    origins: Sequence[str] = ()
    is_local: bool = True
    max_bytes: int = 2_048_000_000

    def is_token(self, given: str) -> bool:
        """Return whether a token is the right one."""
        return bool(self.token) and secrets.compare_digest(
            given.encode(), self.token.encode()
        )


def is_local_host(host: str) -> bool:
    """Return whether an address is this machine's own."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuse requests that may not be answered, before anything of them is read.

    Parameters
    ----------
    app : callable
        The application behind it.
    access : Access
        Who may speak to it.
    """

    def __init__(self, app: App, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), [0]

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        await self._answer(scope, receive, noted)
        # paths hold names of scans: only their first part is logged
        part = scope["path"].split("/")[1][:20] if "/" in scope["path"] else ""
        known = part if part.isascii() and part.isalpha() else "?"
        seconds = time.perf_counter() - start
        logger.info("%s /%s: %d in %.2f s", scope["method"], known, status[0], seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(scope)
        limited = _Limited(receive, self._access.max_bytes)
        if refused is not None:
            if refused[0] == 413:
                await limited.drain()
            await _refuse(send, *refused)
            return
        await self._app(scope, limited, limited.sending(send))
        if limited.is_over:
            await limited.drain()
            await _refuse(send, 413, _TOO_LARGE)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason if a request may not be answered."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        access = self._access
        origin = headers.get("origin")
        if origin is not None and origin not in access.origins:
            return 403, "Web pages may not use this server. See --allow-origin."
        if access.is_local and _name_of(headers.get("host", "")) not in _LOCAL_NAMES:
            return 421, "The request is not addressed to this machine."
        is_open = scope["path"] in OPEN_PATHS or _is_preflight(scope, headers)
        if access.token and not is_open:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not access.is_token(given.strip()):
                return 401, "Wrong or missing token."
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > access.max_bytes:
            return 413, _TOO_LARGE
        return None


def _is_preflight(scope: Scope, headers: dict[str, str]) -> bool:
    """Return whether a browser only asks whether it may send a request."""
    return scope["method"] == "OPTIONS" and "origin" in headers


def _name_of(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Limited:
    """Receive the body of a request up to a bound; past it, the client seems to leave."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left, self._most = receive, most, most
        self.is_over = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_over = True
            return {"type": "http.disconnect"}
        return message

    async def drain(self) -> None:
        """Read on, as much again, and keep nothing.

        Clients look for the answer only when they have sent all.
        """
        left, is_more = self._most, True
        while is_more and left > 0:
            message = await self._receive()
            left -= len(message.get("body", b""))
            is_more = message["type"] == "http.request" and message.get(
                "more_body", False
            )

    def sending(self, send: Send) -> Send:
        """Return a callable that sends the application's answer, unless it is over."""

        async def sent(message: Message) -> None:
            if not self.is_over:
                await send(message)

        return sent
