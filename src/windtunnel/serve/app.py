"""The application: routes of the API and of the page behind one guard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from windtunnel.errors import WindtunnelError
from windtunnel.serve import api, pages
from windtunnel.serve.safety import Guard, Policy, TooLarge, error
from windtunnel.serve.shelf import UnknownModel
from windtunnel.serve.worker import PLACES, Busy, Worker

GONE = 499
"""What nobody reads: the client went away before its answer. The number is nginx's."""


def create_app(root: Path, policy: Policy, memory: int | None = None, places: int = PLACES) -> Starlette:
    """The application for the runs below a folder.

    `app.state` has `root`, `policy` and, while it runs, `worker` and `page`.

    Args:
        memory, places: as `Worker` takes them.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.worker, app.state.page = Worker(root, memory, places), pages.Page(root)
        try:
            yield
        finally:
            app.state.page.close()
            app.state.worker.close()

    app = Starlette(
        routes=[*api.ROUTES, *pages.ROUTES],
        middleware=[Middleware(Guard, policy=policy)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.root, app.state.policy = root, policy
    return app


async def _refused(_: Request, problem: Exception) -> Response:
    """A user's mistake, said as the command line says it."""
    return error(400, str(problem))


async def _unknown(_: Request, problem: Exception) -> Response:
    return error(404, str(problem), code="model_not_found")


async def _http(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    return error(problem.status_code, problem.detail, headers=problem.headers)


async def _too_large(_: Request, __: Exception) -> Response:
    return error(413, "the body is too large")


async def _busy(_: Request, __: Exception) -> Response:
    return error(429, "all places are taken; come again", "rate_limit_error", headers={"Retry-After": "1"})


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)


async def _failed(_: Request, __: Exception) -> Response:
    return error(500, "the server failed; its terminal says how", "server_error")


HANDLERS: Any = {
    WindtunnelError: _refused,
    UnknownModel: _unknown,
    HTTPException: _http,
    TooLarge: _too_large,
    Busy: _busy,
    ClientDisconnect: _gone,
    Exception: _failed,
}
