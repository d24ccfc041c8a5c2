from __future__ import annotations

import pytest
import torch

from lamella.engine.world import World, choose_device, choose_precision, start_world
from lamella.errors import LamellaError, StorageError

CPU = torch.device("cpu")


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    with start_world(environment={}) as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        assert (world.device, world.precision) == (CPU, "fp32")
        assert str(world) == "cpu, fp32, one process (neither CUDA nor MPS is there; fp32 is the safe choice on cpu)"


def test_half_of_torchruns_variables_are_refused() -> None:
    with pytest.raises(LamellaError, match="RANK is set but LOCAL_RANK, WORLD_SIZE is not"):
        start_world(environment={"RANK": "0"})


def test_cuda_comes_before_mps_and_mps_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H200")
    assert choose_device("auto", 1) == (torch.device("cuda", 1), "CUDA is there: H200")
    with pytest.raises(LamellaError, match="this machine shows 2 CUDA device"):
        choose_device("auto", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto")[0].type == "mps"
    assert choose_device("cpu") == (CPU, "CPU was asked for")


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    with pytest.raises(LamellaError, match="device=cuda: PyTorch does not see such a device"):
        choose_device("cuda")


def test_bf16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert choose_precision(cuda)[0] == "bf16"
    assert choose_precision(cuda, "fp32")[0] == "fp32"
    assert choose_precision(CPU)[0] == "fp32"
    assert choose_precision(CPU, "bf16")[0] == "bf16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert choose_precision(cuda)[0] == "fp32"
    with pytest.raises(LamellaError, match="no bf16 units"):
        choose_precision(cuda, "bf16")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    with World(0, 1, CPU, precision, "a test").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_fault_on_the_main_rank_is_raised() -> None:
    world = World(0, 1, CPU, "fp32", "a test")
    assert world.on_main(lambda: 3) == 3

    def full() -> None:
        raise StorageError("out", "the disk is full", "Make room.")

    with pytest.raises(StorageError, match="the disk is full"):
        world.on_main(full)


def test_the_other_ranks_stop_with_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1, 2, CPU, "fp32", "a test")
    monkeypatch.setattr(World, "mean", lambda self, values: [0.5])  # rank 0 failed, rank 1 did not
    with pytest.raises(LamellaError, match="rank 1: rank 0 stopped with an error"):
        world.on_main(lambda: 3)
