from __future__ import annotations

import builtins
import errno
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest
import torch

from lamella.engine import checkpoint as module
from lamella.engine.checkpoint import Checkpoints, CheckpointSettings, Progress
from lamella.engine.optim import OptimSettings, adamw
from lamella.errors import CheckpointError, StorageError


def parts(width: int = 3) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(width)
    network = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))
    return network, adamw(network, OptimSettings())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stepped(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()


def test_weights_moments_and_progress_come_back_bit_equal(tmp_path: Path) -> None:
    network, optimizer = parts()
    stepped(network, optimizer)
    Checkpoints(tmp_path, CheckpointSettings(), "hash").save(network, optimizer, Progress(4, 32))
    other, other_optimizer = parts(3)
    with torch.no_grad():
        other[0].weight.zero_()
    assert Checkpoints(tmp_path, CheckpointSettings(), "hash").resume(other, other_optimizer) == Progress(4, 32)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    for a, b in zip(optimizer.state.values(), other_optimizer.state.values(), strict=True):
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
        assert torch.equal(a["step"], b["step"])


def test_without_a_checkpoint_the_run_starts_at_step_0(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent", CheckpointSettings(), "hash").resume(*parts()) == Progress(0, 0)


def test_the_last_two_and_the_milestones_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(keep_last=2, keep_every_images=50), "hash")
    for step in range(1, 16):
        checkpoints.save(*parts(), Progress(step, 10 * step))
    # 50 and 100 images are milestones, 140 and 150 the newest (150 is both).
    assert [path.stem for path in sorted(tmp_path.glob("*.pt"))] == [f"step_{step:08d}" for step in (5, 10, 14, 15)]
    assert len(list(tmp_path.glob("*.json"))) == 4


@pytest.mark.parametrize("keep", [0, 1, 100, 2000])
def test_a_truncated_checkpoint_is_refused_with_the_way_out(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), "hash")
    checkpoints.save(*parts(), Progress(1, 8))
    last = checkpoints.save(*parts(), Progress(2, 16))
    last.write_bytes(last.read_bytes()[:keep])
    with pytest.raises(CheckpointError) as caught:
        checkpoints.resume(*parts())
    assert str(last) in str(caught.value)
    assert "truncated or damaged" in str(caught.value)
    assert "Delete step_00000002.pt" in caught.value.remedy
    last.unlink()  # what the remedy says
    assert checkpoints.resume(*parts()) == Progress(1, 8)


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), "hash")
    path = checkpoints.save(*parts(), Progress(1, 8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.resume(*parts())


def test_another_architecture_is_refused_with_the_first_differences(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), "hash")
    checkpoints.save(*parts(3), Progress(1, 8))
    network, optimizer = parts(5)
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(CheckpointError) as caught:
        checkpoints.resume(network, optimizer)
    assert "0.weight: 3x2 in the checkpoint, 5x2 in the model" in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    deeper = torch.nn.Sequential(*network, torch.nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match=r"2\.weight: absent in the checkpoint, 1x1 in the model"):
        checkpoints.resume(deeper, adamw(deeper, OptimSettings()))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, CheckpointSettings(), "old").save(*parts(), Progress(1, 8))
    with pytest.raises(CheckpointError, match="other settings"):
        Checkpoints(tmp_path, CheckpointSettings(), "new").resume(*parts())


def test_a_checkpoint_without_its_seal_was_cut_short_and_does_not_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), "hash")
    checkpoints.save(*parts(), Progress(1, 8))
    checkpoints.save(*parts(), Progress(2, 16)).with_suffix(".json").unlink()
    assert checkpoints.resume(*parts()) == Progress(1, 8)
    checkpoints.save(*parts(), Progress(3, 24))
    assert "step_00000002.pt" not in names(tmp_path)  # and is cleared away


def test_checkpoints_without_their_checksums_are_no_fresh_start(tmp_path):
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), "h")
    checkpoints.save(*parts(), Progress(1, 8)).with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match=r"step_00000001\.json is missing"):
        checkpoints.resume(*parts())


def test_a_write_cut_short_leaves_no_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), "h")
    with monkeypatch.context() as patched:
        patched.setattr("lamella.engine.checkpoint.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(*parts(), Progress(1, 8))
    assert list(tmp_path.iterdir()) == []
    assert checkpoints.resume(*parts()) == Progress(0, 0)


def test_a_damaged_seal_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), "hash")
    checkpoints.save(*parts(), Progress(1, 8)).with_suffix(".json").write_text("{")
    with pytest.raises(CheckpointError, match=r"its \.json file is damaged"):
        checkpoints.resume(*parts())


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(keep_last=1), "hash")
    checkpoints.save(*parts(), Progress(1, 8))
    before = names(tmp_path)

    def full(path: Path, mode: str) -> IO[bytes]:
        return builtins.open("/dev/full" if mode == "wb" else path, mode)  # Linux's own full disk: the real error

    monkeypatch.setattr(module, "open", full, raising=False)
    with pytest.raises(StorageError) as caught:
        checkpoints.save(*parts(), Progress(2, 16))
    assert "the disk is full" in str(caught.value)
    assert "step_00000002.pt" in str(caught.value)
    monkeypatch.undo()
    assert names(tmp_path) == before
    assert checkpoints.resume(*parts()) == Progress(1, 8)


def test_a_disk_that_fills_while_the_weights_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Filling:
        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 700

        def write(self, data: Any) -> int:
            self.room -= len(data)
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Filling:
            return self

        def __exit__(self, *exception: object) -> None:
            self.file.close()

    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), "hash")
    checkpoints.save(*parts(), Progress(1, 8))
    before = names(tmp_path)

    def filling(path: Path, mode: str) -> Any:
        file = builtins.open(path, mode)  # noqa: SIM115, the caller closes it
        return Filling(file) if mode == "wb" else file

    monkeypatch.setattr(module, "open", filling, raising=False)
    with pytest.raises(StorageError, match="the disk is full"):
        checkpoints.save(*parts(), Progress(2, 16))
    assert names(tmp_path) == before


def test_a_full_disk_in_a_run_names_the_file_and_the_run_goes_on_later(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.run(tmp_path / "whole", 9)
    real, saves = module._write_state, []

    def second_save_fails(state: dict[str, Any], part: Path) -> str:
        saves.append(part)
        if len(saves) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(state, part)

    monkeypatch.setattr(module, "_write_state", second_save_fails)
    with pytest.raises(StorageError, match="step_00000006"):
        toy.run(tmp_path / "cut", 9)
    assert toy.run(tmp_path / "cut", 9).resumed_from == 3
    last = [torch.load(tmp_path / run / "checkpoints/step_00000009.pt", weights_only=True) for run in ("whole", "cut")]
    assert all(torch.equal(last[0]["method"][key], last[1]["method"][key]) for key in last[0]["method"])


def test_the_clock_asks_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(every_minutes=2), "hash")
    now[0] = 119.0
    assert not checkpoints.due_by_clock()
    now[0] = 121.0
    assert checkpoints.due_by_clock()
    checkpoints.save(*parts(), Progress(1, 8))
    assert not checkpoints.due_by_clock()
