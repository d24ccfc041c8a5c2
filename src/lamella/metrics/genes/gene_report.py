"""What a report of expression holds, whichever file it is written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamella.metrics.genes.comparison import Difference
from lamella.metrics.genes.controls import Kind
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.metrics.genes.strata import GeneLine, StratumLine
from lamella.metrics.genes.summary import Summary


@dataclass(frozen=True)
class GeneReport:
    """Everything that the files hold.

    Attributes:
        title: Of the text.
        summary: Rows of the tables.
        differences: Between predictors.
        lines, strata: Of genes.
        kinds: Predictor -> what it is.
        protocol: With its hash.
        patients: Names.
        unjudged: Resolution -> reason -> `gene (slide)`.
        settings: Of the measures.
        warnings, notes: Sentences before and after the tables.
        facts: What was judged, and how.
        command: That repeats it.
        pictures: (file beside results.md, what it shows).
    """

    title: str
    summary: Summary
    differences: tuple[Difference, ...]
    lines: tuple[GeneLine, ...]
    strata: tuple[StratumLine, ...]
    kinds: Mapping[str, Kind]
    protocol: Mapping[str, Any]
    patients: tuple[str, ...]
    unjudged: Mapping[float, Mapping[str, Sequence[str]]]
    settings: GeneMetricSettings
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None
    command: str = ""
    pictures: tuple[tuple[str, str], ...] = ()
