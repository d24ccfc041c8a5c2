"""Our own encoder of volumes and films, with what it expects to be shown.

Shapes: B samples, C channels, Z slices (frames of a film), Y rows, X columns, N tokens, D width, P values of a patch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lamella.models.fingerprint import module_fingerprint
from lamella.models.vit import ViT
from lamella.models.volume_vit import (
    NormaliseBytes,
    VolumeViTSettings,
    film_spacing,
    grid_of,
    patchify3d,
    token_places,
)


@dataclass(frozen=True)
class VolumeContract:
    """What an encoder of volumes or films expects and returns. Sizes and spacings are (z, y, x), or (t, y, x).

    Attributes:
        kind: volume: float32 values that `imaging.intensity.to_network` made; video: bytes of red, green and blue.
        channels: C.
        size: Voxels of the crops it was trained on; it takes any size in whole patches.
        patch: Voxels of a patch.
        dim: Width of a feature, D.
        spacing_mm: Millimetres per voxel of a volume; None for volumes that each state their own, and for films.
        mean: Of a film's red, green and blue (0 to 1), which the encoder subtracts itself; None for volumes.
        std: Standard deviation that it divides by; None for volumes.
        frame_ms: Milliseconds from frame to frame of a film, where they were one for all.
        intensity: The rule that made a volume's values (settings of `to_network`); None where it was not told.
        licence: Of the weights.
    """

    kind: Literal["volume", "video"]
    channels: int
    size: tuple[int, int, int]
    patch: tuple[int, int, int]
    dim: int
    spacing_mm: tuple[float, float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    frame_ms: float | None = None
    intensity: Mapping[str, Any] | None = None
    licence: str = "not stated by whoever trained it"

    def __post_init__(self) -> None:
        grid_of(self.size, self.patch)
        if self.kind == "video":
            if self.mean is None or self.std is None or {len(self.mean), len(self.std)} != {self.channels}:
                raise ValueError(f"films need a mean and a std for each of their {self.channels} channels")
            if min(self.std) <= 0:
                raise ValueError(f"std must be positive, not {self.std}")
        elif self.mean is not None or self.std is not None:
            raise ValueError("volumes are normalised before they are encoded: mean and std must be None")
        if self.spacing_mm is not None and (self.kind == "video" or min(self.spacing_mm) <= 0):
            raise ValueError(f"spacing_mm must be positive, and None for films, not {self.spacing_mm}")

    def facts(self) -> dict[str, Any]:
        """As a dictionary for files and fingerprints."""
        return dataclasses.asdict(self)

    @property
    def usage(self) -> str:
        """A line of Python for the model card."""
        values = "float32 (B, C, Z, Y, X)" if self.kind == "volume" else "uint8 (B, 3, T, Y, X)"
        return f"features = encoder.pooled({self.kind}s)  # {values} -> float (B, D)"

    def described(self) -> dict[str, str]:
        """Rows of the model card."""
        size, patch = (" x ".join(map(str, sides)) for sides in (self.size, self.patch))
        if self.kind == "video":
            interval = "as in each film" if self.frame_ms is None else f"{self.frame_ms:g} ms apart"
            return {
                "clip": f"{size} frames, rows, columns; uint8 RGB; normalisation is inside",
                "frames": interval,
                "patch": f"{patch} frames, rows, columns",
                "width": f"{self.dim}",
            }
        spacing = "each volume's own; say it with spacing_mm"
        if self.spacing_mm is not None:
            spacing = " x ".join(f"{side:g}" for side in self.spacing_mm) + " mm (z, y, x)"
        return {
            "spacing": spacing,
            "crop": f"{size} voxels (z, y, x), {self.channels} channel(s), float32 normalised by the intensity rule",
            "intensity": "not told" if self.intensity is None else json.dumps(dict(self.intensity)),
            "patch": f"{patch} voxels",
            "width": f"{self.dim}",
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> VolumeContract:
        """From what `facts` gave, or JSON made of it.

        Raises:
            TypeError, ValueError: It is something else.
        """
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()})

    def check(self, values: Tensor) -> None:
        """Refuse what the encoder was not made for: another type, other channels, sizes that are not whole patches."""
        dtype = torch.uint8 if self.kind == "video" else torch.float32
        if values.ndim != 5 or values.dtype != dtype or values.shape[1] != self.channels:
            raise ValueError(
                f"{self.kind}s must be {dtype} (B, {self.channels}, Z, Y, X), not {values.dtype} {tuple(values.shape)}"
            )
        grid_of(values.shape[2:], self.patch)

    def places(self, size: Sequence[int], spacing_mm: Tensor | Sequence[float] | None, device: torch.device) -> Tensor:
        """(1 or B, N, 3) places of the patches of crops of this size; see `token_places`.

        Raises:
            ValueError: Neither the contract nor the caller says how large a voxel is.
        """
        spacing: Tensor | Sequence[float] | None = film_spacing(self.patch)
        if self.kind == "volume":
            spacing = self.spacing_mm if spacing_mm is None else spacing_mm
        if spacing is None:
            raise ValueError("volumes of this encoder have no common spacing: say theirs with spacing_mm")
        if isinstance(spacing, Tensor):
            spacing = spacing.to(device)
        places = token_places(grid_of(size, self.patch), self.patch, spacing, device)
        return places if places.ndim == 3 else places[None]


def normaliser(contract: VolumeContract) -> nn.Module:
    """Patches as they are in the batch to what the network is given: bytes of films are normalised, volumes are."""
    if contract.mean is None or contract.std is None:
        return nn.Identity()
    return NormaliseBytes(contract.mean, contract.std, contract.patch)


class VolumeEncoder(nn.Module):
    """Our own transformer over volumes or films. Weights are frozen; `requires_grad_(True)` thaws them."""

    def __init__(self, vit: ViT, contract: VolumeContract, name: str) -> None:
        super().__init__()
        settings = vit.settings
        if not isinstance(settings, VolumeViTSettings) or (settings.patch, settings.channels, settings.dim) != (
            contract.patch,
            contract.channels,
            contract.dim,
        ):
            raise ValueError("the contract's patch, channels and dim must be the network's")
        self.vit = vit
        self.normalise = normaliser(contract)
        self.contract, self.name = contract, name
        self.requires_grad_(False).eval()

    def tokens(self, values: Tensor, spacing_mm: Tensor | Sequence[float] | None = None) -> Tensor:
        """All patch tokens of crops of any size in whole patches; positions are from the crop's centre.

        Args:
            values: (B, C, Z, Y, X): float32 volumes that `to_network` made, or uint8 films.
            spacing_mm: Millimetres per voxel along (z, y, x) of volumes at another spacing than the contract's; a
                (B, 3) tensor for one each. Films ignore it.

        Returns:
            (B, N, D) float, slice by slice and row by row.

        Raises:
            ValueError: Wrong type, number of channels or size; no spacing is known.
        """
        return self.vit(*self.patches_and_places(values, spacing_mm))

    def patches_and_places(
        self, values: Tensor, spacing_mm: Tensor | Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the network is given: (B, N, P) normalised patches and (1 or B, N, 3) places. As for `tokens`.

        `encoder.vit.attentions(*encoder.patches_and_places(values))` are its attention maps.
        """
        self.contract.check(values)
        patches_BNP = self.normalise(patchify3d(values, self.contract.patch))
        return patches_BNP, self.contract.places(values.shape[2:], spacing_mm, values.device)

    def pooled(self, values: Tensor, spacing_mm: Tensor | Sequence[float] | None = None) -> Tensor:
        """Mean patch token, (B, D). Arguments as for `tokens`."""
        return self.tokens(values, spacing_mm).mean(1)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the architecture, the weights or the contract."""
        return module_fingerprint(self.vit, self.settings_tree())

    def random_twin(self, seed: int) -> VolumeEncoder:
        """The same settings with weights drawn from this seed, on the same device."""
        twin = self.build(self.settings_tree(), name=f"{self.name}-random", seed=seed)
        return twin.to(next(self.parameters()).device)

    def settings_tree(self) -> dict[str, Any]:
        """Settings and contract, for a model folder's config.json."""
        return {"vit": self.vit.settings.model_dump(mode="json"), "contract": self.contract.facts()}

    @classmethod
    def build(cls, tree: Mapping[str, Any], name: str, seed: int = 0) -> VolumeEncoder:
        """The encoder that a `settings_tree` describes, with weights drawn from this seed.

        Raises:
            ValueError, TypeError, KeyError: The tree does not describe one.
        """
        settings, contract = VolumeViTSettings.model_validate(tree["vit"]), VolumeContract.of(tree["contract"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(ViT(settings), contract, name)
