"""Heads by their settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter
from torch import nn

from lamella.models.decoders.class_tokens import ClassTokenHead, ClassTokenSettings
from lamella.models.decoders.fpn import FpnHead, FpnSettings
from lamella.models.decoders.linear import LinearHead, LinearSettings

HeadSettings = Annotated[FpnSettings | ClassTokenSettings | LinearSettings, Field(discriminator="name")]
_ADAPTER: TypeAdapter[FpnSettings | ClassTokenSettings | LinearSettings] = TypeAdapter(HeadSettings)


def make_head(
    settings: FpnSettings | ClassTokenSettings | LinearSettings, widths: tuple[int, ...], classes: int
) -> nn.Module:
    """A head with fresh weights: levels of these widths, finest first, to logits on the finest grid."""
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
