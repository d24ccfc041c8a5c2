"""Texts that name classes: JSON {class: [text, ...]}. A model of images and texts compares regions with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, first_line

_SHIPPED = "prompts_"  # before the names of those in lamella/profiles
_REMARK = "_"  # a key that begins so is a remark, no class: JSON has no comments
_LEAST_CLASSES = 2  # one class is always the nearest


@dataclass(frozen=True)
class TextPrompts:
    """Classes and their texts, in the order of the file, which decides between equal scores: the first class wins."""

    name: str
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def in_order(self, classes: Sequence[str]) -> TextPrompts:
        """The same texts with the classes in another order."""
        return TextPrompts(self.name, {name: self.texts[name] for name in classes})


def read_text_prompts(spec: str | Path) -> TextPrompts:
    """Read and check a prompts file.

    Args:
        spec: A JSON file, or the name of one that ships with Lamella.

    Raises:
        LamellaError: There is no such file; it is no JSON of that form; a class stands twice or has no texts; a text
            is empty or stands twice, in one class or in two. All problems are listed.
    """
    path = Path(spec)
    if not path.is_file():
        shipped = shipped_text_prompts()
        if str(spec) not in shipped:
            known = ", ".join(sorted(shipped))
            raise LamellaError(
                spec, "there is no such prompts file", f"Give a JSON file {{class: [text, ...]}}, or one of: {known}."
            )
        path = shipped[str(spec)]
    tree, problems = _read(path)
    texts = {str(name): value for name, value in tree.items() if not str(name).startswith(_REMARK)}
    problems += list(_problems(texts))
    if problems:
        listed = "; ".join(problems)
        raise LamellaError(path, listed, "Correct the file; every class needs texts that are its own.")
    name = path.stem.removeprefix(_SHIPPED)
    return TextPrompts(name, {name: tuple(value) for name, value in texts.items()})


def shipped_text_prompts() -> dict[str, Path]:
    """Name -> file of the prompts that ship with Lamella. They are examples and were tuned on no data."""
    folder = Path(str(resources.files("lamella") / "profiles"))
    return {path.stem.removeprefix(_SHIPPED): path for path in sorted(folder.glob(f"{_SHIPPED}*.json"))}


def same_text(text: str) -> str:
    """What CLIP's tokenizer makes no difference of: case and blanks."""
    return " ".join(text.lower().split())


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The classes of a file, and which of them stand twice (JSON itself would keep the last in silence)."""
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in found)
        twice.extend(f"{key} stands {count} times" for key, count in counts.items() if count > 1)
        return dict(found)

    try:
        tree = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
    except (OSError, ValueError) as error:
        raise LamellaError(path, f"it is no JSON ({first_line(error)})", "Give {class: [text, ...]}.") from error
    if not isinstance(tree, dict):
        raise LamellaError(path, "it holds no classes", "Give {class: [text, ...]}.")
    return tree, twice


def _problems(texts: Mapping[str, Any]) -> Iterator[str]:
    if len(texts) < _LEAST_CLASSES:
        yield f"it has {len(texts)} class(es), and naming needs {_LEAST_CLASSES}"
    owners: dict[str, list[str]] = {}
    for name, value in texts.items():
        if not isinstance(value, list) or not value:
            yield f"{name} has no texts"
            continue
        for text in value:
            if not isinstance(text, str) or not text.strip():
                yield f"{name} has {text!r}, which is no text"
                continue
            owners.setdefault(same_text(text), []).append(name)
    for text, names in owners.items():
        if len(names) > 1:
            yield f"{text!r} stands in {' and in '.join(dict.fromkeys(names))}" + (
                "" if len(set(names)) > 1 else f" {len(names)} times"
            )
