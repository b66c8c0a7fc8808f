"""The application: routes of the API and of the page behind one guard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from windtunnel.errors import WindtunnelError
from windtunnel.serve import api, pages
from windtunnel.serve.safety import Guard, Policy, TooLarge, error
from windtunnel.serve.worker import Worker


def create_app(root: Path, policy: Policy) -> Starlette:
    """The application for the runs below a folder.

    `app.state` has `root`, `policy` and, while it runs, `worker` and `page`.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.worker, app.state.page = Worker(root), pages.Page(root)
        try:
            yield
        finally:
            app.state.page.close()
            app.state.worker.close()

    handlers = {WindtunnelError: _refused, TooLarge: _too_large}
    app = Starlette(
        routes=[*api.ROUTES, *pages.ROUTES],
        middleware=[Middleware(Guard, policy=policy)],
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    app.state.root, app.state.policy = root, policy
    return app


async def _refused(_: Request, problem: Exception) -> Response:
    """A user's mistake, said as the command line says it."""
    return error(400, str(problem))


async def _too_large(_: Request, __: Exception) -> Response:
    return error(413, "the body is too large")
