"""Prototypes or exemplars of elsewhere for stage 2 of `lamella weak`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from lamella.data.bags import WeakStudy
from lamella.errors import LamellaError, first_line
from lamella.formats.exemplars import CLASS, COLUMNS, Exemplars, refuse_not_finite
from lamella.models.encoders import Encoder
from lamella.models.hub import load_encoder, portable_spec
from lamella.models.prototypes import (
    UNKNOWN,
    Prototypes,
    import_torch_prototypes,
    load_prototypes,
    read_torch_file,
)
from lamella.verbs.weak_stages.features import refuse_missing


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
    made_by = _encoder_of(place, encoder, found.dim)
    if place.is_dir() and found.fingerprint != made_by.fingerprint:
        raise LamellaError(
            place,
            f"another encoder than {made_by.name} made its features ({found.encoder})",
            "Leave prototypes.import_encoder out: the folder names its encoder.",
        )
    return replace(found, encoder=portable_spec(encoder), fingerprint=made_by.fingerprint)


def imported_exemplars(place: Path, encoder: str | None, study: WeakStudy) -> Exemplars | None:
    """The exemplars that the source's stage 1 kept, saved by `torch.save`; None where the place holds prototypes.

    Keys: `features` (N, D), `class_names` and, if known, `wsi_sources`. Their tiles are not in the file, so no picture
    can show them.

    Raises:
        LamellaError: The file cannot be read, is of other classes, or its parts do not fit.
    """
    if place.is_dir():
        return None
    held = read_torch_file(place)
    if "class_names" not in held or "k_list" in held:
        return None
    try:
        names = [str(name) for name in held["class_names"]]
        features_ND = np.asarray(held["features"].reshape(len(names), -1).float())
        slides = [str(name) for name in held.get("wsi_sources", [""] * len(names))]
        columns = {"slide_id": slides, CLASS: names}
        table = pa.table({name: columns.get(name, pa.nulls(len(names), pa.float64())) for name in COLUMNS})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, pa.ArrowException) as error:
        raise LamellaError(place, f"its parts do not fit together ({first_line(error)})", "Make it again.") from error
    unknown = sorted(set(names) - set(study.channels))
    if unknown:
        raise LamellaError(
            place, f"it holds exemplars of other classes ({', '.join(unknown)})", "Set class_order to its classes."
        )
    refuse_missing(table, study, "")
    refuse_not_finite(place, features_ND)
    record = {"encoder": UNKNOWN, "fingerprint": UNKNOWN, "tile_px": str(study.tile_px)}
    if encoder is not None:
        made_by = _encoder_of(place, encoder, features_ND.shape[1])
        record |= {"encoder": portable_spec(encoder), "fingerprint": made_by.fingerprint}
    return Exemplars(features_ND, table, record)


def _encoder_of(place: Path, encoder: str, dim: int) -> Encoder:
    """The encoder that is said to have made features so wide.

    Raises:
        LamellaError: It cannot be loaded, or its features have another width.
    """
    made_by = load_encoder(encoder)
    if made_by.contract.dim != dim:
        raise LamellaError(
            place,
            f"its features have {dim} numbers, those of {made_by.name} {made_by.contract.dim}",
            "Set prototypes.import_encoder to the encoder that made them.",
        )
    return made_by
