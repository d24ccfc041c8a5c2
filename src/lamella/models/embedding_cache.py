"""Embeddings of images, kept: the encoder runs once an image, whatever number of prompts, classes and heads follow.

Shapes: B images.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import whole_file
from lamella.models.contract import check_images
from lamella.models.promptable_model import Embedded, PromptableModel

# An embedding of SAM 2 is 16 MiB: 128 images.
_MEMORY_BYTES = 2 << 30


class EmbeddingCache:
    """`embed` of a model, remembered by the images' pixels and the encoder's fingerprint.

    Embeddings carry no gradients. Training the prompt encoder or the mask decoder leaves them valid; an encoder that is
    trained is refused, because what is kept would not be what it now makes.

    Args:
        model: Whose embeddings.
        folder: Where they outlast the process, one file an image, in a folder of the encoder's fingerprint. In memory
            alone unless given.
        half: Keep 16 bits: half the room, and logits that differ in the third digit.
        memory_bytes: The least recently used are forgotten (from memory) beyond this.

    Attributes:
        model: Whose embeddings.
        passes: Images that went through the encoder so far.
        hits: Images that were already known.
    """

    def __init__(
        self,
        model: PromptableModel,
        folder: Path | str | None = None,
        *,
        half: bool = False,
        memory_bytes: int = _MEMORY_BYTES,
    ) -> None:
        self.model, self.passes, self.hits = model, 0, 0
        self._folder = None if folder is None else Path(folder)
        self._dtype = torch.float16 if half else torch.float32
        self._memory: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        self._memory_bytes = memory_bytes

    def embed(self, images: Tensor) -> Embedded:
        """As `PromptableModel.embed`, without gradients.

        Raises:
            ValueError: A weight of the encoder is being trained.
            CheckpointError: A file of the folder is damaged.
            StorageError: The disk took no more.
        """
        check_images(images)
        if self.model.encoder_trained:
            raise ValueError("embeddings of an encoder that is being trained cannot be kept; use model.embed")
        keys = [self._key(image) for image in images]
        found = {key: held for key in dict.fromkeys(keys) if (held := self._find(key)) is not None}
        self.hits += sum(key in found for key in keys)
        new = [number for number, key in enumerate(keys) if key not in found and key not in keys[:number]]
        if new:
            with torch.no_grad():
                fresh = self.model.embed(images[new])
            self.passes += len(new)
            for row, number in enumerate(new):
                features = tuple(feature[row].to(self._dtype) for feature in fresh.features)
                found[keys[number]] = features
                self._keep(keys[number], features)
        device = images.device
        rows = [found[key] for key in keys]
        features = tuple(torch.stack(level).to(device).float() for level in zip(*rows, strict=True))
        return Embedded(features, self.model.canvas((images.shape[-2], images.shape[-1])))

    def _key(self, image_3HW: Tensor) -> str:
        pixels = image_3HW.cpu().contiguous()
        digest = hashlib.sha256(f"{tuple(pixels.shape)} {self._dtype} ".encode())
        digest.update(self.model.encoder_fingerprint.encode())
        digest.update(pixels.numpy().data)  # a view: hashlib reads the tensor's own memory
        return digest.hexdigest()[:32]

    def _find(self, key: str) -> tuple[Tensor, ...] | None:
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            held = load_file(path)
            features = tuple(held[str(level)] for level in range(len(held)))
        except (SafetensorError, OSError, KeyError) as error:
            raise CheckpointError(
                path, f"this kept embedding is damaged ({first_line(error)})", "Delete it; it is made again."
            ) from error
        self._remember(key, features)
        return features

    def _keep(self, key: str, features: tuple[Tensor, ...]) -> None:
        self._remember(key, features)
        if (path := self._path(key)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part:
                save_file({str(level): feature.cpu().contiguous() for level, feature in enumerate(features)}, part)

    def _remember(self, key: str, features: tuple[Tensor, ...]) -> None:
        self._memory[key] = features
        while len(self._memory) > 1 and sum(map(_bytes, self._memory.values())) > self._memory_bytes:
            self._memory.popitem(last=False)

    def _path(self, key: str) -> Path | None:
        return None if self._folder is None else self._folder / self.model.encoder_fingerprint / f"{key}.safetensors"


def _bytes(features: tuple[Tensor, ...]) -> int:
    return sum(feature.numel() * feature.element_size() for feature in features)
