"""Files appear whole or not at all."""

import errno
import json
from pathlib import Path

import pytest

from lamella.errors import StorageError
from lamella.formats import atomic
from lamella.formats.atomic import remove_parts, whole_file, write_json, write_text


def test_the_new_file_takes_the_place_of_the_old_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_part(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def half_written():
        with whole_file(path) as part:
            part.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        half_written()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        write_text(path, "new")
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_bytes_again_leave_the_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "same")
    before = path.stat()
    write_text(path, "same")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_text(path, "sane")  # the same length in the same tick of the clock is still another file
    assert path.read_text() == "sane"


def test_the_suffix_stays_last_for_writers_that_choose_by_it(tmp_path):
    with whole_file(tmp_path / "a.tiff") as part:
        assert part.suffix == ".tiff"
        part.write_text("x")
    assert (tmp_path / "a.tiff").exists()


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"loss": 1.5})
    assert json.loads(Path(tmp_path / "a.json").read_text()) == {"loss": 1.5}


def test_two_writers_of_one_file_never_share_a_part(tmp_path):
    with whole_file(tmp_path / "a.txt") as one, whole_file(tmp_path / "a.txt") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_parts_of_killed_processes_are_told_from_other_files(tmp_path):
    with whole_file(tmp_path / "deep" / "b.h5") as part:
        part.touch()
        left = part.with_name(part.name.replace(".b.", ".c."))
        left.touch()
    (tmp_path / ".config.part.yaml").touch()
    (tmp_path / "a.part").touch()
    assert remove_parts(tmp_path) == [left]
    there = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert there == [".config.part.yaml", "a.part", "b.h5"]
