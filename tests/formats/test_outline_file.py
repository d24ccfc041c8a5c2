"""Outlines come back as they are in the GeoJSON; those of another file are passed over, damaged ones are refused."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import LamellaError, StorageError
from lamella.formats import digests, outline_file
from lamella.formats.geojson import GeoObject, read_geojson, write_geojson
from lamella.formats.json_stream import iterate_features
from lamella.formats.outline_arrays import COLUMNS, LINES, NO_CLASS, POINTS, POLYGON, GrowingOutlines, OutlineArrays
from lamella.formats.outline_file import open_outlines, outlines_beside, write_objects


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])


def some_objects() -> list[GeoObject]:
    return [
        GeoObject(
            polygons=((square(1000.123, 100, 100), square(1020, 120, 30)),), classification="a", colour=(1, 2, 3)
        ),
        GeoObject(polygons=((square(300, 300, 20),), (square(340, 300, 20),)), classification="b"),
        GeoObject(points=np.array([[50.0, 60.0], [70.0, 60.0]]), classification="a"),
        GeoObject(lines=(np.array([[500.0, 500.0], [600.0, 560.0]]),)),
    ]


def squares(count: int) -> list[GeoObject]:
    return [GeoObject(polygons=((square(20 * n, n, 8),),), classification=f"class {n % 3}") for n in range(count)]


def read(path: Path) -> OutlineArrays:
    """As they are without the outlines."""
    growing = GrowingOutlines()
    for number, feature in iterate_features(path):
        growing.add(path, number, feature)
    return growing.arrays()


def opened(path: Path) -> OutlineArrays:
    found = open_outlines(path)
    assert found is not None
    return found


def assert_same(one: OutlineArrays, other: OutlineArrays) -> None:
    for name, (dtype, _) in COLUMNS.items():
        assert getattr(one, name).dtype == getattr(other, name).dtype == np.dtype(dtype)
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.names, one.colours) == (other.names, other.colours)


def test_every_kind_comes_back_as_the_geojson_has_it(tmp_path):
    path = tmp_path / "objects.geojson.gz"
    assert write_objects(path, some_objects()) == [path, tmp_path / "objects.outlines"]
    write_geojson(tmp_path / "plain.geojson.gz", some_objects())
    assert path.read_bytes() == (tmp_path / "plain.geojson.gz").read_bytes()
    found = opened(path)
    assert_same(found, read(path))
    assert found.kinds.tolist() == [POLYGON, POLYGON, POINTS, LINES]
    assert (found.names, found.colours) == (("a", "b", NO_CLASS), ((1, 2, 3), None, None))
    assert (found.classes.tolist(), found.outer.tolist()) == ([0, 1, 0, 2], [True, False, True, True, True, True])
    hole = found.parts(0)[1]
    assert {tuple(corner) for corner in hole.tolist()} == {tuple(corner) for corner in square(1020, 120, 30).tolist()}
    assert found.bounds[0].tolist() == pytest.approx([1000.12, 100, 1100.12, 200], abs=1e-4)
    assert [tuple(box) for box in found.bounds[1:]] == [item.bounds_px0() for item in list(read_geojson(path))[1:]]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 40), held=st.integers(1, 60))
def test_whatever_is_held_in_memory_the_same_is_written(tmp_path_factory, count, held):
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outline_file, "_HELD", held)
        write_objects(folder / "a.geojson.gz", iter(squares(count)))
    write_objects(folder / "b.geojson.gz", squares(count))
    assert (folder / "a.outlines").read_bytes() == (folder / "b.outlines").read_bytes()
    assert_same(opened(folder / "a.geojson.gz"), read(folder / "a.geojson.gz"))
    assert len(opened(folder / "a.geojson.gz")) == count


def test_memory_holds_no_more_than_stated(tmp_path, monkeypatch):
    sizes: list[int] = []
    original = GrowingOutlines.take
    monkeypatch.setattr(outline_file, "_HELD", 100)
    monkeypatch.setattr(GrowingOutlines, "take", lambda self: sizes.append(len((t := original(self))["corners"])) or t)
    write_objects(tmp_path / "o.geojson.gz", squares(200))
    assert (sum(sizes), max(sizes)) == (800, 104)


def test_they_are_mapped_and_the_file_can_be_replaced_meanwhile(tmp_path):
    path = tmp_path / "o.geojson.gz"
    write_objects(path, squares(10))
    found, before = opened(path), read(path)
    assert not found.corners.flags.writeable
    assert not found.corners.flags.owndata
    write_objects(path, squares(3))
    assert_same(found, before)
    assert len(opened(path)) == 3


def test_the_same_objects_leave_the_files_alone(tmp_path):
    path = tmp_path / "o.geojson.gz"
    files = write_objects(path, squares(10))
    stamps = [file.stat().st_mtime_ns for file in files]
    write_objects(path, squares(10))
    assert [file.stat().st_mtime_ns for file in files] == stamps
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize("change", ["middle", "shorter", "packed anew", "none", "plain"])
def test_outlines_of_another_geojson_are_passed_over(tmp_path, monkeypatch, change):
    monkeypatch.setattr(digests, "_ENDS_BYTES", 2**12)  # so that a short file has a middle that is in neither end
    path = tmp_path / "o.geojson.gz"
    rng = np.random.default_rng(0)
    items = [GeoObject(polygons=((square(x, y, 8),),), classification="c") for x, y in rng.uniform(0, 9999, (1000, 2))]
    outlines = write_objects(path, items)[1]
    assert path.stat().st_size > 3 << 12
    if change == "middle":
        text = bytearray(gzip.decompress(path.read_bytes()))
        at = text.index(b'"c"', len(text) // 2) + 1
        text[at : at + 1] = b"d"
        path.write_bytes(gzip.compress(bytes(text), 6, mtime=0))
    elif change == "shorter":
        write_geojson(path, items[:-1])
    elif change == "packed anew":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9))
    elif change == "none":
        outlines.unlink()
    else:
        path = tmp_path / "o.geojson"
        write_geojson(path, items)
    assert open_outlines(path) is None


def test_a_changed_byte_at_the_same_size_shows_in_the_checksum_at_the_end(tmp_path):
    """Stored without compression a change in the middle moves nothing, and still the last bytes are others."""
    path = tmp_path / "o.geojson.gz"
    write_objects(path, squares(4000))
    text = gzip.decompress(path.read_bytes())
    ends = []
    for changed in (text, text.replace(b'"class 1"', b'"class 7"', 1)):
        path.write_bytes(gzip.compress(changed, 0, mtime=0))
        ends.append((path.stat().st_size, outline_file.ends_digest(path)))
    assert ends[0][0] == ends[1][0] > 3 << 16
    assert ends[0][1] != ends[1][1]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_leads_nowhere_wrong(tmp_path_factory, data):
    """Whatever byte is another: a refusal that names the file, or arrays that can be gone through."""
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    path = folder / "o.geojson.gz"
    write_objects(path, some_objects())
    whole = outlines_beside(path).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    torn = data.draw(st.booleans())
    changed = whole[:at] if torn else whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    outlines_beside(path).write_bytes(changed)
    try:
        found = open_outlines(path)
    except LamellaError as error:
        refused = str(error)
    else:
        assert not torn
        for number in range(0 if found is None else len(found)):
            assert found is not None
            assert all(len(part) for part in found.parts(number))
            assert found.names[found.classes[number]]
        return
    assert "o.outlines: it is damaged, or of another version" in refused


def test_of_objects_that_cannot_be_written_nothing_is(tmp_path):
    with pytest.raises(LamellaError, match="object 2: it has no geometry"):
        write_objects(tmp_path / "o.geojson.gz", [*squares(1), GeoObject()])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no name that ends"):
        write_objects(tmp_path / "o.geojson", [])


def test_a_full_disk_leaves_the_geojson_and_no_half_outlines(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(outline_file.shutil, "copyfileobj", full)
    with pytest.raises(StorageError):
        write_objects(tmp_path / "o.geojson.gz", squares(2))
    assert [path.name for path in tmp_path.iterdir()] == ["o.geojson.gz"]
    assert open_outlines(tmp_path / "o.geojson.gz") is None
