"""Scores of a predictor in a file: an evaluation that was cut short does not score it again."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file
from lamella.metrics.genes.scores import GeneScores, SlideScores

_HEAD = "head"  # the entry that holds all that is no array
_TUPLES = ("genes", "reasons")


def save_scores(path: Path, scores: GeneScores, notes: Mapping[str, str]) -> None:
    """Write scores and the notes of their predictor, whole or not at all.

    Raises:
        StorageError: The disk refused the write.
    """
    arrays: dict[str, np.ndarray] = {}
    plain = [_split(slide, number, arrays) for number, slide in enumerate(scores.slides)]
    head = json.dumps({"slides": plain, "notes": dict(notes)})
    with whole_file(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{_HEAD: np.array(head)}, **arrays)


def load_scores(path: Path) -> tuple[GeneScores, dict[str, str]]:
    """Read them.

    Raises:
        LamellaError: The file is damaged.
    """
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            head = json.loads(str(file[_HEAD]))
            slides = tuple(_joined(plain, number, file) for number, plain in enumerate(head["slides"]))
            return GeneScores(slides), head["notes"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LamellaError(
            path, f"the scores in it cannot be read ({first_line(error)})", "Delete the file; they are made again."
        ) from error


def _split(slide: SlideScores, number: int, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is no array; arrays are added under `<number>/<field>` or `<number>/<field>/<measure>`."""
    plain: dict[str, Any] = {}
    for name in (each.name for each in fields(SlideScores)):
        value = getattr(slide, name)
        if isinstance(value, np.ndarray):
            arrays[f"{number}/{name}"] = value
        elif isinstance(value, Mapping):
            arrays |= {f"{number}/{name}/{key}": np.asarray(each) for key, each in value.items()}
            plain[name] = list(value)
        else:
            plain[name] = value
    return plain


def _joined(plain: Mapping[str, Any], number: int, file: Mapping[str, np.ndarray]) -> SlideScores:
    values: dict[str, Any] = {}
    for name in (each.name for each in fields(SlideScores)):
        if name not in plain:
            values[name] = file[f"{number}/{name}"]
        elif isinstance(plain[name], list) and name not in _TUPLES:
            values[name] = {key: file[f"{number}/{name}/{key}"] for key in plain[name]}
        else:
            values[name] = tuple(plain[name]) if name in _TUPLES else plain[name]
    return SlideScores(**values)
