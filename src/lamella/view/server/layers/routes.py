"""Tiles, objects and channels of layers."""

from __future__ import annotations

from starlette.routing import Route

ROUTES: list[Route] = []
