"""`lamella adapt DATA method.name=automatic` on generated images whose classes differ in colour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models.tiny_sam2 import tiny_sam2

import lamella
from lamella import cli
from lamella.config import Request
from lamella.dense.images import predict_image
from lamella.engine.log import read_monitors, read_steps
from lamella.errors import ConfigError, DatasetError, ImageError, LamellaError, OutputConflictError
from lamella.formats.tables import write_csv
from lamella.models.contract import InputContract
from lamella.models.encoders import ViTEncoder, fresh_vit
from lamella.models.hub import save_pretrained
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record
from lamella.models.promptable import save_promptable
from lamella.models.segmenter_hub import is_segmenter, load_segmenter, segmenter_facts
from lamella.models.vit import ViTSettings
from lamella.verbs import adapt

PATIENTS, IMAGES = 5, 2
QUICK = (
    "method.name=automatic",
    "method.backbone.name=encoder",
    "method.head.name=linear",
    "data.dataset.mpp=1",
    "data.dataset.mask_classes.gland=1",
    "data.mpp=2",
    "data.tile_px=16",
    "data.batch_size=4",
    "data.workers=0",
    "data.validation=0",
    "data.augment.elastic=0",
    "data.augment.stain_shift=0.05",
    "optim.lr=0.02",
    "log.tensorboard=false",
    "device=cpu",
)


def write_glands(folder: Path, patients: int = PATIENTS, masks: bool = True) -> Path:
    """Pink images of 48 x 40 px with a purple disc, the gland; the manifest's path."""
    rng, rows = np.random.default_rng(0), []
    y, x = np.mgrid[:40, :48]
    for number in range(patients * IMAGES):
        cy, cx = rng.integers(12, 28), rng.integers(14, 34)
        gland = (y - cy) ** 2 + (x - cx) ** 2 < 100
        colour = np.where(gland[..., None], (120, 60, 160), (230, 170, 210)) + rng.normal(0, 8, (40, 48, 3))
        Image.fromarray(colour.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(gland.astype(np.uint8)).save(folder / f"{number}_mask.png")
        row = {"image_id": f"i{number}", "image_path": f"{number}.png", "patient": f"p{number % patients}"}
        rows.append(row | ({"mask_path": f"{number}_mask.png"} if masks else {}))
    write_csv(folder / "manifest.csv", rows, list(rows[0]))
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def glands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glands(tmp_path_factory.mktemp("glands"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of an untrained ViT that says what it has seen."""
    folder = tmp_path_factory.mktemp("encoder")
    settings = ViTSettings(patch_px=4, dim=24, depth=1, heads=2, wave_min=8, wave_max=128)
    contract = InputContract(2.0, 16, (0.7, 0.5, 0.7), (0.2, 0.2, 0.2), 4, 24)
    save_pretrained(ViTEncoder(fresh_vit(settings, 0), contract, "tiny"), folder, "# card")
    PretrainingRecord.of({"earlier"}, {"earlier/x"}, {"earlier/1"}, {"00112233aabbccdd"}).write(folder)
    return folder


def adapted(data: Path, out: Path | None, encoder: Path, *settings: str, dry_run: bool = False) -> int:
    backbone = f"method.backbone.weights={encoder}"
    given = {setting.partition("=")[0] for setting in settings}
    quick = [setting for setting in (*QUICK, backbone) if setting.partition("=")[0] not in given]
    return adapt.run(Request("adapt", (data,), out, overrides=(*quick, *settings), dry_run=dry_run))


@pytest.fixture(scope="module")
def folds(glands: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of five folds, left undisturbed."""
    out = tmp_path_factory.mktemp("runs") / "folds"
    for fold in (0, 1):
        assert adapted(glands, out, encoder, "data.folds=5", f"data.fold={fold}", "budget.images=160") == 0
    return out


def dice_of(model_folder: Path, data: Path, group: str) -> tuple[float, float]:
    """Pooled Dice of the gland over a patient's images (at 1 um/px, shown at 2): the model's, and that of all gland."""
    model, both, said, true, pixels = load_segmenter(model_folder), 0, 0, 0, 0
    for number in range(PATIENTS * IMAGES):
        if f"p{number % PATIENTS}" != group:
            continue
        image = Image.open(data.parent / f"{number}.png").resize((24, 20), Image.Resampling.BILINEAR)
        mask = np.asarray(Image.open(data.parent / f"{number}_mask.png"))[1::2, 1::2] > 0
        called = predict_image(model, np.asarray(image)).argmax(0) == 1
        both, said, true = both + (called & mask).sum(), said + called.sum(), true + mask.sum()
        pixels += mask.size
    return 2 * both / (said + true), 2 * true / (pixels + true)


def held_groups(out: Path, fold: int) -> set[str]:
    record = pretraining_record(out / f"fold{fold}" / "model")
    assert record is not None
    return {f"p{number}" for number in range(PATIENTS)} - {group.rpartition("/")[2] for group in record.groups}


def test_each_fold_has_a_model_that_beats_a_constant_on_patients_it_never_saw(folds: Path, glands: Path) -> None:
    held = [held_groups(folds, fold) for fold in (0, 1)]
    assert [len(groups) for groups in held] == [1, 1]
    assert held[0] != held[1]
    for fold in (0, 1):
        own, all_gland = dice_of(folds / f"fold{fold}" / "model", glands, held[fold].pop())
        assert own > 0.8 > all_gland


def test_the_model_says_what_it_is_and_what_it_and_its_encoder_saw(folds: Path) -> None:
    folder = folds / "fold0" / "model"
    assert is_segmenter(folder)
    contract = load_segmenter(folder).contract
    assert (contract.channels, contract.mpp, contract.tile_px) == (("background", "gland"), 2.0, 16)
    record = pretraining_record(folder)
    assert record is not None
    assert "00112233aabbccdd" in record.digests
    assert len(record.digests) == 1 + (PATIENTS - 1) * IMAGES
    facts = segmenter_facts(folder)
    assert (facts["fold"], facts["folds"], facts["encoder_record"]) == (0, 5, "joined")
    card = (folder / "README.md").read_text()
    for fact in ("Fold 0 of 5", "2 micrometres per pixel", "## Metrics", "## Limits", "Not for diagnosis"):
        assert fact in card


def test_finished_folds_are_skipped(
    folds: Path, glands: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folds / "fold0").rglob("*")}
    assert adapted(glands, folds, encoder, "data.folds=5", "data.fold=0", "budget.images=160") == 0
    assert {path: path.stat().st_mtime_ns for path in (folds / "fold0").rglob("*")} == before
    assert "fold 0: was trained already" in capsys.readouterr().out


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(
    glands: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("budget.images=32", "data.validation=0.2", "method.backbone.train=whole", "checkpoint.every_images=8")
    assert adapted(glands, tmp_path / "whole", encoder, *settings) == 0
    from lamella.verbs.adapting import automatic

    real = automatic.Segment.after_step

    def stopped(self: automatic.Segment, progress: float) -> None:
        real(self, progress)
        if progress == 0.5:
            raise KeyboardInterrupt

    monkeypatch.setattr(automatic.Segment, "after_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        adapted(glands, tmp_path / "cut", encoder, *settings)
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "model").exists()
    assert adapted(glands, tmp_path / "cut", encoder, *settings) == 0

    def numbers(out: Path) -> list[tuple[int, float]]:
        return [(row.iteration, row.loss) for row in read_steps(out)]

    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    assert len(numbers(tmp_path / "cut")) == 8
    models = [load_segmenter(tmp_path / name / "model") for name in ("whole", "cut")]
    assert models[0].fingerprint == models[1].fingerprint
    assert [set(entry) >= {"val_perclass_dice", "val_dice_gland"} for entry in read_monitors(tmp_path / "cut")]


@pytest.mark.slow
def test_two_processes_train_as_one(folds: Path, glands: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = [*QUICK, f"method.backbone.weights={encoder}", "data.folds=5", "data.fold=0", "budget.images=160"]
    command = [*torchrun, "-m", "lamella.cli", "adapt", str(glands), "-o", str(out), *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: lamella evaluate") == 1  # only rank 0 speaks
    rows = [[row.loss for row in read_steps(run / "fold0")] for run in (out, folds)]
    assert rows[0] == pytest.approx(rows[1], abs=1e-4)


def test_what_a_frozen_backbone_made_is_kept_until_the_models_are_there(
    glands: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lamella.verbs.adapting import automatic

    memories = []
    real = automatic.LevelMemory

    def remembered(*arguments: object) -> automatic.LevelMemory:
        memories.append(real(*arguments))
        return memories[-1]

    monkeypatch.setattr(automatic, "LevelMemory", remembered)
    settings = ("data.folds=2", "data.views=2", "budget.images=80")
    assert adapted(glands, tmp_path / "run", encoder, *settings, "data.fold=0") == 0
    assert len(list((tmp_path / "run" / "features").glob("*.safetensors"))) == memories[0].encoded
    assert adapted(glands, tmp_path / "run", encoder, *settings) == 0
    images = PATIENTS * IMAGES
    assert sum(memory.encoded for memory in memories) == 2 * images  # each view of each image once, in both folds
    assert not list((tmp_path / "run" / "features").glob("*"))


def test_low_rank_updates_are_merged_into_the_exported_model(glands: Path, encoder: Path, tmp_path: Path) -> None:
    # Mistake of the source: LoRA trained through a path that was never evaluated.
    settings = ("method.backbone.train=lora", "method.backbone.rank=2", "budget.images=16", "data.validation=0.2")
    assert adapted(glands, tmp_path, encoder, *settings) == 0
    weights = load_segmenter(tmp_path / "model").state_dict()
    before = lamella.from_pretrained(encoder).vit.state_dict()
    moved = {name for name, each in before.items() if not torch.equal(weights[f"backbone.encoder.vit.{name}"], each)}
    assert moved
    assert all("qkv" in name or "attention_out" in name for name in moved)
    assert not any("lora" in name for name in weights)


def test_stages_unfreeze_the_backbone(glands: Path, encoder: Path, tmp_path: Path) -> None:
    stages = 'optim.stages=[{from_epoch: 2, parameters: ["backbone.*"], factor: 0.1}]'
    settings = ("method.backbone.train=whole", "data.samples_per_epoch=8", stages, "budget.epochs=1")
    assert adapted(glands, tmp_path / "one", encoder, *settings) == 0
    assert adapted(glands, tmp_path / "two", encoder, *settings, "budget.epochs=2") == 0
    before = lamella.from_pretrained(encoder).vit.blocks[0].qkv.weight
    one, two = (load_segmenter(tmp_path / name / "model").backbone.encoder.vit.blocks[0].qkv for name in ("one", "two"))
    assert torch.equal(one.weight, before)
    assert not torch.equal(two.weight, before)


def test_mask2former_learns_by_its_own_loss_and_is_loaded_again(glands: Path, tmp_path: Path) -> None:
    sizes = "dim: 32, queries: 4, pixel_layers: 1, query_layers: 1, heads: 2, feedforward: 32, points: 32"
    small = f"{{name: mask2former, {sizes}}}"
    # The levels of a whole network: four, each half as fine as the one before.
    sam2 = tmp_path / "sam2"
    save_promptable(tiny_sam2(), sam2, "# card")
    settings = ("method.backbone.name=sam2", f"method.head={small}", "data.tile_px=32", "data.views=2")
    assert adapted(glands, tmp_path / "run", sam2, *settings, "budget.images=8", "optim.lr=0.001") == 0
    maps = load_segmenter(tmp_path / "run" / "model").maps(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))
    assert torch.allclose(maps.sum(1), torch.ones(1, 32, 64))
    assert "loss_mask" in (tmp_path / "run" / "log.jsonl").read_text()
    with pytest.raises(ConfigError, match=r"method\.head\.loss=sets is a loss of its own"):
        adapted(glands, tmp_path / "x", sam2, *settings, "method.loss.class_weights=inverse")


def test_the_best_weights_are_exported_and_a_run_that_stands_still_ends(
    glands: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lamella.verbs.adapting import segment_validation

    worse = iter((0.5, 0.9, 0.8, 0.7, 0.6, 0.5))
    monkeypatch.setattr(
        segment_validation.Validation, "__call__", lambda self, epochs: {"val_perclass_dice": next(worse)}
    )
    settings = ("data.validation=0.2", "data.samples_per_epoch=8", "early_stopping.patience=2", "budget.epochs=20")
    assert adapted(glands, tmp_path / "run", encoder, *settings) == 0
    assert len(read_steps(tmp_path / "run")) == 6  # three epochs of two steps: the best, and two that were not
    assert "val_perclass_dice 0.9000 after step 2; these weights are kept" in capsys.readouterr().out
    monkeypatch.setattr(segment_validation.Validation, "__call__", lambda self, epochs: {"val_perclass_dice": epochs})
    # The same rates as in the first epoch of twenty, which a constant rate makes simple.
    constant = ("optim.lr_start=0.02", "optim.lr_end=0.02", "optim.warmup=0")
    for name, epochs in (("best", 1), ("last", 3)):
        assert adapted(glands, tmp_path / name, encoder, *settings, *constant, f"budget.epochs={epochs}") == 0
    worse = iter((0.5, 0.9, 0.8, 0.7))
    monkeypatch.setattr(
        segment_validation.Validation, "__call__", lambda self, epochs: {"val_perclass_dice": next(worse)}
    )
    assert adapted(glands, tmp_path / "kept", encoder, *settings, *constant, "budget.epochs=3") == 0
    prints = {name: load_segmenter(tmp_path / name / "model").fingerprint for name in ("best", "last", "kept")}
    assert prints["kept"] == prints["best"] != prints["last"]


def test_other_settings_in_the_same_folder_are_refused(folds: Path, glands: Path, encoder: Path) -> None:
    with pytest.raises(OutputConflictError, match=r"optim\.lr"):
        adapted(glands, folds, encoder, "data.folds=5", "data.fold=0", "budget.images=160", "optim.lr=0.01")


def test_a_dry_run_writes_nothing(
    glands: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapted(glands, tmp_path / "run", encoder, "data.folds=5", dry_run=True) == 0
    assert "fold 4: 8 images of 4 groups to train on" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (("data.dataset.mpp=null",), ImageError, "it states no spacing.*data.dataset.mpp"),
        (("data.folds=6",), LamellaError, "cannot make 6 folds"),
        (("data.folds=5", "data.fold=5"), ConfigError, "no fold 5 of 5"),
        (("data.fold=1",), ConfigError, "there are no folds"),
        (("data.tile_px=18",), ConfigError, "18 is no multiple"),
        (("method.loss.class_weights=v3",), ConfigError, "v3 has 5 weights, and there are 2 classes"),
        (("data.dataset.mask=none",), DatasetError, "no item has a mask"),
        (("optim.micro_batches=3",), ConfigError, "does not divide"),
        (("data.tile_px_stages={2: 32}",), ConfigError, "data.views=0"),
        (("method.head.name=unet",), ConfigError, "unet"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_remedy(
    settings: tuple[str, ...], error: type[LamellaError], message: str, glands: Path, encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        adapted(glands, tmp_path / "run", encoder, *settings, "budget.images=4")
    assert not (tmp_path / "run").exists()  # or the command with its mistake mended would meet a folder of another run


def test_one_patient_alone_cannot_be_held_out(tmp_path: Path, encoder: Path) -> None:
    data = write_glands(tmp_path, patients=1)
    with pytest.raises(LamellaError, match=r"1 patient\(s\) cannot make 2 folds.*at least two patients"):
        adapted(data, tmp_path / "run", encoder, "data.folds=2")
    with pytest.raises(DatasetError, match=r"cannot be parted into training and validation"):
        adapted(data, tmp_path / "run", encoder, "data.validation=0.2")


def test_the_command_line_knows_the_verb_and_its_settings(glands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "adapt"]) == 0
    printed = capsys.readouterr().out
    assert "# automatic" in printed
    assert "method.loss.class_weights" in printed
    assert cli.main(["adapt", str(glands), "-o", "nowhere"]) == 2
    assert "method.name: say one of automatic, prompted" in capsys.readouterr().err


def test_the_shipped_profiles_are_settings_of_the_verb() -> None:
    from lamella.verbs.adapting.automatic import AutomaticConfig

    for profile in ("segment_v3", "segment_sam2", "segment_small", "segment_frozen"):
        config = Request("adapt", profile=profile).resolve(AutomaticConfig).config
        assert config.method.name == "automatic"
    v3 = Request("adapt", profile="segment_v3").resolve(AutomaticConfig).config
    assert json.loads(v3.model_dump_json())["data"]["tile_px_stages"] == {"12": 1024}


def test_maps_are_probabilities(folds: Path) -> None:
    model = load_segmenter(folds / "fold0" / "model")
    maps = model.maps(torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8))
    assert maps.shape == (2, 2, 16, 24)
    assert torch.allclose(maps.sum(1), torch.ones(2, 16, 24))
