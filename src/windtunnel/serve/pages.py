"""The page, and what it asks for: runs, curves, traces, comparisons, experiments."""

from __future__ import annotations

from starlette.routing import Route

ROUTES: list[Route] = []
