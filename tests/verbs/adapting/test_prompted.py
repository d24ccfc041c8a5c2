from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny_glands import write_glands, write_tiny_sam2

from lamella.config import Request
from lamella.engine.log import read_monitors, read_steps
from lamella.errors import ConfigError
from lamella.models.pretraining_record import pretraining_record
from lamella.models.promptable import load_promptable
from lamella.verbs import adapt, evaluate
from lamella.verbs.adapting.prompted_validation import MONITOR
from lamella.verbs.evaluation.results_files import results_of

# Small and quick; images state no spacing, so they are taken as they are.
SMALL = (
    "method.name=prompted", "method.corrections=1", "data.mpp=null", "data.tile_px=48", "data.batch_size=2",
    "data.objects=2", "data.min_area_px=20", "data.augment.elastic=0", "data.validation=0.34",
    "validation.min_area_px=20", "validation.clicks=[1,2]", "validation.tile_px=64", "budget.epochs=1",
    "log.tensorboard=false", "device=cpu", "optim.lr=1e-3",
)  # fmt: skip

Adapt = Callable[..., Path]


@pytest.fixture(scope="module")
def glands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glands(tmp_path_factory.mktemp("glands"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sam2(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def run(glands: Path, model: Path, tmp_path: Path) -> Adapt:
    def start(*overrides: str, out: str = "run", profile: str | None = None) -> Path:
        given = (f"model={model}", *SMALL, *overrides)
        kept = {text.partition("=")[0]: text for text in given}  # the last of a key wins
        assert adapt.run(Request("adapt", (glands,), tmp_path / out, profile, overrides=tuple(kept.values()))) == 0
        return tmp_path / out

    return start


def evaluated(model: Path, glands: Path, out: Path, *overrides: str) -> dict[str, float]:
    """Prompt -> mean per-class Dice."""
    small = ("mpp=null", "protocol.min_area_px=20", "protocol.clicks=[1,2]", "tile_px=64", "overlays=0", "device=cpu")
    prompts = 'protocol.prompts=["box","clicks"]'
    assert evaluate.run(Request("evaluate", (model, glands), out, overrides=(*small, prompts, *overrides))) == 0
    rows = results_of(out)["rows"]
    return {row["probe"]: row["estimate"]["value"] for row in rows if row["measure"].startswith("mean per-class")
            and not row["encoder"].startswith(("the box", "a disk"))}  # fmt: skip


def test_training_moves_the_decoder_and_leaves_the_encoder(run: Adapt, model: Path) -> None:
    before, after = load_promptable(model), load_promptable(run() / "model")
    assert after.encoder_fingerprint == before.encoder_fingerprint
    assert [row.iteration for row in read_steps(run())] == [1, 2]  # 4 images in batches of 2; a rerun adds nothing


def test_the_model_says_what_it_was_trained_on_and_its_card_is_there(run: Adapt) -> None:
    folder = run() / "model"
    record = pretraining_record(folder)
    assert record is not None
    assert record.items == {f"glands/im{number}" for number in range(6)}
    assert "class and prompt given" in (folder / "README.md").read_text()


def test_validation_before_the_first_step_gives_the_zero_shot_numbers_exactly(
    run: Adapt, glands: Path, model: Path, tmp_path: Path
) -> None:
    """Mistake of the source: validation and evaluation were different code, and 0.82 was 0.42."""
    out = run()
    first = read_monitors(out)[0]
    assert first["step"] == 0
    # Those of the validation part alone: evaluate a CSV of them.
    from lamella.data.folds import held_out
    from lamella.imaging.datasets.opening import open_collection

    held = {item.item_id for item in held_out(open_collection(glands), 3, 0, 1)[1]}
    lines = glands.read_text().splitlines()
    some = glands.with_name("held.csv")
    some.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.partition(",")[0] in held)]))
    found = evaluated(model, some, tmp_path / "zero")
    assert len(set(found.values())) > 1  # the prompts are told apart: equal numbers would prove nothing
    assert found == {
        "box": first["val_dice_box"],
        "1 click": first["val_dice_1_click"],
        "2 clicks": first["val_dice_2_clicks"],
    }
    assert first[MONITOR] == pytest.approx(sum(found.values()) / 3)


def test_with_folds_each_image_is_judged_by_the_model_that_has_not_seen_it(
    run: Adapt, glands: Path, model: Path, tmp_path: Path
) -> None:
    out = run("data.folds=3", "data.validation=0", "data.views=1")
    seen = [pretraining_record(out / f"fold{number}" / "model") for number in range(3)]
    everything = {f"glands/im{number}" for number in range(6)}
    held = [everything - record.items for record in seen if record is not None]
    assert sorted(item for part in held for item in part) == sorted(everything)
    found = evaluated(out, glands, tmp_path / "results", f"rival={model}")
    assert set(found) == {"box", "1 click", "2 clicks"}
    names = {row["encoder"] for row in results_of(tmp_path / "results")["rows"]}
    assert {"tiny", "tiny-tuned-fold0 (3 models)", "tiny-tuned-fold0 (3 models) minus tiny"} <= names


def test_lora_is_trained_through_the_path_that_is_evaluated(run: Adapt, model: Path) -> None:
    """Mistake of the source: LoRA was trained through a path that nobody evaluated."""
    pytest.importorskip("peft")
    after = load_promptable(run("method.encoder=lora", "early_stopping.mode=min", "data.validation=0") / "model")
    before = load_promptable(model)
    assert after.encoder_fingerprint != before.encoder_fingerprint  # merged: the plain layers hold what was learned
    images = torch.randint(0, 255, (1, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        assert not torch.equal(after.embed(images).features[0], before.embed(images).features[0])


def test_the_encoder_learns_from_the_epoch_that_the_stages_say(run: Adapt, model: Path) -> None:
    stages = (
        'optim.stages=[{from_epoch: 2, parameters: ["*.vision_encoder.*"], lr: 1e-3}, '
        '{from_epoch: 2, parameters: ["*.no_memory_embedding", "*.conv_s[01].*"]}]'
    )
    before = load_promptable(model)
    one = run("method.encoder=trained", "data.validation=0", stages, out="one")
    assert load_promptable(one / "model").encoder_fingerprint == before.encoder_fingerprint
    two = run("method.encoder=trained", "data.validation=0", stages, "budget.epochs=2", out="two")
    assert load_promptable(two / "model").encoder_fingerprint != before.encoder_fingerprint


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("data.views=1", "method.encoder=trained"), "data.views"),
        (("optim.micro_batches=3",), "optim.micro_batches"),
        (('optim.stages=[{parameters: ["nothing.*"]}]',), "names no parameter"),
        (("optim.warmup_steps=2",), "optim.warmup_steps"),
        (("method.loss.class_weights={stroma: 2}",), "stroma is no class"),
    ],
)
def test_what_cannot_be_trained_is_refused(run: Adapt, overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace(".", r"\.")):
        run(*overrides)


@pytest.mark.parametrize("profile", ["prompted_v3", "prompted_sam2"])
def test_the_shipped_profiles_are_valid(glands: Path, model: Path, tmp_path: Path, profile: str) -> None:
    request = Request(
        "adapt", (glands,), tmp_path, profile, overrides=(f"model={model}", "data.mpp=null"), dry_run=True
    )
    assert adapt.run(request) == 0


def test_the_facts_of_the_run_are_in_the_models_config(run: Adapt) -> None:
    facts = json.loads((run("data.folds=2", "data.fold=1") / "fold1" / "model" / "config.json").read_text())["facts"]
    assert (facts["fold"], facts["folds"], facts["mpp"]) == (1, 2, None)
