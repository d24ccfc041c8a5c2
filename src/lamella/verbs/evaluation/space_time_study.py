"""Features of volumes and films by all encoders of a table, and the study that questions on labels are asked of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from lamella.config import Settings
from lamella.engine.world import DeviceName
from lamella.errors import ImageError, LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.datasets.opening import DatasetSettings
from lamella.metrics.ask_few_labels import EfficiencySettings, NShotSettings
from lamella.metrics.image_study import ImageProbeSettings, ImageStudy
from lamella.models.encoders import random_twin
from lamella.models.volume_encoder import VolumeEncoder
from lamella.models.voxel_statistics import VERSION
from lamella.verbs.evaluation.image_features import Embedded, stored_features
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.label_study import study_of
from lamella.verbs.evaluation.rival_encoders import RANDOM
from lamella.verbs.evaluation.scope import Scope, Seen
from lamella.verbs.evaluation.space_time_views import SpaceTimeViews

# Items of one cache file: a volume costs seconds, and a killed run loses at most so many.
_CHUNK = 16


class LabelSettings(Settings):
    """What evaluations of volumes and of films ask in the same way."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    seen: Seen = "refuse"
    """Judged items whose group was in pretraining: refuse, leave_out, or train (fit on them, never judge them)."""
    random_inits: Annotated[int, Field(ge=1)] = 5
    """Networks with random weights that the model is compared with."""
    probes: ImageProbeSettings = ImageProbeSettings()
    """How probes are fitted."""
    nshot: NShotSettings = NShotSettings()
    """Probes with n labels a class."""
    efficiency: EfficiencySettings = EfficiencySettings()
    """Probes on a share of the labels; supervised does not apply here."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of folds, draws, heads, controls and intervals."""
    device: DeviceName = "auto"
    """Where the encoders run."""

    def refuse_supervised(self) -> None:
        """Refuse what only images have.

        Raises:
            LamellaError: Training from scratch is asked for.
        """
        if self.efficiency.supervised:
            raise LamellaError("efficiency.supervised", "whole networks are trained on images only", "Leave it out.")


def label_tasks(collection: Collection) -> list[str]:
    """What the labels of a collection can answer at once."""
    tasks: list[str] = []
    if collection.classes:
        tasks += ["multilabel"] if collection.multi_label else ["linear", "knn", "nshot"]
    if not collection.multi_label and len({item.site for item in collection.items} - {None}) > 1:
        tasks.append("sites")
    return tasks


@dataclass(frozen=True)
class _Pooled:
    """Mean feature of an item's parts by one encoder; without encoder, the statistics of the whole."""

    encoder: VolumeEncoder | None
    views: SpaceTimeViews
    device: torch.device

    def key(self, items: Sequence[Item]) -> str:
        facts = [
            f"statistics {VERSION}" if self.encoder is None else self.encoder.fingerprint,
            self.views.facts(),
            [(item.item_id, [str(source) for source in item.sources], item.row) for item in items],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def arrays(self, items: Sequence[Item]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        rows, failed = [], {}
        for item in items:
            try:
                rows.append(self.views.statistics(item) if self.encoder is None else self._mean(self.encoder, item))
            except ImageError as error:
                failed[item.item_id] = str(error)
        return ({"pooled": np.stack(rows)} if rows else {}), failed

    def _mean(self, encoder: VolumeEncoder, item: Item) -> np.ndarray:
        found = []
        with torch.inference_mode():
            for values, spacing in self.views.parts(item):
                found.append(encoder.pooled(values.to(self.device), spacing).float().cpu())
        return torch.cat(found).mean(0).numpy()


def embed_space_time(
    encoder: VolumeEncoder | None,
    items: Sequence[Item],
    views: SpaceTimeViews,
    folder: Path,
    *,
    label: str,
    device: torch.device,
) -> Embedded:
    """One feature an item; what an earlier run stored in `folder` is read.

    Args:
        encoder: Its mean over the parts of an item; None for the statistics of the whole.
        items: In this order.
        views: What is shown of them.
        folder: One file for each sixteen items.
        label: Shown while it runs.
        device: Where the encoder runs.
    """
    if encoder is not None:
        encoder.to(device)
    return stored_features(_Pooled(encoder, views, device), items, folder, label, _CHUNK)


def space_time_study(
    encoder: VolumeEncoder,
    scope: Scope,
    collection: Collection,
    views: SpaceTimeViews,
    settings: LabelSettings,
    out: Path,
    device: torch.device,
) -> tuple[ImageStudy, Scope, dict[str, str]]:
    """Features of all items by the judged encoder, its random twins and plain statistics.

    Items that cannot be read are left out everywhere, and given with their errors.

    Raises:
        LamellaError: None could be read.
    """
    makers: dict[str, list[Callable[[], VolumeEncoder | None]]] = {
        encoder.name: [lambda: encoder],
        RANDOM: [partial(random_twin, encoder, seed) for seed in range(settings.random_inits)],
        views.statistics_name: [lambda: None],
    }
    found: dict[str, list[Embedded]] = {}
    failed: dict[str, str] = {}
    for name, each in makers.items():
        for replicate, make in enumerate(each):
            folder = out / "features" / slug(f"{name} {replicate}")
            one = embed_space_time(make(), scope.items, views, folder, label=name, device=device)
            found.setdefault(name, []).append(one)
            failed |= one.failed
    scope = scope.keep(failed)
    return study_of(found, scope, collection, settings.probes, settings.seed), scope, failed
