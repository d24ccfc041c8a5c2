"""Stage 3 on a study of a few small images and a network of a few thousand weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from tests.data.tiny_bags import CLASSES, TILE, bag_of, study_of

from lamella.config import Request, Resolved, Settings
from lamella.data.bags import WeakStudy
from lamella.formats.exemplars import Exemplars, write_exemplars
from lamella.models.prototypes import random_prototypes, save_prototypes
from lamella.models.pyramids import mix_transformer
from lamella.verbs.weak_stages.prototype_settings import PrototypeSettings
from lamella.verbs.weak_stages.stage import FEATURES, PROTOTYPES, Stage
from lamella.verbs.weak_stages.training_settings import TrainingSettings

SLIDES, DIM = 8, 12  # numbers of a feature: one for each slide, four that tell its tiles apart
LABELS = [(1, 0), (0, 1), (1, 1), (0, 0)]
QUICK: dict[str, Any] = {
    "method": {"model": {"backbone": {"name": "segformer"}, "from_scratch": True}},
    "batches": {"batch_size": 2, "tiles_per_bag": 2, "samples_per_epoch": 6, "workers": 0},
    "budget": {"epochs": 2},
    "device": "cpu",
}


class Config(Settings):
    """The part of a study's settings that stage 3 looks at."""

    class_order: tuple[str, ...] = CLASSES
    background: str | None = "background"
    prototypes: PrototypeSettings = PrototypeSettings(k_list=(2, 1, 1), pictures=0)
    train: TrainingSettings = TrainingSettings()
    seed: int = 0


@contextmanager
def tiny_network() -> Iterator[None]:
    """Within it, MiT-b0 has four blocks of 8 to 64 numbers."""
    with patch.dict(mix_transformer._SIZES, b0=((8, 16, 40, 64), (1, 1, 1, 1))):
        yield


def made(folder: Path, slides: int = 8, validating: int = 2) -> WeakStudy:
    """Slides of four tiles, the last `validating` of them in the val part, with a truth of one class each."""
    truth = np.zeros((2 * TILE, 5 * TILE), np.uint8)
    truth[:, : 2 * TILE] = 1
    bags = [
        bag_of(folder, n, LABELS[n % 4], part="train" if n < slides - validating else "val", mask=truth)
        for n in range(slides)
    ]
    return study_of(bags)


def exemplars_of(study: WeakStudy) -> Exemplars:
    """Every tile of a slide with one class, or none. Number n of a feature is large for the tiles of slide n alone."""
    rng, tables, features = np.random.default_rng(0), [], []
    for number, bag in enumerate(study.bags):
        if bag.labels is None or sum(bag.labels) > 1:
            continue
        name = "background" if not any(bag.labels) else CLASSES[bag.labels.index(1)]
        table = study.table(bag)
        tables.append(table.append_column("class", pa.array([name] * table.num_rows)))
        own = np.zeros((table.num_rows, DIM), np.float32)
        own[:, number], own[:, SLIDES:] = 1, 0.1 * rng.normal(size=(table.num_rows, DIM - SLIDES))
        features.append(own)
    record = {"encoder": "random", "fingerprint": "none", "tile_px": str(study.tile_px)}
    return Exemplars(np.concatenate(features), pa.concat_tables(tables), record)


def stage_of(study: WeakStudy, out: Path, **train: Any) -> Stage:
    """The stage with these settings over QUICK ones; prototypes are there."""
    settings = {**QUICK, **train}
    if not (out / PROTOTYPES).exists():
        save_prototypes(out / PROTOTYPES, random_prototypes((*CLASSES, "background"), (2, 1, 1), DIM, 0))
        write_exemplars(out / FEATURES, exemplars_of(study))
    return Stage(Request("weak"), Resolved(Config(train=TrainingSettings(**settings)), {}), study, out)  # type: ignore[arg-type]
