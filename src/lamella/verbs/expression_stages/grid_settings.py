"""Settings of this stage."""

from __future__ import annotations

from lamella.config import Settings


class GridSettings(Settings):
    """To be filled in by its owner."""
