"""Stage 3: models of folds and seeds, best and latest weights, resume, refusal, fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.verbs.weak_stages.made_study import save_encoder
from tests.verbs.weak_stages.trained_study import LABELS, QUICK, SLIDES, made, stage_of, tiny_network

from lamella.data.bags import WeakStudy
from lamella.errors import CheckpointError, ConfigError, LamellaError, OutputConflictError
from lamella.models.hub import load_encoder
from lamella.models.pretraining_record import pretraining_record
from lamella.models.prototypes import random_prototypes, save_prototypes
from lamella.models.weak_hub import load_weak, weak_facts
from lamella.verbs.weak_stages.stage import PROTOTYPES
from lamella.verbs.weak_stages.training import run_training
from lamella.verbs.weak_stages.training_export import REPORT


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    with tiny_network():
        yield


@pytest.fixture
def study(tmp_path: Path) -> WeakStudy:
    return made(tmp_path)


def monitored(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "monitors.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_model_is_trained_and_says_what_chose_it(study: WeakStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_training(stage_of(study, out)) == 0
    folder = out / "training"
    best, latest, model = (load_weak(folder / name) for name in ("best", "latest", "model"))
    assert model.fingerprint == best.fingerprint
    assert model.contract.channels == ("red", "blue", "background")
    assert (model.contract.mpp, model.contract.tile_px) == (0.5, 32)
    facts = weak_facts(folder / "model")
    assert facts["labels"] == "slide"
    assert facts["supervision"] == "labels of slides, multiple-instance pooling (topk)"
    assert (facts["criterion"], facts["monitor"]) == ("loss", "val_loss")
    rows = monitored(folder)
    lowest = min(rows, key=lambda row: row["val_loss"])
    assert (facts["best_step"], facts["monitor_value"]) == (lowest["step"], lowest["val_loss"])
    report = (folder / REPORT).read_text(encoding="utf-8")
    assert "image-level loss" in report
    assert "no pixel truth" in report
    assert latest.fingerprint == best.fingerprint or lowest["step"] < rows[-1]["step"]


def test_the_best_weights_are_exported_not_the_last(study: WeakStudy, tmp_path: Path) -> None:
    """A mistake of the source."""
    out = tmp_path / "out"
    wild = {"lr_start": 0.5, "lr": 0.5, "lr_end": 0.5, "warmup": 0, "clip_norm": None}  # so that it gets worse
    run_training(stage_of(study, out, optim=wild))
    folder = out / "training"
    rows = monitored(folder)
    assert rows[-1]["val_loss"] > min(row["val_loss"] for row in rows)
    assert load_weak(folder / "model").fingerprint == load_weak(folder / "best").fingerprint
    assert load_weak(folder / "best").fingerprint != load_weak(folder / "latest").fingerprint
    assert weak_facts(out / "training" / "model")["weights"] == "best"


def test_masks_choose_where_they_are_asked_to_and_the_report_says_so(study: WeakStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_training(stage_of(study, out, validation={"criterion": "masks"}))
    facts = weak_facts(out / "training" / "model")
    assert (facts["criterion"], facts["monitor"]) == ("masks", "val_miou")
    rows = monitored(out / "training")
    assert facts["monitor_value"] == max(row["val_miou"] for row in rows)
    assert "PIXEL MASKS" in (out / "training" / REPORT).read_text(encoding="utf-8")


def test_masks_cannot_choose_where_there_are_none(study: WeakStudy, tmp_path: Path) -> None:
    bare = replace(study, bags=tuple(replace(bag, mask_path=None) for bag in study.bags))
    with pytest.raises(ConfigError, match="no validation slide has pixel truth"):
        run_training(stage_of(bare, tmp_path / "out", validation={"criterion": "masks"}))


def test_without_validation_the_last_weights_are_kept_and_called_so(study: WeakStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_training(stage_of(study, out, validation={"share": 0}))
    assert not (out / "training" / "best").exists()
    assert load_weak(out / "training" / "model").fingerprint == load_weak(out / "training" / "latest").fingerprint
    assert "The last weights are kept" in (out / "training" / REPORT).read_text(encoding="utf-8")
    facts = weak_facts(out / "training" / "model")
    assert (facts["criterion"], facts["weights"]) == ("none: the last weights", "latest")


def test_the_source_s_way_is_a_control_by_name(study: WeakStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    method = {**QUICK["method"], "pooling": {"kind": "none"}}
    batches = {**QUICK["batches"], "tiles_per_bag": 1}
    run_training(stage_of(study, out, method=method, batches=batches))
    said = weak_facts(out / "training" / "model")["supervision"]
    assert said == "control: the slide's label on one random tile"


def test_a_rerun_leaves_a_model_alone(study: WeakStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run_training(stage_of(study, out))
    config = out / "training" / "model" / "config.json"
    before = config.stat().st_mtime_ns
    run_training(stage_of(study, out))
    assert "was trained already" in capsys.readouterr().out
    assert config.stat().st_mtime_ns == before


def test_an_interrupted_run_goes_on_to_the_same_weights(study: WeakStudy, tmp_path: Path, monkeypatch: Any) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    more = {"budget": {"epochs": 3}, "checkpoint": {"every_images": 4}}
    run_training(stage_of(study, whole, **more))
    from lamella.methods import weak

    forward, calls = weak.WeakMethod.forward, []

    def failing(self: Any, batch: Any) -> Any:
        calls.append(0)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(weak.WeakMethod, "forward", failing)
        with pytest.raises(KeyboardInterrupt):
            run_training(stage_of(study, parted, **more))
    assert not (parted / "training" / "model").exists()
    run_training(stage_of(study, parted, **more))
    assert load_weak(parted / "training" / "model").fingerprint == load_weak(whole / "training" / "model").fingerprint


def test_what_is_wrong_with_the_data_claims_no_folder(study: WeakStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(LamellaError, match="cannot make 20 folds"):
        run_training(stage_of(study, out, folds=20))
    assert not (out / "training").exists()


@pytest.mark.parametrize("change", ["settings", "labels", "pixels", "prototypes"])
def test_changed_inputs_are_refused(study: WeakStudy, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    quick: dict[str, Any] = {"budget": {"images": 4}}
    run_training(stage_of(study, out, **quick))
    if change == "settings":
        quick["optim"] = {"lr": 1e-5}
    elif change == "labels":
        study = replace(study, bags=(replace(study.bags[0], labels=(0, 1)), *study.bags[1:]))
    elif change == "pixels":
        with study.bags[0].wsi_path.open("ab") as file:
            file.write(b"more")
    else:
        prototypes = random_prototypes(("red", "blue", "background"), (1, 1, 1), 12, 1)
        save_prototypes(out / PROTOTYPES, prototypes)
    with pytest.raises(OutputConflictError, match="other settings"):
        run_training(stage_of(study, out, **quick))


def test_folds_and_seeds_make_models_that_have_not_seen_their_fold(study: WeakStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick: dict[str, Any] = {"budget": {"images": 4}, "folds": 2, "seeds": (0, 1), "validation": {"share": 0}}
    run_training(stage_of(study, out, **quick, fold=1))
    assert sorted(path.name for path in (out / "training").glob("fold*")) == ["fold1_seed0", "fold1_seed1"]
    run_training(stage_of(study, out, **quick))  # the other fold, into the same folder
    folders = sorted((out / "training").glob("fold*"))
    assert [path.name for path in folders] == ["fold0_seed0", "fold0_seed1", "fold1_seed0", "fold1_seed1"]
    prints = {load_weak(folder / "model").fingerprint for folder in folders}
    assert len(prints) == 4
    held = []
    for folder in folders:
        groups = weak_facts(folder / "model")["groups"]
        record = pretraining_record(folder / "model")
        assert record is not None
        assert {f"weak study/{group}" for group in groups["train"]} == record.groups
        assert not set(groups["held_out"]) & set(groups["train"])
        held += groups["held_out"]
    assert sorted(held) == sorted(2 * [bag.group for bag in study.bags])


def test_the_prototypes_of_a_fold_are_not_of_the_slides_that_it_leaves_out(study: WeakStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_training(stage_of(study, out, budget={"images": 4}, folds=2, validation={"share": 0}))
    for fold in range(2):
        folder = out / "training" / f"fold{fold}" / "model"
        strength = load_weak(folder).scores.prototypes_KD.abs().amax(0).numpy()
        held = {
            number for number, bag in enumerate(study.bags) if bag.group in weak_facts(folder)["groups"]["held_out"]
        }
        shown = {number for number in range(SLIDES) if strength[number] > 0}
        assert shown == {number for number in range(SLIDES) if number not in held and sum(LABELS[number % 4]) < 2}


def test_fine_tuning_goes_on_from_a_model_and_its_prototypes(study: WeakStudy, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run_training(stage_of(study, first))
    start = first / "training" / "model"
    tiny_rate = {"lr_start": 1e-9, "lr": 1e-9, "lr_end": 1e-9, "warmup": 0}
    run_training(stage_of(study, second, init=start, optim=tiny_rate, budget={"images": 4}))
    before, after = load_weak(start), load_weak(second / "training" / "latest")
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert torch.equal(before.scores.prototypes_KD, after.scores.prototypes_KD)  # type: ignore[union-attr]
    assert weak_facts(second / "training" / "model")["init"] == str(start)


def test_a_model_of_other_classes_or_another_network_is_not_fine_tuned(study: WeakStudy, tmp_path: Path) -> None:
    first = tmp_path / "first"
    run_training(stage_of(study, first, budget={"images": 4}))
    start = first / "training" / "model"
    other = replace(study, classes=("blue", "red"))
    with pytest.raises(CheckpointError, match="Fine-tune with the same class_order"):
        run_training(stage_of(other, tmp_path / "second", init=start))
    method = {**QUICK["method"], "pooling": {"kind": "mean"}}
    with pytest.raises(CheckpointError, match="other settings of the network: pooling"):
        run_training(stage_of(study, tmp_path / "third", init=start, method=method))


def test_a_plain_classifier_needs_no_prototypes(study: WeakStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    model = {**QUICK["method"]["model"], "scores": "linear"}
    stage = stage_of(study, out, method={"model": model}, budget={"images": 4})
    for path in (out / PROTOTYPES).iterdir():
        path.unlink()
    assert run_training(stage) == 0
    assert load_weak(out / "training" / "model").contract.channels == ("red", "blue", "background")


def test_random_weights_are_never_silent(study: WeakStudy, tmp_path: Path) -> None:
    """A mistake of the source: a printed warning, and training went on."""
    method = {"model": {"backbone": {"name": "segformer"}}}
    with pytest.raises(CheckpointError, match="random ones"):
        run_training(stage_of(study, tmp_path / "out", method=method))


def test_the_contrast_by_the_encoder_needs_the_encoder_of_the_prototypes(study: WeakStudy, tmp_path: Path) -> None:
    method = {**QUICK["method"], "loss": {"contrast": {"features": "encoder"}}}
    with pytest.raises(LamellaError, match="random"):
        run_training(stage_of(study, tmp_path / "out", method=method))


def test_the_contrast_by_the_very_encoder_of_the_prototypes(study: WeakStudy, tmp_path: Path) -> None:
    out, folder = tmp_path / "out", save_encoder(tmp_path / "encoder", 0, dim=12)
    stage = stage_of(
        study,
        out,
        method={**QUICK["method"], "loss": {"contrast": {"features": "encoder", "bound": "sigmoid"}}},
        budget={"images": 8},
        validation={"share": 0},
    )
    told = random_prototypes(("red", "blue", "background"), (2, 1, 1), 12, 0)
    save_prototypes(out / PROTOTYPES, replace(told, encoder=str(folder), fingerprint="0" * 16))
    with pytest.raises(CheckpointError, match="the prototypes are of 0000"):
        run_training(stage)
    encoder = load_encoder(folder)
    save_prototypes(out / PROTOTYPES, replace(told, encoder=str(folder), fingerprint=encoder.fingerprint))
    assert run_training(stage) == 0
    rows = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any(row["loss_foreground"] > 0 for row in rows)


# ---- frozen backbones -----------------------------------------------------------------------------------------------

FROZEN: dict[str, Any] = {
    "method": {"model": {"backbone": {"name": "segformer", "train": "frozen"}, "from_scratch": True}},
    "budget": {"epochs": 4},
}


def test_a_frozen_backbone_encodes_each_view_once(
    study: WeakStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lamella.models.pyramids.memory import LevelMemory

    encoded, made_of = [], LevelMemory._made

    def counted(self: LevelMemory, image: torch.Tensor) -> list[torch.Tensor]:
        encoded.append(image)
        return made_of(self, image)

    monkeypatch.setattr(LevelMemory, "_made", counted)
    out = tmp_path / "out"
    batches = {**QUICK["batches"], "views": 1, "batch_size": 6}
    run_training(stage_of(study, out, **FROZEN, batches=batches, folds=2))
    assert len({image.numpy().tobytes() for image in encoded}) == len(encoded)
    assert 8 < len(encoded) <= 64  # eight slides of four tiles, as they are and in one other way
    assert not (out / "training" / "features").exists()


@pytest.mark.slow  # two trainings
def test_what_is_kept_on_disk_gives_nearly_the_same_loss(study: WeakStudy, tmp_path: Path) -> None:
    losses = []
    for name, gigabytes in (("kept", 1.0), ("anew", 0.0)):
        batches = {**QUICK["batches"], "views": 2, "features_gb": gigabytes}
        run_training(stage_of(study, tmp_path / name, **FROZEN, batches=batches))
        losses.append([row["val_loss"] for row in monitored(tmp_path / name / "training")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_features_beyond_half_precision_are_clipped(tmp_path: Path) -> None:
    """A mistake of the source: fp16 without clipping."""
    from tests.models.tiny_weak import tiles, tiny_weak

    from lamella.models.pyramids.memory import LevelMemory

    backbone = tiny_weak().backbone
    large = LevelMemory(backbone, tmp_path, 1.0)
    levels = backbone(tiles(1))
    backbone.forward = lambda images: [level * 1e9 for level in levels]  # type: ignore[method-assign]
    found = large.levels(tiles(1))
    assert all(level.isfinite().all() for level in found)
    assert float(found[-1].abs().max()) == torch.finfo(torch.float16).max
