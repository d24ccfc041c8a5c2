"""A trained segmenter as a folder: weights, card, and what it and its encoder have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lamella.engine.loop import Outcome
from lamella.imaging.datasets.collection import Collection
from lamella.models.dense_contract import DenseContract
from lamella.models.hub import CONFIG_FILE
from lamella.models.named import PLACE_MARK
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record
from lamella.models.segmenter import Segmenter
from lamella.models.segmenter_hub import save_segmenter
from lamella.verbs.adapting.fold_plan import Part
from lamella.verbs.pretraining.collections import Seen, pretraining_record_of

_UNKNOWN = "What the encoder had been trained on before is not recorded; images of public data sets may be among it."


def joined_record(own: PretrainingRecord, encoder: PretrainingRecord | None) -> PretrainingRecord:
    """What a model was trained on together with what its encoder had seen before."""
    if encoder is None:
        return own
    return PretrainingRecord(*(getattr(own, each.name) | getattr(encoder, each.name) for each in fields(own)))


def record_of_encoder(weights: str | None) -> PretrainingRecord | None:
    """The record in the folder of an own model; None of anything else: nobody wrote down what it saw.

    Raises:
        CheckpointError: The record cannot be understood.
    """
    if weights is None:
        return None
    places = (Path(weights), Path(weights.partition(PLACE_MARK)[2]))
    folder = next((place for place in places if (place / CONFIG_FILE).is_file()), None)
    return None if folder is None else pretraining_record(folder)


def segmenter_card(
    name: str, contract: DenseContract, facts: Mapping[str, object], *, data: str, metrics: str, limits: Sequence[str]
) -> str:
    """The text of a model card, in the sections that `lamella release` knows."""
    spacing = "none stated" if contract.mpp is None else f"{contract.mpp:g} micrometres per pixel"
    rows: dict[str, Any] = {
        "classes": ", ".join(contract.channels),
        "spacing": spacing,
        "tile": f"{contract.tile_px} x {contract.tile_px} px, uint8 RGB; normalisation is inside",
        "encoder's licence": contract.licence,
        **facts,
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    listed = "\n".join(f"- {limit}" for limit in limits)
    return (
        f"---\nlibrary_name: lamella\nlicense: unknown\ntags: [medical-imaging, segmentation]\n---\n# {name}\n\n"
        f"| | |\n|---|---|\n{table}\n\n## Data\n\n{data}\n\n## Metrics\n\n{metrics}\n\n## Limits\n\n{listed}\n\n"
        "## Use\n\n```\nlamella predict this_folder slides/ -o out\n"
        "lamella evaluate this_folder dataset -o results\n```\n"
    )


def export(
    model: Segmenter, folder: Path, config: Any, collections: Sequence[Collection], part: Part, outcome: Outcome
) -> None:
    """Write the model folder of a part.

    Args:
        model: With the weights to keep.
        folder: Where.
        config: The AutomaticConfig of the run.
        collections: What the part's items are of.
        part: What was trained on, and what was held out.
        outcome: How the training ended.

    Raises:
        ImageError: An item cannot be read for its digest.
        StorageError: The disk took no more.
    """
    owners = {item: collection for collection in collections for item in collection.items}
    seen = [(owners[item], item) for item in (*part.train, *part.validate)]
    encoder = record_of_encoder(config.method.backbone.weights)
    record = joined_record(pretraining_record_of(seen), encoder)
    best = outcome.best
    metrics = "Not measured on held-out images. `lamella evaluate` measures them."
    if best is not None and best.best_step >= 0:
        metrics = (
            f"Validation, which chose the weights ({len(part.validate)} images): {best.settings.monitor} "
            f"{best.best:.4f} after {best.best_step:,} steps. `lamella evaluate` measures held-out images."
        )
    card = segmenter_card(
        model.name,
        model.contract,
        {
            "backbone": f"{config.method.backbone.name}, {config.method.backbone.train}, "
            f"weights {config.method.backbone.weights or 'from scratch'}",
            "head": config.method.head.name,
            "tiles seen": f"{outcome.images_seen:,}",
            "seed": config.seed,
        },
        data=_data_text(config, seen, part),
        metrics=metrics,
        limits=[
            "Not for diagnosis. Not tested on stains, scanners, organs or species other than those of the data above.",
            *([] if encoder or not config.method.backbone.weights else [_UNKNOWN]),
        ],
    )
    facts = {
        "fold": part.fold,
        "folds": config.data.folds,
        "intensity": config.data.intensity.model_dump(mode="json"),
        "encoder_record": "joined" if encoder else "none" if config.method.backbone.weights is None else "unknown",
    }
    save_segmenter(model, folder, card, record=record, facts=facts)


def _data_text(config: Any, seen: Seen, part: Part) -> str:
    names = [collection.name for collection, _ in seen]
    counted = ", ".join(f"{names.count(name):,} images of {name}" for name in dict.fromkeys(names))
    mpp = "their own spacing" if config.data.mpp is None else f"{config.data.mpp:g} um per pixel"
    fold = "" if part.fold is None else f" Fold {part.fold} of {config.data.folds} ({len(part.held)} images) held out."
    return (
        f"{counted} with masks, {len(part.validate)} of them for validation. Tiles of {config.data.tile_px} px at "
        f"{mpp}.{fold}{config.data.left_out}"
    )
