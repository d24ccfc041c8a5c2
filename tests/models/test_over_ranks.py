"""One process; what several exchange is shown by tests/methods/test_lejepa.py and test_sigreg.py, in real processes."""

from __future__ import annotations

import pytest
import torch

from lamella.models.over_ranks import alone, count_over_ranks, several_ranks, sum_over_ranks


def test_a_process_of_its_own_keeps_its_tensor() -> None:
    value = torch.ones(3, requires_grad=True)
    assert sum_over_ranks(value) is value
    assert count_over_ranks(5, value) == 5
    assert not several_ranks()


def test_ranks_are_found_and_left_alone_within(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in {"is_initialized": True, "get_world_size": 2}.items():
        monkeypatch.setattr(f"torch.distributed.{name}", lambda answer=answer: answer)
    assert several_ranks()
    with alone():
        assert not several_ranks()
        with alone():
            pass
        assert not several_ranks()
    assert several_ranks()
    with pytest.raises(RuntimeError, match="stop"), alone():
        raise RuntimeError("stop")
    assert several_ranks()
