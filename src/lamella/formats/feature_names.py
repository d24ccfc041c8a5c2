"""The genes of a feature-barcode matrix: which of its features they are, and names that nobody shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lamella.formats.spatial_counts import ExpressionError

GENES = "Gene Expression"  # what 10x calls the features that are genes; antibodies and controls are others
_SHOWN = 5


class Chosen(NamedTuple):
    """Genes of a matrix.

    Attributes:
        columns: (G,) int64, the features' numbers.
        names: G names, unique.
        ids: G ids.
        whole: All features, in the file's order.
        notes: What was renamed or left aside.
    """

    columns: np.ndarray
    names: tuple[str, ...]
    ids: tuple[str, ...]
    whole: bool
    notes: tuple[str, ...]


def listed(names: Sequence[str], shown: int = _SHOWN) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def unique_names(names: Sequence[str], ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names that nobody shares: a name of several features is followed by the feature's id.

    Returns:
        The new names, and the names that several features shared.
    """
    often = Counter(names)
    shared = sorted(name for name, times in often.items() if times > 1)
    return [f"{name}_{key}" if often[name] > 1 else name for name, key in zip(names, ids, strict=True)], shared


def chosen_genes(
    path: Path | str, names: Sequence[str], ids: Sequence[str], kinds: Sequence[str], wanted: Sequence[str] | None
) -> Chosen:
    """The features that are genes, or those of them that are wanted.

    Args:
        path: For messages.
        names: Of all features.
        ids: Theirs.
        kinds: What each of them is; those other than genes are left aside, and said.
        wanted: Names (as they are after shared ones were told apart), in the order to have them; None for all.

    Raises:
        ExpressionError: Features share name and id, there are no genes, or some that are wanted are not there.
    """
    columns = np.flatnonzero(np.array(kinds) == GENES)
    if not len(columns):
        raise ExpressionError(
            path, f"none of its {len(names)} features is of the kind {GENES!r}", "Give the matrix of a gene run."
        )
    own_ids = [ids[column] for column in columns.tolist()]
    own, shared = unique_names([names[column] for column in columns.tolist()], own_ids)
    if len(set(own)) != len(own):
        twice = sorted(name for name, times in Counter(own).items() if times > 1)
        raise ExpressionError(
            path, f"several genes have the same name and id: {listed(twice)}", "Make the matrix again."
        )
    notes = []
    if len(columns) < len(names):
        notes.append(f"{len(names) - len(columns)} features that are no genes were left aside")
    if shared:
        notes.append(
            f"{len(shared)} gene names stand for several genes and were followed by their id: {listed(shared)}"
        )
    if wanted is not None:
        position = {name: number for number, name in enumerate(own)}
        absent = [gene for gene in wanted if gene not in position]
        if absent:
            raise ExpressionError(
                path,
                f"{len(absent)} of {len(wanted)} genes that are asked for are not in it: {listed(absent, 10)}",
                "Take them off the list, or give data in which they were measured.",
            )
        places = [position[gene] for gene in wanted]
        columns, own, own_ids = columns[places], list(wanted), [own_ids[place] for place in places]
    whole = len(columns) == len(names) and bool(np.array_equal(columns, np.arange(len(names))))
    return Chosen(columns, tuple(own), tuple(own_ids), whole, tuple(notes))
