"""A fine-tuned promptable model as a folder: weights, card, and what it was fine-tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lamella.engine.loop import Outcome
from lamella.imaging.datasets.collection import Collection
from lamella.models.lora import merged
from lamella.models.promptable import save_promptable
from lamella.models.promptable_model import PromptableModel
from lamella.verbs.adapting.fold_plan import Part
from lamella.verbs.adapting.prompted_settings import PromptedConfig
from lamella.verbs.adapting.segment_export import joined_record, record_of_encoder
from lamella.verbs.pretraining.collections import Seen, pretraining_record_of


def export(
    model: PromptableModel,
    folder: Path,
    config: PromptedConfig,
    collections: Sequence[Collection],
    part: Part,
    outcome: Outcome,
) -> None:
    """Write the model folder of a part; LoRA is merged into the weights, whose answers it then gives.

    Raises:
        ImageError: An item cannot be read for its digest.
        StorageError: The disk took no more.
    """
    owners = {item: collection for collection in collections for item in collection.items}
    seen = [(owners[item], item) for item in (*part.train, *part.validate)]
    record = joined_record(pretraining_record_of(seen), record_of_encoder(config.model))
    base, tuned = model.name, merged(model)
    tuned.name = f"{base}-tuned" + ("" if part.fold is None else f"-fold{part.fold}")
    facts = {
        "fold": part.fold,
        "folds": config.data.folds,
        "mpp": config.data.mpp,
        "from": config.model,
        "intensity": config.data.intensity.model_dump(mode="json"),
    }
    save_promptable(
        tuned, folder, _card(tuned.name, base, config, seen, part, outcome, model.licence), record, facts=facts
    )


def _card(name: str, base: str, config: PromptedConfig, seen: Seen, part: Part, outcome: Outcome, licence: str) -> str:
    names = [collection.name for collection, _ in seen]
    counted = ", ".join(f"{names.count(each):,} images of {each}" for each in dict.fromkeys(names))
    mpp = "their own spacing" if config.data.mpp is None else f"{config.data.mpp:g} um per pixel"
    held = "" if part.fold is None else f" Fold {part.fold} of {config.data.folds} ({len(part.held)} images) held out."
    metrics = "Not measured on held-out images. `lamella evaluate` measures them."
    best = outcome.best
    if best is not None and best.best_step >= 0:
        metrics = (
            f"Validation, which chose the weights ({len(part.validate)} images, class and prompt given): "
            f"{best.settings.monitor} {best.best:.4f} after {best.best_step:,} steps. `lamella evaluate` measures "
            "held-out images."
        )
        if best.best_step == 0:
            metrics += " Training never improved on it: the weights are those it began with."
    rows = {
        "from": base,
        "licence of the weights it began with": licence,
        "encoder": config.method.encoder,
        "loss": ", ".join(f"{key} {getattr(config.method.loss, key):g}" for key in ("focal", "dice", "iou")),
        "tiles seen": f"{outcome.images_seen:,}",
        "seed": config.seed,
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return (
        "---\nlibrary_name: lamella\nlicense: unknown\ntags: [medical-imaging, segmentation, promptable]\n---\n"
        f"# {name}\n\nAnswers boxes and clicks; it names no classes and finds nothing by itself.\n\n"
        f"| | |\n|---|---|\n{table}\n\n## Data\n\n{counted} with masks, {len(part.validate)} of them for validation. "
        f"Tiles of {config.data.tile_px} px at {mpp}.{held}{config.data.left_out}\n\n## Metrics\n\n{metrics}\n\n"
        "## Limits\n\n- Not for diagnosis. Not tested on stains, scanners, organs or species other than those of the "
        "data above.\n- What the model it began with was trained on is for its authors to say.\n\n## Use\n\n```\n"
        "lamella segment slide.svs --box 1000,800,1400,1200 model=this_folder -o out\n"
        "lamella evaluate this_folder dataset -o results\n```\n"
    )
