"""A segmenter's folder: whole, checked, and the same answers after a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.models.tiny_segmenters import BACKBONES, HEADS, tiny_segmenter

from lamella.errors import CheckpointError
from lamella.models.dense_contract import DenseContract, DenseModel
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record
from lamella.models.segmenter import Segmenter
from lamella.models.segmenter_hub import is_segmenter, load_segmenter, save_segmenter, segmenter_facts

RECORD = PretrainingRecord.of({"d"}, {"d/p1"}, {"d/i1"}, {"0123456789abcdef"})


def tiles() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 32, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_segmenter(tiny_segmenter(), tmp_path / "model", "# card", record=RECORD, facts={"fold": 1})
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("backbone", "head"), [*((each, "linear") for each in BACKBONES), *(("segformer", each) for each in HEADS)]
)
def test_what_was_saved_is_what_is_loaded(backbone: str, head: str, tmp_path: Path) -> None:
    model = tiny_segmenter(backbone, head)
    save_segmenter(model, tmp_path, "# card", record=None)
    again = load_segmenter(tmp_path)
    # Attention may add up in another order where memory is aligned otherwise.
    assert torch.allclose(again.maps(tiles()), model.maps(tiles()), atol=1e-6)
    assert (again.name, again.contract, again.fingerprint) == (model.name, model.contract, model.fingerprint)
    assert isinstance(again, DenseModel)
    assert not any(each.requires_grad for each in again.parameters())
    assert pretraining_record(tmp_path) is None


def test_the_folder_says_what_the_model_saw(folder: Path) -> None:
    assert is_segmenter(folder)
    assert pretraining_record(folder) == RECORD
    assert segmenter_facts(folder) == {"fold": 1}
    assert (folder / "README.md").read_text() == "# card"


def test_maps_take_no_gradient_and_leave_the_images_alone() -> None:
    model, shown = tiny_segmenter(), tiles()
    before = shown.clone()
    assert not model.maps(shown).requires_grad
    assert torch.equal(shown, before)  # mistake of the source: whitening the image in place


def test_other_weights_another_contract_or_another_head_have_another_fingerprint() -> None:
    model = tiny_segmenter()
    coarser = DenseContract(model.contract.channels, 2.0, 64, 32)
    found = {
        model.fingerprint,
        tiny_segmenter(head="linear").fingerprint,
        Segmenter(model.backbone, model.head, coarser, model.name).fingerprint,
    }
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert len({*found, model.fingerprint}) == 4


def test_a_contract_that_does_not_fit_is_refused() -> None:
    model = tiny_segmenter()
    for contract in (
        DenseContract(model.contract.channels, 1.0, tile_px=48, multiple_px=32),
        DenseContract(model.contract.channels, 1.0, tile_px=64, multiple_px=1),
        DenseContract(model.contract.channels, 1.0, tile_px=64, multiple_px=32, kind="values"),
    ):
        with pytest.raises(ValueError, match=r"multiples|classes"):
            Segmenter(model.backbone, model.head, contract, "x")


def test_what_is_no_segmenter_is_none(tmp_path: Path) -> None:
    assert not is_segmenter(tmp_path)
    assert not is_segmenter("owner/name")
    (tmp_path / "config.json").write_text('{"format": "lamella-vit-2"}')
    assert not is_segmenter(tmp_path)
    with pytest.raises(CheckpointError, match="no segmenter of this version"):
        load_segmenter(tmp_path)


def test_a_run_folder_is_refused_with_the_models_place(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=f"Give the folder {folder}"):
        load_segmenter(folder.parent)
    with pytest.raises(CheckpointError, match="there is no such model folder"):
        load_segmenter(folder / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": {"kind": "unet"}}, "unknown here"),
        ({"head": {"name": "unet"}}, "does not describe a segmenter"),
        ({"contract": {"channels": ["a", "b"]}}, "does not describe a segmenter"),
        ({"fingerprint": "0" * 16}, "its fingerprint is"),
        ({"format": "lamella-segmenter-9"}, "no segmenter of this version"),
    ],
)
def test_a_changed_configuration_is_refused(change: dict[str, object], message: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        load_segmenter(folder)


def test_weights_with_other_keys_are_named(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["head.classify.bias"] = torch.zeros(7)
    weights["head.more"] = torch.zeros(1)
    del weights["head.classify.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_segmenter(folder)
    for named in ("head.classify.weight is missing", "head.more is unknown", "head.classify.bias is 7 instead of 3"):
        assert named in str(caught.value)


def test_a_damaged_file_is_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_segmenter(folder)
