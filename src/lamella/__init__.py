"""Lamella learns from medical images with few or no labels: whole slides, images, volumes, video."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "from_pretrained"]


def __getattr__(name: str) -> Any:
    """`lamella.from_pretrained`, found on first use: `import lamella` stays free of torch."""
    if name == "from_pretrained":
        return importlib.import_module("lamella.models.hub").from_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
