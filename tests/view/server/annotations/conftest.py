from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from lamella.formats.annotation_folder import AnnotatedSlide
from lamella.geometry import Frame
from lamella.view.server.annotations.merge import Change
from lamella.view.server.annotations.objects import read_objects
from lamella.view.server.annotations.store import AnnotationStore


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


def box(number: int, x: float = 10, *, name: str = "gland", side: float = 5) -> dict:
    """The feature of object `number`: a square."""
    ring = [[x, 10], [x + side, 10], [x + side, 10 + side], [x, 10 + side], [x, 10]]
    return {
        "type": "Feature",
        "id": uid(number),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": [230, 159, 0]}},
    }


def change(base: int, *features: dict, deletes: tuple[int, ...] = ()) -> Change:
    return Change(base, read_objects("test", features), frozenset(map(uid, deletes)))


@pytest.fixture
def slide(tmp_path: Path) -> AnnotatedSlide:
    return AnnotatedSlide("s", tmp_path / "slides" / "s.svs", Frame(1000, 800, 0.5, 0.5))


@pytest.fixture
def store(tmp_path: Path) -> AnnotationStore:
    return AnnotationStore(tmp_path / "annotations")
