"""From split, labels, slides and coordinates to a study of bags."""

from __future__ import annotations

from lamella.config import Settings
from lamella.data.bags import WeakStudy


class WeakDataSettings(Settings):
    """What is learned from."""


def open_study(classes: tuple[str, ...], background: str | None, settings: WeakDataSettings, seed: int) -> WeakStudy:
    """Assemble the study; all problems at once."""
    raise NotImplementedError
