"""Heads by their settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter
from torch import nn

from lamella.models.decoders.class_tokens import ClassTokenHead, ClassTokenSettings
from lamella.models.decoders.fpn import FpnHead, FpnSettings
from lamella.models.decoders.linear import LinearHead, LinearSettings
from lamella.models.decoders.mask2former import Mask2FormerHead, Mask2FormerSettings

AnyHeadSettings = FpnSettings | ClassTokenSettings | LinearSettings | Mask2FormerSettings
HeadSettings = Annotated[AnyHeadSettings, Field(discriminator="name")]
_ADAPTER: TypeAdapter[AnyHeadSettings] = TypeAdapter(HeadSettings)


def make_head(settings: AnyHeadSettings, widths: tuple[int, ...], classes: int) -> nn.Module:
    """A head, with fresh weights unless its settings name others: levels of these widths, finest first, to logits.

    Raises:
        LamellaError: The head does not fit the levels.
    """
    if isinstance(settings, Mask2FormerSettings):
        return Mask2FormerHead(settings, widths, classes)
    if isinstance(settings, FpnSettings):
        return FpnHead(settings, widths, classes)
    if isinstance(settings, ClassTokenSettings):
        return ClassTokenHead(settings, widths, classes)
    return LinearHead(settings, widths, classes)


def head_from(told: dict[str, object], widths: tuple[int, ...], classes: int) -> nn.Module:
    """The head that a config.json tells of.

    Raises:
        ValidationError: It tells of none.
    """
    return make_head(_ADAPTER.validate_python(told), widths, classes)
