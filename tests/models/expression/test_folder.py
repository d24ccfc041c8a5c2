from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.models.expression.tiny_expression import GENES, model_of, network_of, stirred, views_of

from lamella.errors import CheckpointError
from lamella.models.expression.expectation import Needs
from lamella.models.expression.folder import expression_facts, is_expression, load_expression, save_expression
from lamella.models.expression.settings import ExpressionModelSettings, HierarchicalSettings, Hist2STSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_expression(model_of(), tmp_path / "model", "# A model\n", facts={"best_step": 7})
    return tmp_path / "model"


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    settings = ExpressionModelSettings(width=16, fusion=HierarchicalSettings(), decoder=Hist2STSettings(heads=2))
    network = stirred(network_of(settings, needs=Needs("bin", True), rule="zero_inflated"))
    model = model_of(network, target="log1p", kind="spot", loss={"name": "zinb"}, name="a model")
    save_expression(model, tmp_path, "# A model\n")
    again = load_expression(tmp_path)
    assert torch.equal(again.expected(views_of()), model.expected(views_of()))
    assert (again.genes, again.target, again.kind, again.loss, again.name) == (
        GENES, "log1p", "spot", {"name": "zinb"}, "a model",
    )  # fmt: skip
    assert (again.views, again.bins, again.rule) == (model.views, 8, "zero_inflated")
    assert again.fingerprint == model.fingerprint
    assert not any(weight.requires_grad for weight in again.parameters())


def test_facts_are_kept(folder: Path) -> None:
    assert load_expression(folder).facts == {"cell": "base", "fold": "without_P1", "seed": 0, "best_step": 7}
    assert expression_facts(folder)["genes"] == list(GENES)
    assert is_expression(folder)
    assert not is_expression(folder.parent)


def test_other_genes_or_another_order_are_another_model() -> None:
    network = stirred(network_of())
    some, other = model_of(network), model_of(network)
    other.genes = (GENES[1], GENES[0], GENES[2])
    assert some.fingerprint != other.fingerprint


def test_truncated_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        load_expression(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "lamella-expression-9"}, "no model of expression of this version"),
        ({"genes": list(GENES[:2])}, "another network than config.json describes"),
        ({"genes": ["ALB", "ALB", "CD3E"]}, "3 names .2 different. for 3 genes"),
        ({"genes": ["ALB", "CD3E", "KRT8"]}, "its fingerprint is"),
        ({"network": {"settings": {}}}, "does not describe a model of expression"),
    ],
)
def test_a_changed_configuration_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_expression(folder)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such model folder"):
        load_expression(tmp_path / "none")


# mistake: raw outputs scored
def test_what_is_expected_is_counts_and_never_their_logarithms() -> None:
    model = model_of()
    found = model.expected(views_of())
    torch.testing.assert_close(found, model.network(views_of()).log_rate.exp())
    assert float(found.min()) > 0
    assert model.units == "expected count per bin of 2 um"
    assert not found.requires_grad


def test_spots_are_sums_under_the_disk() -> None:
    model = model_of()
    disk = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) * (torch.arange(8) > 2)
    summed = (model.expected(views_of()) * disk[:, None]).sum((-2, -1))
    torch.testing.assert_close(model.expected_spots(views_of(), disk), summed, rtol=1e-4, atol=1e-6)
    logs = model_of(target="log1p")
    torch.testing.assert_close(logs.judged(summed), summed.log1p())


def test_values_of_spots_are_means_under_the_disk() -> None:
    model = model_of(stirred(network_of(rule="value")), target="log_cpm", loss={"name": "mse"})
    disk = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    mean = (model.expected(views_of()) * disk[:, None]).sum((-2, -1)) / disk.sum((-2, -1))[:, None]
    torch.testing.assert_close(model.expected_spots(views_of(), disk), mean, rtol=1e-4, atol=1e-5)
    assert model.judged(mean) is mean
    assert model.units == "expected log_cpm"
