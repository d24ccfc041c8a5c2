"""Lesions found at a bearable number of false alarms: FROC from maps of lesion probability.

A candidate is a connected component of the map above a threshold; its score is the largest probability in it. It hits a
true lesion if its centroid (rounded to a pixel) lies in the lesion, or in the lesion's box where lesions are boxed.
Several candidates in one lesion are one hit; a candidate in no lesion is a false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lamella.formats.label_values import NOT_LABELLED

RULE = "a candidate hits a lesion if its centroid lies in it"
RATES = (0.5, 1.0, 2.0, 4.0)
_LOWEST = 0.1  # of a map: what lies below is no candidate of anything


@dataclass(frozen=True)
class Found:
    """One image: each lesion's best score (0 = missed at every threshold), and the scores of the false alarms."""

    lesions: np.ndarray
    alarms: np.ndarray


def candidates(chance: np.ndarray, threshold: float = 0.5, least: int = 1) -> list[tuple[tuple[float, ...], float]]:
    """(centroid, score) of the connected components (faces and corners touch) of at least `least` pixels.

    Args:
        chance: (Y, X) or (Z, Y, X) probability of a lesion.
        threshold: Pixels above it are connected; lowered for maps that stay below it, so that ranking is possible.
        least: Pixels of a component.
    """
    cut = threshold if (chance > threshold).any() else max(_LOWEST, float(chance.max()) / 2)
    labelled, count = ndimage.label(chance > cut, structure=np.ones((3,) * chance.ndim))
    if not count:
        return []
    numbers = np.arange(1, count + 1)
    sizes = ndimage.sum_labels(np.ones_like(labelled), labelled, numbers)
    centres = ndimage.center_of_mass(labelled > 0, labelled, numbers)
    scores = ndimage.maximum(chance, labelled, numbers)
    return [
        (tuple(map(float, centre)), float(score))
        for centre, score, size in zip(centres, scores, sizes, strict=True)
        if size >= least
    ]


def match_mask(found: Sequence[tuple[tuple[float, ...], float]], mask: np.ndarray) -> Found:
    """Candidates against the connected components of the true mask (0 is none; nothing is asked where NOT_LABELLED)."""
    ignored = mask == NOT_LABELLED
    lesions, count = ndimage.label((mask != 0) & ~ignored, structure=np.ones((3,) * mask.ndim))
    best, alarms = np.zeros(count), []
    for centre, score in found:
        place = tuple(min(max(round(at), 0), side - 1) for at, side in zip(centre, mask.shape, strict=True))
        lesion = int(lesions[place])
        if lesion:
            best[lesion - 1] = max(best[lesion - 1], score)
        elif not ignored[place]:
            alarms.append(score)
    return Found(best, np.array(alarms))


def match_boxes(
    found: Sequence[tuple[tuple[float, ...], float]], boxes: Sequence[tuple[float, float, float, float]]
) -> Found:
    """Candidates (y, x) against boxes (x0, y0, x1, y1), the right and lower edges included."""
    best, alarms = np.zeros(len(boxes)), []
    for (y, x), score in found:  # type: ignore[misc]
        inside = [n for n, (x0, y0, x1, y1) in enumerate(boxes) if x0 <= x <= x1 and y0 <= y <= y1]
        if not inside:
            alarms.append(score)
        for number in inside:
            best[number] = max(best[number], score)
    return Found(best, np.array(alarms))


def sensitivity(images: Sequence[Found], rate: float, weights_SN: np.ndarray) -> np.ndarray:
    """(S,) share of lesions found at the lowest threshold with at most `rate` false alarms an image.

    The threshold is set on each weighting of the images anew. NaN without lesions.
    """
    lesion, lesion_at = _flat([image.lesions for image in images])
    alarm, alarm_at = _flat([image.alarms for image in images])
    order = np.argsort(-alarm, kind="stable")
    alarm, alarm_at = alarm[order], alarm_at[order]
    total_S = weights_SN.sum(1)
    lesions_S = weights_SN[:, lesion_at].sum(1)
    # How many alarms of highest score are allowed: all lesions that score above the next one count.
    raised_SA = weights_SN[:, alarm_at].cumsum(1) > rate * total_S[:, None] + 1e-9
    first = np.where(raised_SA.any(1), raised_SA.argmax(1), len(alarm)) if len(alarm) else np.zeros(len(total_S), int)
    limit_S = np.r_[alarm, 0.0][np.minimum(first, len(alarm))]
    hit_S = ((lesion[None] > limit_S[:, None]) * weights_SN[:, lesion_at]).sum(1)
    return np.divide(hit_S, lesions_S, out=np.full(len(hit_S), np.nan), where=lesions_S > 0)


def _flat(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All values, and the image of each."""
    values = np.concatenate([np.zeros(0), *parts])
    return values, np.repeat(np.arange(len(parts)), [len(part) for part in parts])
