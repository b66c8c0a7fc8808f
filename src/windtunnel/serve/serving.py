"""The server process: it listens, answers until it is asked to stop, and then finishes what it has begun."""

from __future__ import annotations

import errno
import re
import secrets
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.serve.app import create_app
from windtunnel.serve.safety import Policy, is_loopback

OWN_NAMES = ("localhost", "127.0.0.1", "::1")
KEEP_ALIVE = 75
"""Seconds that a connection may be silent."""


@dataclass(frozen=True)
class Started:
    """Where a server answers, and the token that it wants."""

    url: str
    token: str
    always: bool
    """Whether every request must bring it, and not only those that start or stop something."""


def serve(
    root: Path,
    host: str,
    port: int,
    say: Callable[[Started], None],
    token: str | None = None,
    allowed: Iterable[str] = (),
    root_path: str = "",
    memory: int | None = None,
) -> None:
    """Answer for the runs below a folder until SIGTERM or Ctrl-C; running answers are finished then.

    Args:
        port: 0 is any that is free.
        say: called once, when it listens.
        allowed: further names that it answers to.
        root_path: what a proxy in front of it has taken off the path, as /models.

    Raises:
        ArtifactError: when there is no such folder.
        ConfigError: for a port or host that cannot be had, or a wrong root_path.
    """
    if not root.is_dir():
        raise ArtifactError(f"{root} is no folder; train a model first (windtunnel train names), or name its folder")
    if root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", root_path):
        raise ConfigError(f"--root-path {root_path!r}: expected a path like /models, without a slash at its end")
    if token is not None and not re.fullmatch(r"[!-~]{8,}", token):
        raise ConfigError("--token: expected at least 8 letters, digits or signs of ASCII, without spaces")
    token = token or secrets.token_urlsafe(24)
    names = {name.lower() for name in (*OWN_NAMES, host, *allowed)}
    policy = Policy(frozenset(names), token, always=not is_loopback(host))
    app = create_app(root, policy, memory)
    with listening(host, port) as listener, _quiet_signals():
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none",
            http="h11", loop="asyncio", lifespan="on", root_path=root_path, timeout_keep_alive=KEEP_ALIVE,
        )  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        say(Started(f"http://{shown}:{listener.getsockname()[1]}{root_path}/", token, policy.always))
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens.

    Raises:
        ConfigError: when the port is taken or forbidden, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} of {host} is taken; give another with --port, or --port 0 for any that is free"
        elif error.errno == errno.EACCES:
            reason = f"port {port} is not for every user; give one from 1024 on with --port"
        else:
            reason = f"cannot listen at {host}: {error.strerror or error}; give an address of this machine with --host"
        raise ConfigError(reason) from None
    with listener:
        # Its connections inherit this. asyncio sets it only where the socket's protocol is given by number, and without
        # it the second packet of an answer waits 40 ms for the client to acknowledge the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """While this lasts, SIGTERM and Ctrl-C do nothing: uvicorn, which handles them itself, sends them again at the end,
    when all has been answered."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
