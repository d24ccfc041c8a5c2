"""Names of slides and authors as parts of paths: none of them can leave the folder or hide in it."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from lamella.errors import LamellaError

# Letters and digits of any script, and inside a name blanks, points, hyphens: no slash, and no point at either end.
_AUTHOR = re.compile(r"\w(?:[\w .-]{0,46}\w)?")
_FOLDER = re.compile(r"\w(?:[\w .-]{0,78}\w)?")
_LONGEST_BYTES = 200  # of a file's name; file systems take 255, and the part that is being written has a longer one
_KEPT = 60  # characters of a slide's name that cannot be a folder's


def author_name(name: str) -> str:
    """An author's name as it stands in a file's name.

    Raises:
        LamellaError: It is empty, too long, or holds other signs than letters, digits, blanks, `.`, `_`, `-`.
    """
    name = unicodedata.normalize("NFC", name)
    if not _AUTHOR.fullmatch(name) or len(name.encode()) > _LONGEST_BYTES // 2:
        raise LamellaError(
            f"author {name[:80]!r}",
            "this cannot be the name of a file",
            "Use up to 48 letters, digits, blanks, points, hyphens; the first and the last a letter or a digit.",
        )
    return name


def folder_name(slide: str) -> str:
    """The subfolder of a slide: its name, or what is left of it with a mark of the whole if that is no safe name."""
    plain = _FOLDER.fullmatch(slide) and unicodedata.is_normalized("NFC", slide) and not slide.endswith(".json")
    if plain and len(slide.encode()) <= _LONGEST_BYTES:
        return slide
    kept = re.sub(r"[^A-Za-z0-9]+", "-", slide)[:_KEPT].strip("-") or "slide"
    return f"{kept}-{hashlib.sha256(slide.encode(errors='surrogatepass')).hexdigest()[:8]}"
