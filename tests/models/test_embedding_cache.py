"""One pass of the encoder an image, whatever is asked of it."""

from __future__ import annotations

import pytest
import torch
from tests.models.tiny_sam2 import SIDE_PX, tiny_sam2

from lamella.errors import CheckpointError
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.prompts import THIS, Prompts


@pytest.fixture
def model():
    return tiny_sam2()


@pytest.fixture
def passes(model, monkeypatch):
    """Images that reached the encoder, counted outside of the cache."""
    seen = []
    original = model._features
    monkeypatch.setattr(model, "_features", lambda canvases: seen.append(len(canvases)) or original(canvases))
    return seen


def _images(count=3, seed=0):
    return torch.randint(
        0, 256, (count, 3, 40, SIDE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_five_prompts_of_five_classes_cost_one_pass(model, passes):
    """A mistake of the source: embeddings were computed again for every prompt."""
    cache, image = EmbeddingCache(model), _images(1)
    for prompt in range(5):
        for kind in range(5):
            points = torch.full((1, 1, 1, 2), 5.0 + 3 * prompt + kind)
            model.decode(cache.embed(image), Prompts(points, torch.full((1, 1, 1), THIS)))
    assert sum(passes) == cache.passes == 1
    assert cache.hits == 24


def test_the_same_embedding(model):
    cache, images = EmbeddingCache(model), _images()
    for _ in range(2):
        embedded, expected = cache.embed(images), model.embed(images)
        assert embedded.canvas == expected.canvas
        for ours, theirs in zip(embedded.features, expected.features, strict=True):
            torch.testing.assert_close(ours, theirs)
            assert not ours.requires_grad


def test_images_of_a_batch_are_known_one_by_one(model, passes):
    cache, images = EmbeddingCache(model), _images(3)
    cache.embed(images[1:2])
    mixed = cache.embed(images[[1, 0, 1, 2]])
    assert sum(passes) == 3
    torch.testing.assert_close(mixed.features[0][0], mixed.features[0][2])
    torch.testing.assert_close(mixed.features[0], model.embed(images[[1, 0, 1, 2]]).features[0])


def test_other_pixels_other_weights_and_other_sizes_are_others(model, passes):
    cache, images = EmbeddingCache(model), _images(1)
    cache.embed(images)
    changed = images.clone()
    changed[0, 0, 0, 0] ^= 1
    cache.embed(changed)
    cache.embed(images.reshape(1, 3, SIDE_PX, 40))
    assert sum(passes) == 3
    with torch.no_grad():
        model.network.vision_encoder.backbone.pos_embed.add_(1)
    cache.embed(images)
    assert sum(passes) == 4
    with torch.no_grad():
        model.network.mask_decoder.mask_tokens.weight.add_(1)  # no embedding depends on it
    cache.embed(images)
    assert sum(passes) == 4


def test_a_trained_encoder_is_refused(model):
    cache = EmbeddingCache(model)
    model.network.mask_decoder.mask_tokens.requires_grad_(True)
    cache.embed(_images(1))
    model.network.vision_encoder.requires_grad_(True)
    with pytest.raises(ValueError, match="being trained"):
        cache.embed(_images(1))


def test_embeddings_outlast_the_process(model, passes, tmp_path):
    EmbeddingCache(model, tmp_path).embed(_images())
    later = EmbeddingCache(model, tmp_path)
    embedded = later.embed(_images())
    assert (sum(passes), later.passes, later.hits) == (3, 0, 3)
    torch.testing.assert_close(embedded.features, model.embed(_images()).features)
    other = tiny_sam2(seed=9)
    assert EmbeddingCache(other, tmp_path).embed(_images()).features[0].ne(embedded.features[0]).any()
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_files_are_refused(model, tmp_path):
    EmbeddingCache(model, tmp_path).embed(_images(1))
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        EmbeddingCache(model, tmp_path).embed(_images(1))


def test_half_the_room(model, tmp_path):
    cache = EmbeddingCache(model, tmp_path, half=True)
    embedded = cache.embed(_images(1))
    assert embedded.features[0].dtype == torch.float32
    torch.testing.assert_close(embedded.features, model.embed(_images(1)).features, rtol=2e-3, atol=2e-3)
    (half,) = tmp_path.rglob("*.safetensors")
    EmbeddingCache(model, tmp_path).embed(_images(1))  # not mistaken for the other
    sizes = sorted(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert sizes[0] == half.stat().st_size < 0.6 * sizes[1]


def test_memory_is_bounded(model, passes):
    one = sum(feature[0].numel() * 4 for feature in model.embed(_images(1)).features)
    passes.clear()
    cache = EmbeddingCache(model, memory_bytes=2 * one)
    images = _images(3)
    cache.embed(images)  # the first is forgotten
    cache.embed(images[1:])
    assert sum(passes) == 3
    cache.embed(images[:1])
    assert sum(passes) == 4
