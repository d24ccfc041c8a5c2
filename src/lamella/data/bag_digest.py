"""What a study holds, as a short text: outputs of a stage can tell whether slides, labels, split or tiles changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from lamella.data.bags import Bag, WeakStudy
from lamella.formats.digests import ends_digest, file_digest, value_digest


def study_digest(study: WeakStudy, bags: Sequence[Bag] | None = None, *, masks: bool = False) -> str:
    """16 hex digits of bags: slides' files, tiles, labels, groups, parts; not of where they lie.

    Args:
        study: What the bags are of.
        bags: Which; None: all.
        masks: Their pixel truth too, where a stage reads it.
    """
    return value_digest(
        {
            "classes": study.channels,
            "tiles": [study.mpp, study.tile_px],
            "masks": {name: list(values) for name, values in sorted(study.mask_values.items())} if masks else None,
            "bags": [_bag(bag, masks) for bag in (study.bags if bags is None else bags)],
        }
    )


def _bag(bag: Bag, masks: bool) -> list[Any]:
    tiles = hashlib.sha256(bag.corners_px0.astype("<f8").tobytes())
    if bag.tile_labels is not None:
        tiles.update(b"labels" + bag.tile_labels.tobytes())
    return [
        bag.slide_id,
        ends_digest(bag.wsi_path),
        bag.mpp_stated,
        tiles.hexdigest()[:16],
        bag.labels,
        bag.group,
        bag.part,
        file_digest(bag.mask_path) if masks and bag.mask_path is not None else None,
    ]
