"""Names that may stand in URLs and in names of files."""

from __future__ import annotations

import re
import unicodedata

_MAX_CHARACTERS = 100  # file systems allow 255 bytes; endings and numbers are added


class Ids:
    """Hands out ids, each once; letters of either case count as equal, as some file systems take them."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, name: str) -> str:
        """An id like the name: letters, digits, `.`, `_` and `-`, never with a dot in front."""
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)[:_MAX_CHARACTERS].strip("-.") or "item"
        chosen, number = stem, 1
        while chosen.lower() in self._taken:
            number += 1
            chosen = f"{stem}-{number}"
        self._taken.add(chosen.lower())
        return chosen
