from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lamella.errors import CheckpointError
from lamella.models.weights import listed, mismatches, read_weights, weights_file

WEIGHTS = {"a": torch.arange(3.0), "b": torch.zeros(2, 2)}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights.pth"])
def test_both_formats_hold_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file(WEIGHTS, path) if path.suffix == ".safetensors" else torch.save(WEIGHTS, path)
    found = read_weights(path)
    assert mismatches(WEIGHTS, found) == []
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


def test_safetensors_come_first(tmp_path: Path) -> None:
    assert weights_file(tmp_path) is None
    for name in ("pytorch_model.bin", "model.safetensors.index.json", "model.safetensors"):
        (tmp_path / name).touch()
        assert weights_file(tmp_path) == tmp_path / name


class Program:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_program_in_a_torch_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": Program(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        read_weights(tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kept", [0, 1, 40, -30])
def test_truncated_files_are_named(name: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file(WEIGHTS, path) if path.suffix == ".safetensors" else torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"{name}: it is (truncated or )?damaged"):
        read_weights(path)


def test_what_is_no_table_of_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights are missing"):
        read_weights(tmp_path / "model.safetensors")
    for content in ([torch.zeros(2)], {"state_dict": {"a": torch.zeros(2)}}):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(CheckpointError, match="does not hold tensors by name"):
            read_weights(tmp_path / "weights.pth")


def test_every_difference_is_named_and_long_lists_are_counted() -> None:
    found = {"b": torch.zeros(2, 3), "c": torch.tensor(1.0)}
    assert mismatches(WEIGHTS, found) == ["a is missing", "c is unknown", "b is 2 x 3 instead of 2 x 2"]
    assert listed([f"{number}" for number in range(8)]) == "0; 1; 2; 3; 4; 5; 6; 7"
    assert listed([f"{number}" for number in range(11)]).endswith("; 7; and 3 more")
