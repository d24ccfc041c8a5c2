from __future__ import annotations

import pytest
from tests.models.tiny_models import TINY
from transformers.utils import logging

from lamella.models import registry

KNOWN = registry.entries


@pytest.fixture(autouse=True, scope="session")
def no_bars() -> None:
    logging.disable_progress_bar()  # of save_pretrained
    logging.set_verbosity_error()


@pytest.fixture
def tiny_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry also knows the tiny networks, as `tiny-phikon-v2` and so on."""
    tiny = {made.entry.name: made.entry for made in TINY.values()}
    monkeypatch.setattr(registry, "entries", lambda: {**KNOWN(), **tiny})
