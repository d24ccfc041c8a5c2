"""A tiny weakly labelled study for tests that go through the command line: slides of 256 um, a network of seconds."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from lamella.models.pyramids import mix_transformer
from lamella.slides.phantom_cohort import CohortPlan, write_cohort

PLAN = CohortPlan(slides=(4, 2, 2), size_px=512, tile_px=64, patches=4, seed=3)
CLASSES = list(PLAN.classes)

# Colour statistics as encoder, the smallest Mix Transformer from scratch: nothing is downloaded, a step is a moment's
# work. What it learns is nothing; what is tested is the way.
STUDY: dict[str, Any] = {
    "class_order": CLASSES,
    "data": {
        "labels_are": "slide",
        "mask_values": {"gland": 1, "lymphoid": 3, "background": [0, 2]},
        "mpp": 0.5,
        "tile_px": 64,
    },
    "coordinates": {"num_per_class": 2, "samples_per_wsi": 6},
    "features": {"encoder": "colour-stats", "batch_size": 8},
    "prototypes": {"k": 2, "restarts": 1},
    "train": {
        "method": {"model": {"backbone": {"name": "segformer"}, "from_scratch": True}},
        "batches": {"batch_size": 2, "tiles_per_bag": 2, "workers": 0},
        "budget": {"epochs": 1},
        "device": "cpu",
    },
    "evaluate": {"device": "cpu"},
    "predict": {"device": "cpu"},
}


@contextmanager
def tiny_network() -> Iterator[None]:
    """Within it, MiT-b0 has four blocks of 8 to 64 numbers."""
    with patch.dict(mix_transformer._SIZES, b0=((8, 16, 40, 64), (1, 1, 1, 1))):
        yield


def tiny_cohort(folder: Path) -> Path:
    """The cohort's folder."""
    write_cohort(folder, PLAN)
    return folder


def write_study(path: Path, cohort: Path, **changes: Any) -> Path:
    """A study's YAML on the cohort's manifest; `changes` are of its blocks, None takes an entry out."""
    tree = merged(STUDY, {"data": {"slides": str(cohort / "manifest.csv")}})
    path.write_text(yaml.safe_dump(merged(tree, changes), sort_keys=False), encoding="utf-8")
    return path


def in_files(cohort: Path) -> dict[str, Any]:
    """The data block of the source's own files instead of the manifest."""
    return {
        "slides": str(cohort / "slides"),
        "split_csv": str(cohort / "split.csv"),
        "labels_csv": str(cohort / "labels.csv"),
        "coordinates": str(cohort / "coordinates"),
        "masks": str(cohort / "masks"),
    }


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a tree with the changes in it."""
    found = deepcopy(dict(tree))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(found.get(key), Mapping) and key != "mask_values":
            found[key] = merged(found[key], value)
        elif value is None:
            found.pop(key, None)
        else:
            found[key] = value
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
