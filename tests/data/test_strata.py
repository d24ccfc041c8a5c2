from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from lamella.data.strata import training_order
from lamella.errors import LamellaError
from lamella.geometry import Frame
from lamella.slides.index import IndexedSlide

ROWS = 5


def catalogue(**slides: dict[str, str]) -> SimpleNamespace:
    """A catalogue of ROWS anchors on each slide, slide name -> metadata; row r lies on slide r // ROWS."""
    frame = Frame(100, 100, 0.5, 0.5)
    index = [
        IndexedSlide(name, Path(f"{name}.tif"), Path(f"{name}.png"), frame, frame, (), metadata)
        for name, metadata in slides.items()
    ]
    shards = [(name, number * ROWS, ROWS) for number, name in enumerate(slides)]

    class Listed(SimpleNamespace):
        def __len__(self) -> int:
            return len(slides) * ROWS

    return Listed(index=index, shards=shards)


def drawn(order: object, positions: int) -> Counter[int]:
    """How often each slide, by its number, comes in the first positions."""
    return Counter(order.at(position)[1] // ROWS for position in range(positions))


SPLITS = {
    "a": {"split": "train", "patient": "p1"},
    "b": {"split": "test", "patient": "p2"},
    "c": {"split": "train", "patient": "p2"},
    "d": {"patient": "p3"},
    "e": {},
}


def test_held_out_slides_and_their_patients_stay_out() -> None:
    order = training_order(catalogue(**SPLITS), 0, exclude_split="test")
    assert len(order) == 3 * ROWS
    assert drawn(order, 3 * ROWS) == {0: ROWS, 3: ROWS, 4: ROWS}


def test_nothing_is_held_out_unless_asked() -> None:
    assert len(training_order(catalogue(**SPLITS), 0)) == 5 * ROWS


def test_a_catalogue_of_held_out_slides_only_is_an_error() -> None:
    with pytest.raises(LamellaError, match=r"none of its 10 anchors is left for training.*data\.exclude_split"):
        training_order(catalogue(b=SPLITS["b"], c=SPLITS["c"]), 0, exclude_split="test")


def test_sites_of_different_size_are_drawn_equally_often() -> None:
    sites = {"a": {"site": "x"}, "b": {"site": "x"}, "c": {"site": "x"}, "d": {"site": "y"}}
    counts = drawn(training_order(catalogue(**sites), 0, balance_by="site"), 2 * 3 * ROWS)
    assert counts == {0: ROWS, 1: ROWS, 2: ROWS, 3: 3 * ROWS}


@pytest.mark.parametrize(
    ("column", "remedy"),
    [("sight", r"Did you mean site\?"), ("organ", r"Fill that manifest column .* columns: site\.")],
)
def test_a_column_to_balance_by_that_is_missing_is_an_error(column: str, remedy: str) -> None:
    with pytest.raises(LamellaError, match=rf"a: it has no `{column}`, .*{remedy}"):
        training_order(catalogue(a={"site": "x"}), 0, balance_by=column)
