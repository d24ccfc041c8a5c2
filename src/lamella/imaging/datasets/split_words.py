"""Words for the parts of a data set."""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "val", "test"]

_MEANING: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_of(text: str) -> Split | None:
    """The split that a word means; None for a word that means none."""
    return _MEANING.get(text.strip().lower())
