from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import TINY_NETWORK

import lamella
from lamella import cli
from lamella.config import Request
from lamella.data.cross import CrossSamples
from lamella.engine.log import read_monitors, read_steps
from lamella.errors import CheckpointError, ConfigError, LamellaError, OutputConflictError
from lamella.formats.tables import write_csv
from lamella.slides.anchors.catalogue import Catalogue
from lamella.slides.anchors.cataloguing import build_catalogue
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.index import SlideIndex
from lamella.slides.indexing import build_index
from lamella.slides.manifest import read_manifest
from lamella.slides.tissue import TissueSettings
from lamella.verbs import pretrain
from lamella.verbs.pretraining.slides import CrossConfig

SAMPLING = CrossSampling(
    profile_id="test", context_fov_um=64, target_fov_um=16, targets_per_context=2, target_margin_um=0
)
SMALL = (
    *TINY_NETWORK,
    "budget.images=32",
    "log.monitor_images=6",
    "log.monitor_every_images=12",
    "device=cpu",
)


@pytest.fixture(scope="module")
def anchors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of two slides of coloured noise, all tissue; the second has the split `test`."""
    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(0)
    rows = []
    for name, split in (("a", "train"), ("b", "test")):
        coarse = Image.fromarray(rng.integers(60, 220, (24, 32, 3), dtype=np.uint8))
        coarse.resize((512, 384), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
        Image.fromarray(np.full((48, 64), 255, np.uint8)).save(folder / f"{name}_mask.png")
        rows.append(
            {"slide_id": name, "wsi_path": f"{name}.png", "mask_path": f"{name}_mask.png", "split": split, "mpp": 0.5}
        )
    write_csv(folder / "slides.csv", rows, list(rows[0]))
    for made in ("index", "anchors"):
        (folder / made).mkdir()
    fates = build_index(read_manifest(folder / "slides.csv"), folder / "index", TissueSettings(), {})
    assert [fate.error for fate in fates] == ["", ""]
    build_catalogue(SlideIndex.load(folder / "index"), SAMPLING, folder / "anchors")
    return folder / "anchors"


@pytest.fixture(scope="module")
def finished(anchors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps, left undisturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert pretrained(anchors, out) == 0
    return out


def pretrained(anchors: Path, out: Path | None, *overrides: str, dry_run: bool = False) -> int:
    request = Request("pretrain", (anchors,), out, overrides=(*SMALL, *overrides), dry_run=dry_run)
    return pretrain.run(request)


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def losses(out: Path) -> list[tuple[int, float]]:
    return [(row.iteration, row.loss) for row in read_steps(out)]


def test_a_run_leaves_an_encoder_its_card_and_its_logs(finished: Path) -> None:
    encoder = lamella.from_pretrained(finished / "model")
    assert encoder.pooled(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 16)
    assert (encoder.contract.mpp, encoder.contract.size_px) == (0.5, 32)
    card = (finished / "model" / "README.md").read_text()
    anchors_left = re.search(r"(\d+) anchors on 1 slides \(split `test` and its patients left out\)", card)
    assert anchors_left is not None
    for fact in ("images seen | 32", "effective rank | RankMe", "prediction loss", "profile test", "Not for diagnosis"):
        assert fact in card
    assert [step for step, _ in losses(finished)] == list(range(1, 9))
    monitors = read_monitors(finished)
    assert [entry["images_seen"] for entry in monitors] == [0, 12, 24, 32]
    assert all(entry["std_min"] > 0 and 1 <= entry["rankme"] <= 6 for entry in monitors)
    assert (finished / "config.yaml").exists()
    assert json.loads((finished / "origins.json").read_text())["data.batch_size"] == "command line"


def test_test_slides_are_never_drawn(anchors: Path) -> None:
    config = CrossConfig()
    samples = CrossSamples(Catalogue.load(anchors), config.data, config.seed)
    assert {samples.place(position).slide_id for position in range(2 * len(samples))} == {"a"}


def test_an_identical_rerun_changes_nothing(anchors: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(finished)
    assert pretrained(anchors, finished) == 0
    assert stamps(finished) == before
    printed = capsys.readouterr().out
    assert "was trained already: 32 images" in printed
    assert f"next: lamella embed {finished / 'model'} {anchors.parent / 'index'} -o features" in printed


def test_sigterm_saves_and_the_same_command_ends_bit_equal(
    anchors: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "cut", pretrain.measure

    def measure_in_a_machine_that_shuts_down(*arguments: Any) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(pretrain, "measure", measure_in_a_machine_that_shuts_down)
    for step in (1, 4):  # at the start, and at the monitors after 12 images; each is seen one step later
        assert pretrained(anchors, out) == 0
        printed = capsys.readouterr().out
        assert f"SIGTERM: saved after step {step}" in printed
        assert "The same command goes on" in printed
        assert not (out / "model").exists()
    monkeypatch.undo()
    assert pretrained(anchors, out) == 0
    assert "resumes     after step 4" in capsys.readouterr().out
    assert losses(out) == losses(finished)
    assert read_monitors(out) == read_monitors(finished)
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (out, finished)]
    assert weights[0] == weights[1]


def test_a_model_lost_between_training_and_export_is_written_by_a_rerun(
    anchors: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "model")
    assert pretrained(anchors, out) == 0
    for name in ("model.safetensors", "config.json"):
        assert (out / "model" / name).read_bytes() == (finished / "model" / name).read_bytes()


def test_a_dry_run_counts_and_writes_nothing(anchors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrained(anchors, tmp_path / "run", dry_run=True) == 0
    printed = capsys.readouterr().out
    assert "batch_size: 4" in printed
    assert "slides      1 of 2" in printed
    assert "steps       8 of 4 images: 32 images" in printed
    assert re.search(r"parameters  [\d,]+ in the encoder, [\d,]+ trained", printed)
    assert list(tmp_path.iterdir()) == []


def test_other_settings_or_another_catalogue_are_refused(anchors: Path, finished: Path) -> None:
    before = stamps(finished)
    with pytest.raises(OutputConflictError, match=r"optim\.lr: 0\.0002 there, 0\.001 now"):
        pretrained(anchors, finished, "optim.lr=1e-3")
    assert pretrained(anchors, finished, "log.monitor_every_images=8") == 0  # this one changes no result
    assert stamps(finished).keys() == before.keys()


def test_a_checkpoint_of_another_architecture_is_refused(anchors: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "deeper"
    assert pretrained(anchors, out, "method.encoder.depth=2", "budget.images=4") == 0
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    for path in (finished / "checkpoints").iterdir():
        shutil.copy(path, out / "checkpoints")
    with pytest.raises(CheckpointError, match=r"context_encoder\.blocks\.1\.\S+: absent in the checkpoint"):
        pretrained(anchors, out, "method.encoder.depth=2", "budget.images=4")


def test_micro_batches_that_do_not_divide_the_batch_are_refused(anchors: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.micro_batches: 3 equal parts cannot be made of the 4 images"):
        pretrained(anchors, tmp_path / "run", "optim.micro_batches=3")
    assert not (tmp_path / "run").exists()


def test_micro_batches_take_the_same_steps(anchors: Path, finished: Path, tmp_path: Path) -> None:
    assert pretrained(anchors, tmp_path / "run", "optim.micro_batches=2") == 0
    assert [loss for _, loss in losses(tmp_path / "run")] == pytest.approx(
        [loss for _, loss in losses(finished)], abs=1e-5
    )


@pytest.mark.slow  # tests/engine/test_processes.py has the same of the engine
def test_two_processes_train_as_one(anchors: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "lamella.cli", "pretrain", str(anchors), "-o", str(out), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: lamella embed") == 1  # only rank 0 speaks
    assert "2 processes" in done.stdout
    assert [loss for _, loss in losses(out)] == pytest.approx([loss for _, loss in losses(finished)], abs=1e-5)
    rows = [[(row.context_keep_tokens, row.images_seen) for row in read_steps(run)] for run in (out, finished)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("paths", "out", "message"),
    [
        ((), Path("x"), "takes one anchors folder, 0 paths"),
        ((Path("/"), Path("/")), Path("x"), "takes one anchors folder, 2 paths"),
        ((Path("absent"),), Path("x"), "absent"),
    ],
)
def test_what_is_missing_is_named(paths: tuple[Path, ...], out: Path, message: str) -> None:
    with pytest.raises(LamellaError, match=message):
        pretrain.run(Request("pretrain", paths, out, overrides=(*SMALL, "method.name=cross_jepa")))


def test_an_output_folder_is_needed(anchors: Path) -> None:
    with pytest.raises(LamellaError, match="no output folder"):
        pretrained(anchors, None)


@pytest.mark.parametrize("profile", ["tiny", "small"])
def test_the_shipped_profiles_are_valid(profile: str, anchors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pretrain", str(anchors), "-p", profile, "--dry-run", "device=cpu"]
    assert cli.main(arguments) == 0
    assert "dry run: nothing was written" in capsys.readouterr().out


def test_a_diverged_run_exits_with_2_and_names_the_checkpoint(
    anchors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*SMALL, "optim.lr=1e30", "optim.lr_start=1e30", "optim.clip_norm=null", "checkpoint.every_images=4"]
    assert cli.main(["pretrain", str(anchors), "-o", str(tmp_path / "run"), *settings]) == 2
    said = capsys.readouterr().err
    assert re.search(r"step \d: the (loss|gradient) is (nan|inf)", said)
    assert "the last good checkpoint is" in said
    assert "Traceback" not in said


def test_a_collapse_is_reported_while_training_and_written_in_the_card(
    anchors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pretrain.measure
    monkeypatch.setattr(pretrain, "measure", lambda *given: {**real(*given), "std_relative": 0.001})
    assert pretrained(anchors, tmp_path / "run") == 0
    said = capsys.readouterr()
    assert "warning: after 12 images: std_relative: the features of different views differ by 0.10%" in said.err
    assert "WARNING     std_relative" in said.out
    assert all("std_relative" in entry["warnings"][0] for entry in read_monitors(tmp_path / "run"))
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert re.search(r"these monitors gave warnings \(monitors\.jsonl\): .*std_relative", card)


def test_a_finished_run_whose_logs_are_gone_is_not_described(anchors: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    (out / "monitors.jsonl").unlink()
    with pytest.raises(LamellaError, match=r"steps\.csv or monitors\.jsonl is gone"):
        pretrained(anchors, out)
