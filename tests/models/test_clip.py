"""A tiny CLIP saved by transformers, against transformers' own features and its own preparation of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.models.tiny_clip import DIM, LONGEST, MEAN, SIDE, STD, reference_tokenizer, save_tiny_clip
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from lamella.errors import CheckpointError, LamellaError
from lamella.models.clip import _square, load_clip

TEXTS = ["an image of tumor", "fat", "a long text, 12 words & more"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny-clip"
    save_tiny_clip(place)
    return place


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    save_tiny_clip(tmp_path / "clip")
    return tmp_path / "clip"


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def features(output: object) -> torch.Tensor:
    """transformers 4 returns the tensor, 5 an object around it."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def test_texts_are_embedded_as_by_transformers(folder: Path) -> None:
    clip, network = load_clip(folder), save_tiny_clip(folder)
    inputs = reference_tokenizer(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(features(network.get_text_features(**inputs)), dim=-1)
    found = clip.texts(TEXTS)
    assert found.shape == (3, DIM)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-2)
    # A text by itself is what it is among longer ones: filling up changes nothing.
    assert torch.allclose(clip.texts(TEXTS[1:2])[0], found[1], atol=1e-6)


def test_images_are_embedded_as_by_transformers(folder: Path) -> None:
    clip, network = load_clip(folder), save_tiny_clip(folder)
    shown = [picture(SIDE, SIDE), picture(50, 83, 1), picture(90, 41, 2)]
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=STD
    )
    inputs = processor(shown, return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(features(network.get_image_features(**inputs)), dim=-1)
        found = clip.images(clip.prepared(shown, "crop"))
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-6)
    assert clip.scale == pytest.approx(float(network.logit_scale.detach().exp()), rel=1e-6)


def test_probabilities_are_those_of_transformers(folder: Path) -> None:
    from lamella.metrics.naming import probabilities

    clip, network = load_clip(folder), save_tiny_clip(folder)
    images = clip.prepared([picture(40, 40)], "crop")
    inputs = reference_tokenizer(folder)(TEXTS, padding=True, return_tensors="pt")
    pixels = (images / 255 - torch.tensor(MEAN).reshape(1, 3, 1, 1)) / torch.tensor(STD).reshape(1, 3, 1, 1)
    with torch.no_grad():
        expected = network(pixel_values=pixels, **inputs).logits_per_image.softmax(-1)
        cosines = clip.images(images) @ clip.texts(TEXTS).T
    assert np.allclose(probabilities(cosines.numpy(), clip.scale), expected.numpy(), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), fit=st.sampled_from(["pad", "crop"]))
def test_nothing_is_ever_squashed(height: int, width: int, fit: str) -> None:
    # A ramp along x: in a picture whose aspect is kept, its slope is that of the scale alone.
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[...] = (2 * np.arange(width))[None, :, None]
    square = _square(pixels, SIDE, fit, (1, 2, 3))
    assert square.shape == (SIDE, SIDE, 3)
    around = (square == (1, 2, 3)).all(-1)
    rows, columns = np.flatnonzero(~around.all(1)), np.flatnonzero(~around.all(0))
    longer = max(height, width)
    if fit == "pad":
        assert len(rows) == max(1, SIDE * height // longer)
        assert len(columns) == max(1, SIDE * width // longer)
    elif min(height, width) > 20 and width > 30:
        slope = np.diff(square[SIDE // 2, 4:-4, 0].astype(float)).mean()
        assert slope == pytest.approx(2 * min(height, width) / SIDE, rel=0.15)


def test_pad_shows_all_of_the_region_on_the_colour_that_becomes_zero(folder: Path) -> None:
    clip = load_clip(folder)
    batch = clip.prepared([np.full((10, 40, 3), 255, np.uint8)], "pad")
    seen = batch[0, 0] == 255
    assert seen.sum() == SIDE * SIDE // 4
    assert tuple(batch[0, :, 0, 0].tolist()) == clip.contract.gray == (123, 117, 104)
    assert ((batch[0, :, 0, 0].float() - clip.mean_C11[:, 0, 0]) / clip.std_C11[:, 0, 0]).abs().max() < 0.01


def test_a_twin_is_alike_but_for_its_weights(folder: Path) -> None:
    clip = load_clip(folder)
    before = torch.random.get_rng_state()
    twin = clip.random_twin(4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert twin.contract == clip.contract
    assert len({clip.fingerprint, twin.fingerprint, clip.random_twin(5).fingerprint}) == 3
    assert twin.fingerprint == clip.random_twin(4).fingerprint
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert load_clip(folder).fingerprint == clip.fingerprint


def test_a_text_is_never_cut(folder: Path) -> None:
    clip = load_clip(folder)
    assert clip.texts(["x" * (LONGEST - 2)]).shape == (1, DIM)
    with pytest.raises(LamellaError, match=rf"{LONGEST + 1} tokens long, and tiny-clip reads {LONGEST}"):
        clip.texts(["fat", "x" * (LONGEST - 1)])


def test_images_of_another_size_or_type_are_refused(folder: Path) -> None:
    clip = load_clip(folder)
    with pytest.raises(ValueError, match="32 x 32"):
        clip.images(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        clip.images(torch.zeros(1, 3, 32, 32))


def test_a_tokenizer_in_one_file_is_the_same(own: Path) -> None:
    expected = load_clip(own).texts(TEXTS)
    reference_tokenizer(own).save_pretrained(own)
    for name in ("vocab.json", "merges.txt"):
        (own / name).unlink(missing_ok=True)
    assert (own / "tokenizer.json").is_file()
    assert torch.allclose(load_clip(own).texts(TEXTS), expected, atol=1e-6)


# ---- folders that are not whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (["vocab.json"], r"tokenizer is missing \(vocab.json\)"),
        (["merges.txt"], r"tokenizer is missing \(merges.txt\)"),
        (["vocab.json", "merges.txt"], r"tokenizer is missing \(vocab.json and merges.txt\)"),
        (["model.safetensors"], "holds no weights"),
        (["preprocessor_config.json"], "no preprocessor_config.json"),
        (["config.json"], "no config.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_missing_is_never_made_up(own: Path, gone: list[str], said: str) -> None:
    for name in gone:
        (own / name).unlink()
    with pytest.raises(CheckpointError, match=said):
        load_clip(own)


def test_a_registry_name_states_the_normalisation_where_the_folder_does_not(own: Path) -> None:
    (own / "preprocessor_config.json").unlink()
    clip = load_clip(f"plip@{own}")
    assert clip.name == "plip"
    assert clip.contract.mean == pytest.approx(MEAN)
    assert "non-commercial" in clip.contract.licence


@pytest.mark.parametrize("change", ["missing", "unknown", "size"])
def test_a_missing_weight_is_never_left_random(own: Path, change: str) -> None:
    weights = load_file(own / "model.safetensors")
    if change == "missing":
        del weights["text_projection.weight"]
    elif change == "unknown":
        weights["extra.weight"] = torch.zeros(2)
    else:
        weights["visual_projection.weight"] = torch.zeros(DIM, 8)
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    said = {"missing": "text_projection.weight is missing", "unknown": "extra.weight is unknown", "size": "16 x 8"}
    with pytest.raises(CheckpointError, match=said[change]):
        load_clip(own)


@pytest.mark.parametrize("name", ["vocab.json", "preprocessor_config.json", "config.json", "model.safetensors"])
def test_a_damaged_file_is_named(own: Path, name: str) -> None:
    content = (own / name).read_bytes()
    (own / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"cannot be read") as raised:
        load_clip(own)
    assert str(own) in raised.value.thing


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    tree["text_config"].update(values.pop("text", {}))
    path.write_text(json.dumps({**tree, **values}))


def test_another_kind_of_model_is_refused(own: Path) -> None:
    change_config(own, model_type="siglip")
    with pytest.raises(CheckpointError, match="type siglip, and clip is needed"):
        load_clip(own)
    with pytest.raises(CheckpointError, match="no text tower"):
        load_clip("dinov2-small")
    with pytest.raises(CheckpointError, match="no such folder or model"):
        load_clip("nothing-of-that-name")


def test_a_tokenizer_of_another_model_is_refused(own: Path) -> None:
    words = json.loads((own / "vocab.json").read_text())
    words["more</w>"] = len(words)
    (own / "vocab.json").write_text(json.dumps(words))
    with pytest.raises(CheckpointError, match="tokenizer has 85 tokens, and the text tower 84"):
        load_clip(own)


def test_a_tower_that_looks_for_another_end_is_refused(own: Path) -> None:
    """It would take the embedding of some other place in the text."""
    change_config(own, text={"eos_token_id": 7})
    with pytest.raises(CheckpointError, match="ends a text with token 83, and the text tower looks for 7"):
        load_clip(own)


def test_old_configurations_that_say_2_find_the_end_as_the_largest_token(own: Path) -> None:
    expected = load_clip(own).texts(TEXTS)
    change_config(own, text={"eos_token_id": 2})
    assert torch.allclose(load_clip(own).texts(TEXTS), expected, atol=1e-6)


def test_embeddings_that_are_not_numbers_are_refused(own: Path) -> None:
    weights = load_file(own / "model.safetensors")
    weights["visual_projection.weight"][:] = torch.nan
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not numbers"):
        load_clip(own)
