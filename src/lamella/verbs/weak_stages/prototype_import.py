"""Prototypes of elsewhere for stage 2 of `lamella weak`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lamella.errors import LamellaError
from lamella.models.hub import load_encoder, portable_spec
from lamella.models.prototypes import Prototypes, import_torch_prototypes, load_prototypes


def imported(place: Path, encoder: str | None, channels: tuple[str, ...], classes: tuple[str, ...]) -> Prototypes:
    """Prototypes of a folder or a file, in the order of the channels.

    Args:
        place: A folder of stage 2, or a file of torch.save.
        encoder: What made the features of a file; None if that is not known.
        channels: The classes, then the background if there is one.
        classes: Those that must have prototypes.

    Raises:
        LamellaError: They are of other classes, or not as wide as the encoder's features.
    """
    found = load_prototypes(place) if place.is_dir() else import_torch_prototypes(place)
    there = set(found.classes)
    wrong = [f"{name} is missing" for name in classes if name not in there]
    wrong += [f"{name} is unknown" for name in found.classes if name not in channels]
    if wrong:
        raise LamellaError(
            place, f"it holds prototypes of other classes ({'; '.join(wrong)})", "Set class_order to its classes."
        )
    found = found.ordered([name for name in channels if name in there])
    if encoder is None:
        return found
    made_by = load_encoder(encoder)
    if made_by.contract.dim != found.dim:
        raise LamellaError(
            place,
            f"its features have {found.dim} numbers, those of {made_by.name} {made_by.contract.dim}",
            "Set prototypes.import_encoder to the encoder that made them.",
        )
    if place.is_dir() and found.fingerprint != made_by.fingerprint:
        raise LamellaError(
            place,
            f"another encoder than {made_by.name} made its features ({found.encoder})",
            "Leave prototypes.import_encoder out: the folder names its encoder.",
        )
    return replace(found, encoder=portable_spec(encoder), fingerprint=made_by.fingerprint)
