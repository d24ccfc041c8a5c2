from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lamella.models import fingerprint
from lamella.models.fingerprint import fingerprint_of, module_fingerprint


def test_the_fingerprint_is_the_one_that_released_folders_state() -> None:
    # Computed with the code of the first release: folders keep the fingerprint that they were saved with.
    weights = {"b": torch.arange(6, dtype=torch.float16).reshape(2, 3), "a": torch.tensor(2.0)}
    assert fingerprint_of({"y": 1, "x": [1, 2]}, weights) == "20eb352dec2fd5d1"


def test_weights_are_hashed_again_only_when_they_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(fingerprint, "fingerprint_of", lambda *what: hashed.append(1) or fingerprint_of(*what))
    network = nn.Linear(3, 2)
    first = module_fingerprint(network, {})
    assert module_fingerprint(network, {}) == first
    assert len(hashed) == 1
    assert module_fingerprint(network, {"mpp": 1}) != first
    for change in (
        lambda: nn.init.zeros_(network.bias),
        lambda: network.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.ones(2)}),
        lambda: network.load_state_dict({"weight": torch.zeros(2, 3), "bias": torch.ones(2)}, assign=True),
        lambda: network.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, assign=True),
    ):
        before = module_fingerprint(network, {})
        change()
        assert module_fingerprint(network, {}) != before


def test_an_optimisers_step_and_a_trained_copy_have_their_own() -> None:
    network = nn.Linear(3, 2)
    before = module_fingerprint(network, {})
    teacher = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters())
    for _ in range(3):
        network(torch.ones(1, 3)).sum().backward()
        optimiser.step()
    assert module_fingerprint(teacher, {}) == before
    assert module_fingerprint(network, {}) != before
    with torch.no_grad():
        teacher.weight.lerp_(network.weight, 0.5)
    assert len({module_fingerprint(teacher, {}), module_fingerprint(network, {}), before}) == 3
