"""Under which conditions expression was judged: numbers of different conditions never share a table.

The hash is of the judged places and their truth, the genes, patients and resolutions, and of the settings of the
measures. Two tables with the same hash can be read side by side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lamella.metrics.genes.scores import GeneScores
from lamella.metrics.genes.settings import GeneMetricSettings

# Raised when a measure changes its meaning.
VERSION = 1
_HEX = 16


class GeneReportError(ValueError):
    """A table of expression would say less than it must. A fault of the code that makes it, not of the user."""


def protocol(scores: GeneScores, settings: GeneMetricSettings) -> dict[str, Any]:
    """The conditions as plain values, with their hash under `hash`.

    Args:
        scores: Any predictor's of the table: `refuse_mixed` has them share their places and truth.
        settings: Of the measures.
    """
    facts: dict[str, Any] = {
        "version": VERSION,
        "settings": settings.model_dump(mode="json"),
        "patients": list(scores.patients),
        "genes": len(scores.genes),
        "scales": sorted({slide.scale for slide in scores.slides}),
        "resolutions_um": list(scores.resolutions),
        "slides": sorted(
            (
                {
                    "slide_id": slide.slide_id,
                    "patient": slide.patient,
                    "resolution_um": slide.resolution_um,
                    "places": slide.n,
                    "truth": slide.truth_digest,
                }
                for slide in scores.slides
            ),
            key=lambda each: (each["slide_id"], each["resolution_um"]),
        ),
    }
    text = json.dumps([facts, sorted(scores.genes)], sort_keys=True)
    return {**facts, "hash": hashlib.sha256(text.encode()).hexdigest()[:_HEX]}


def refuse_mixed(results: Mapping[str, GeneScores]) -> None:
    """Refuse predictors that were not judged by the same truth at the same places.

    Raises:
        GeneReportError: Names the predictor and what differs.
    """
    if not results:
        raise GeneReportError("no predictor was scored")
    first_name, first = next(iter(results.items()))
    expected = {(each.slide_id, each.resolution_um): each.truth_digest for each in first.slides}
    for name, scores in results.items():
        found = {(each.slide_id, each.resolution_um): each.truth_digest for each in scores.slides}
        if set(found) != set(expected):
            odd = sorted(set(found) ^ set(expected))[0]
            raise GeneReportError(f"{name} and {first_name} were not scored on the same slides: {odd}")
        for key, digest in found.items():
            if digest != expected[key]:
                raise GeneReportError(f"{name} and {first_name} were judged by different truths or places of {key}")
