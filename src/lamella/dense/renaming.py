"""A dense model whose channels go by other names: those of the study that it is compared in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from lamella.models.dense_contract import DenseContract, DenseModel


class Renamed:
    """The model with other names for some of its channels; nothing else changes.

    Args:
        model: Any.
        names: The model's name of a channel -> the new one. Channels that are not named keep theirs.
    """

    def __init__(self, model: DenseModel, names: Mapping[str, str]) -> None:
        self._model, contract = model, model.contract
        background = contract.background
        self.contract: DenseContract = replace(
            contract,
            channels=tuple(names.get(name, name) for name in contract.channels),
            background=None if background is None else names.get(background, background),
        )

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def fingerprint(self) -> str:
        return self._model.fingerprint

    def maps(self, images: Tensor) -> Tensor:
        """As the model's own."""
        return self._model.maps(images)

    def to(self, device: Any) -> Renamed:
        self._model.to(device)
        return self
