"""What every request must satisfy before a route sees it, and what every answer says to a browser.

A page elsewhere can make a browser send requests to this machine. So the name in `Host` must be one that this server
answers to (against DNS rebinding), a request that comes from a page must come from this server's own (`Origin`), a body
must be JSON (a form cannot send that without asking first) and small, and no answer allows another origin to read it.
A server that other machines reach wants a token with every request; what starts or stops something wants it always.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 1 << 20
"""Bytes of a request; a larger one is refused before it is read to its end."""
READING = ("GET", "HEAD")
LONGEST_REASON = 1000
"""Characters of what an error says; it may quote what it was given."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Said of every answer that does not say something else."""


@dataclass(frozen=True)
class Policy:
    """Who may ask what.

    hosts: the names that this server answers to.
    token: what a request that changes something must bring, as `Authorization: Bearer TOKEN`.
    always: whether every request must bring it.
    guarded: paths below which a request changes something; below other paths a POST computes, and changes nothing.
    public: what anybody may read: the page without any data, which asks its user for the token.
    """

    hosts: frozenset[str]
    token: str
    always: bool = False
    guarded: tuple[str, ...] = ("/page/",)
    public: tuple[str, ...] = ("/static/",)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: refuses what the policy does not allow, and adds HEADERS."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self.app, self.policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        path = scope["path"].removeprefix(scope.get("root_path", ""))
        refusal = self.refusal(scope["method"], path, Headers(scope=scope))
        if refusal is not None:
            status, reason = refusal
            await error(status, reason)(scope, receive, answer)
            return
        await self.app(scope, _limited(receive), answer)

    def refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """The status and the reason with which a request is refused; None where it is not."""
        host = headers.get("host", "")
        name, address = _parts(host)
        if name not in self.policy.hosts:
            return 421, f"this server does not answer to the name {host[:200]!r}; allow it with --allow-host"
        origin = headers.get("origin")
        if origin is not None and _parts(origin)[1] != address:
            return 403, f"a request from another page is refused, Origin is {origin[:200]!r}"
        if self._wants_token(method, path) and not self._has_token(headers):
            return 401, "this request needs the token that windtunnel serve printed: Authorization: Bearer TOKEN"
        if method in READING:
            return None
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "expected a body of Content-Type: application/json"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > LARGEST_BODY:
            return 413, f"expected a body of at most {LARGEST_BODY:,} bytes"
        return None

    def _wants_token(self, method: str, path: str) -> bool:
        if method in READING:
            return self.policy.always and path != "/" and not path.startswith(self.policy.public)
        return self.policy.always or path.startswith(self.policy.guarded)

    def _has_token(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.policy.token.encode())


class TooLarge(Exception):
    """A body without a length that turned out too large."""


def _limited(receive: Receive) -> Receive:
    """The same messages, until their bodies together are too large."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            raise TooLarge
        return message

    return limited


def error(
    status: int,
    reason: str,
    kind: str = "invalid_request_error",
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error in the form that OpenAI's clients read."""
    shown = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
    about = {"message": shown, "type": kind, "param": None, "code": code}
    return Json({"error": about}, status_code=status, headers={**HEADERS, **(headers or {})})


class Json(JSONResponse):
    """JSON in ASCII: half of a surrogate pair, which a client may have sent, has no UTF-8."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def _parts(host: str) -> tuple[str, str]:
    """The name and the address NAME:PORT in a Host header or behind // in a URL; nothing where it is not one."""
    try:
        found = urlsplit(host if "://" in host else f"//{host}")
        return (found.hostname or "", found.netloc.lower()) if host.isprintable() and "@" not in host else ("", "")
    except ValueError:
        return "", ""
