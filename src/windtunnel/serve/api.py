"""The OpenAI-compatible API, for any client."""

from __future__ import annotations

from starlette.routing import Route

ROUTES: list[Route] = []
