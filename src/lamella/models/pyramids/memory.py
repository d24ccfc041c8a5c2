"""What a frozen backbone made of tiles, kept on disk by the tiles' content: each is encoded once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lamella.formats.atomic import whole_file
from lamella.models.dense_contract import DenseContract
from lamella.models.fingerprint import module_fingerprint
from lamella.models.pyramids.backbone import Backbone
from lamella.models.segmenter import Segmenter

_GB = 2**30
_LARGEST = torch.finfo(torch.float16).max


class LevelMemory:
    """A backbone that remembers.

    Half precision: a level's values are read by a head that normalises them first, and 11 bits are as many as bfloat16
    training leaves. A file that another process removed, or that is damaged, is made again.

    Args:
        backbone: Frozen; used without gradients.
        folder: Where the files lie.
        limit_gb: Beyond this nothing more is written, and tiles are encoded again each time.

    Attributes:
        encoded: Tiles that went through the backbone so far.
    """

    def __init__(self, backbone: Backbone, folder: Path, limit_gb: float) -> None:
        self.backbone, self.folder, self.limit_bytes = backbone.eval(), folder, limit_gb * _GB
        told = {"kind": backbone.kind, **backbone.description()}
        self._key = module_fingerprint(backbone, told).encode()
        self._bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder.is_dir() else 0
        self.encoded = 0

    @torch.no_grad()
    def levels(self, images: Tensor) -> list[Tensor]:
        """What the backbone makes of uint8 (B, 3, H, W), each level float32 on the images' device."""
        found = [self._read(self._path(image)) for image in images]
        for number, image in enumerate(images):  # one by one: a batch's memory would be the encoder's largest maps
            if found[number] is None:
                found[number] = self._read(self._path(image)) or self._made(image)  # it may stand twice in the batch
        levels = range(len(self.backbone.widths))
        return [torch.stack([each[level] for each in found if each]).to(images.device).float() for level in levels]

    def _made(self, image: Tensor) -> list[Tensor]:
        self.encoded += 1
        # Clipped: what is larger than half precision holds would become infinite, and every loss of it NaN.
        levels = [level[0].clamp(-_LARGEST, _LARGEST).half().cpu().contiguous() for level in self.backbone(image[None])]
        size = sum(level.nbytes for level in levels)
        if self._bytes + size <= self.limit_bytes:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path(image)) as part:
                save_file({f"level{number}": level for number, level in enumerate(levels)}, part)
            self._bytes += size
        return levels

    def _read(self, path: Path) -> list[Tensor] | None:
        try:
            held = load_file(path)
        except (FileNotFoundError, SafetensorError):  # damaged on disk: made again and put in its place
            return None
        return [held[f"level{number}"] for number in range(len(self.backbone.widths))]

    def _path(self, image: Tensor) -> Path:
        digest = hashlib.blake2b(self._key, digest_size=16)
        digest.update(repr(tuple(image.shape)).encode())
        digest.update(image.cpu().contiguous().numpy())
        return self.folder / f"{digest.hexdigest()}.safetensors"


class RememberingSegmenter:
    """A segmenter whose frozen backbone remembers: the same maps to half precision, sooner.

    A DenseModel, so that validation takes the path that is evaluated later.
    """

    def __init__(self, segmenter: Segmenter, memory: LevelMemory) -> None:
        self._segmenter, self._memory = segmenter, memory

    @property
    def name(self) -> str:
        return self._segmenter.name

    @property
    def contract(self) -> DenseContract:
        return self._segmenter.contract

    @property
    def fingerprint(self) -> str:
        return self._segmenter.fingerprint

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        """As `Segmenter.maps`."""
        size = (images.shape[-2], images.shape[-1])
        return self._segmenter.logits_of(self._memory.levels(images), size).softmax(1)

    def to(self, device: object) -> RememberingSegmenter:
        self._segmenter.to(device)
        return self
