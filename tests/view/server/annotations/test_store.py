from __future__ import annotations

import errno
import gzip
import json
import multiprocessing
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.view.server.annotations.conftest import box, change, uid

from lamella.errors import LamellaError, StorageError
from lamella.formats.annotation_folder import read_annotated_slides
from lamella.formats.geojson import as_feature, read_geojson
from lamella.geometry import Frame
from lamella.view.server.annotations import versions
from lamella.view.server.annotations.merge import ConflictError
from lamella.view.server.annotations.store import AnnotationStore

SHORT = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}


def places(store: AnnotationStore, author: str = "anna") -> dict[str, float]:
    """Left side of each object, as a new store reads it from the disk."""
    objects = AnnotationStore(store.folder).version("s", author).objects
    return {name: item.bounds_px0()[0] for name, item in objects.items()}


def test_what_is_saved_is_qupaths_geojson(store, slide):
    version, others = store.save(slide, "anna", change(0, box(1, 10), box(2, 30)))
    assert (version.number, others) == (1, False)
    found = {item.object_id: item for item in read_geojson(store.folder / "s" / "anna.geojson")}
    assert list(found) == [uid(1), uid(2)]
    assert found[uid(2)].classification == "gland"
    assert found[uid(2)].bounds_px0() == (30, 10, 35, 15)


def test_the_slide_is_recorded(store, slide):
    store.save(slide, "anna", change(0, box(1)))
    entry = read_annotated_slides(store.folder)["s"]
    assert entry.frame == slide.frame
    assert entry.path.resolve() == slide.path.resolve()


def test_annotations_of_another_slide_of_that_name_are_not_mixed(store, slide):
    store.save(slide, "anna", change(0, box(1)))
    with pytest.raises(LamellaError, match=r"drawn on s\.svs, 1000 x 800 pixels, and this slide has 1000 x 900"):
        store.save(replace(slide, frame=Frame(1000, 900, 0.5, 0.5)), "anna", change(1, box(2)))
    assert places(store) == {uid(1): 10}


def test_a_corrected_spacing_and_a_moved_slide_are_noted(store, slide, tmp_path):
    store.save(slide, "anna", change(0, box(1)))
    moved = replace(slide, path=tmp_path / "else" / "s.svs", frame=Frame(1000, 800, 0.25, 0.25))
    store.save(moved, "anna", change(1, box(2)))
    entry = read_annotated_slides(store.folder)["s"]
    assert (entry.path.resolve(), entry.frame.mpp_x) == (moved.path.resolve(), 0.25)


def test_every_version_is_kept(store, slide):
    store.save(slide, "anna", change(0, box(1, 10)))
    store.save(slide, "anna", change(1, box(1, 20), box(2, 50)))
    store.save(slide, "anna", change(2, deletes=(1,)))
    kept = store.folder / "s" / "history" / "anna"
    lefts = [[item.bounds_px0()[0] for item in read_geojson(path)] for path in sorted(kept.iterdir())]
    assert lefts == [[10], [20, 50], [50]]
    assert gzip.decompress((kept / "000003.geojson.gz").read_bytes()) == (store.folder / "s/anna.geojson").read_bytes()


def test_a_save_that_changes_nothing_makes_no_version(store, slide):
    store.save(slide, "anna", change(0, box(1)))
    assert store.save(slide, "anna", change(1, box(1)))[0].number == 1
    assert store.save(slide, "anna", change(1, deletes=(7,)))[0].number == 1


def test_changes_of_different_objects_merge(store, slide):
    store.save(slide, "anna", change(0, box(1, 10), box(2, 30), box(3, 50)))
    store.save(slide, "anna", change(1, box(1, 11), deletes=(3,)))
    version, others = store.save(slide, "anna", change(1, box(2, 31), box(4, 70)))
    assert (version.number, others) == (3, True)
    assert places(store) == {uid(1): 11, uid(2): 31, uid(4): 70}


@pytest.mark.parametrize("first", [change(1, box(1, 11)), change(1, deletes=(1,))])
@pytest.mark.parametrize("second", [change(1, box(1, 12), box(2, 30)), change(1, box(2, 30), deletes=(1,))])
def test_changes_of_one_object_conflict_and_nothing_is_saved(store, slide, first, second):
    store.save(slide, "anna", change(0, box(1, 10)))
    store.save(slide, "anna", first)
    there = store.version("s", "anna").objects
    if first.deletes == second.deletes == {uid(1)}:
        assert store.save(slide, "anna", second)[0].number == 3  # both removed it
        return
    with pytest.raises(ConflictError) as error:
        store.save(slide, "anna", second)
    assert error.value.conflicts == {uid(1): as_feature(there[uid(1)], "") if there else None}
    assert places(store) == {name: item.bounds_px0()[0] for name, item in there.items()}


def test_a_request_whose_answer_was_lost_can_be_repeated(store, slide):
    store.save(slide, "anna", change(0, box(1)))
    wanted = change(1, box(1, 20), box(2, 40), deletes=(3,))
    store.save(slide, "anna", wanted)
    assert store.save(slide, "anna", wanted)[0].number == 2


def test_authors_do_not_mix(store, slide):
    store.save(slide, "anna", change(0, box(1, 10)))
    store.save(slide, "Bob M. Müller", change(0, box(1, 20)))
    assert store.authors("s") == ["Bob M. Müller", "anna"]
    assert (places(store), places(store, "Bob M. Müller")) == ({uid(1): 10}, {uid(1): 20})


def test_a_file_edited_elsewhere_is_the_next_version(store, slide):
    store.save(slide, "anna", change(0, box(1, 10), box(2, 30)))
    file = store.folder / "s" / "anna.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [box(1, 15)]}))  # by QuPath
    edited = file.read_bytes()
    assert store.version("s", "anna").number == 2
    assert places(store) == {uid(1): 15}
    with pytest.raises(ConflictError):
        store.save(slide, "anna", change(1, box(1, 11)))
    assert store.save(slide, "anna", change(2, box(3, 70)))[0].number == 3
    assert places(store) == {uid(1): 15, uid(3): 70}
    assert gzip.decompress((store.folder / "s/history/anna/000002.geojson.gz").read_bytes()) == edited


def test_objects_without_ids_get_the_same_ones_every_time(store, slide):
    file = store.folder / "s" / "anna.geojson"
    file.parent.mkdir(parents=True)
    plain = {name: value for name, value in box(1).items() if name != "id"}
    file.write_text(json.dumps([plain, plain, {**box(2), "id": "PathAnnotationObject"}]))
    first = places(store)
    assert len(first) == 3
    assert places(store) == first


def test_a_machine_that_dies_before_the_history_is_written_loses_nothing(store, slide, monkeypatch):
    store.save(slide, "anna", change(0, box(1, 10)))

    def dies(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(versions.AuthorFile, "_keep", dies)
        with pytest.raises(StorageError, match="disk is full"), versions.storage_faults("disk"):
            store.save(slide, "anna", change(1, box(2, 30)))
    assert store.save(slide, "anna", change(1, box(2, 30)))[0].number == 2  # the page tries again
    assert places(store) == {uid(1): 10, uid(2): 30}


def test_a_damaged_file_is_refused_by_feature_and_the_rest_works(store, slide):
    store.save(slide, "anna", change(0, box(1)))
    file = store.folder / "s" / "bob.geojson"
    file.write_text(json.dumps([box(1), {**box(2), "geometry": SHORT}]))
    before = file.read_bytes()
    with pytest.raises(LamellaError, match=r"bob\.geojson: feature 2"):
        store.version("s", "bob")
    with pytest.raises(LamellaError, match="feature 2"):
        store.save(slide, "bob", change(0, box(3)))
    assert file.read_bytes() == before
    assert store.version("s", "anna").number == 1


def save_many(folder: Path, slide, first: int, count: int) -> None:
    """As `count` pages do that were all opened before anything was saved."""
    store = AnnotationStore(folder)
    for number in range(first, first + count):
        store.save(slide, "anna", change(0, box(number, 10 + number)))


def test_concurrent_saves_of_threads_lose_nothing(store, slide):
    threads = [threading.Thread(target=save_many, args=(store.folder, slide, 2 * at, 2)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert places(store) == {uid(at): 10 + at for at in range(24)}
    assert store.version("s", "anna").number == 24
    assert len(list((store.folder / "s" / "history" / "anna").iterdir())) == 24


def test_concurrent_saves_of_processes_lose_nothing(store, slide):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=save_many, args=(store.folder, slide, 6 * at, 6)) for at in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert places(store) == {uid(at): 10 + at for at in range(18)}
    assert store.version("s", "anna").number == 18


@pytest.fixture
def written():
    """Paths that this process opens to write to, renames or makes, whoever does it."""
    paths: list[Path] = []
    watching = True

    def watch(event: str, values: tuple) -> None:
        if not watching:
            return
        if (
            event == "open"
            and isinstance(values[0], str | bytes)
            and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            paths.append(Path(os.fsdecode(values[0])))
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink"):
            paths.extend(Path(os.fsdecode(value)) for value in values if isinstance(value, str | bytes))

    sys.addaudithook(watch)
    yield paths
    watching = False  # a hook cannot be taken off


def test_nothing_is_written_outside_the_folder(store, slide, written):
    names = ("s", "../../etc/passwd", "..", "a/b", "queue.json")
    for name in names:
        store.save(replace(slide, name=name), "anna", change(0, box(1)))
        store.save(replace(slide, name=name), "anna", change(1, box(2)))
    store.set_done("s 1 2 3 4", "anna")
    assert len(written) > 4 * len(names)
    assert [path for path in written if not path.is_relative_to(store.folder)] == []
    assert len([path for path in store.folder.iterdir() if path.is_dir()]) == len(names)  # each slide its own


BAD_NAMES = ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "x ", "a\nb", "a\0b", "x" * 49, "a*"]


@pytest.mark.parametrize("author", BAD_NAMES)
def test_names_that_are_no_files_are_refused(store, slide, author):
    with pytest.raises(LamellaError, match="cannot be the name of a file"):
        store.save(slide, author, change(0, box(1)))
    assert not store.folder.exists()


@pytest.mark.parametrize("link", ["s", "s/history/anna", "s/anna.geojson"])
def test_links_out_of_the_folder_are_refused(store, slide, tmp_path, link):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "anna.geojson").write_text("[]")
    place = store.folder / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere / "anna.geojson" if link.endswith(".geojson") else elsewhere)
    for ask in (lambda: store.version("s", "anna"), lambda: store.save(slide, "anna", change(0, box(1)))):
        with pytest.raises(LamellaError, match="leads out of the annotation folder"):
            ask()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["anna.geojson"]


def test_a_read_only_disk_says_so(store, slide, monkeypatch):
    real = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="file system is read-only"):
        store.save(slide, "anna", change(0, box(1)))
    assert "cannot be written to" in store.refusal()


def test_colours_of_classes_are_known_on_all_slides(store, slide):
    store.save(slide, "anna", change(0, box(1), box(2, name="stroma: loose")))
    assert store.classes() == {"gland": "#e69f00", "stroma: loose": "#e69f00"}


def test_done_places_are_kept_and_taken_back(store):
    store.set_done("s 1 2 3 4", "anna")
    store.set_done("s 5 6 7 8", "bob")
    store.set_done("s 1 2 3 4", None)
    assert AnnotationStore(store.folder).done() == {"s 5 6 7 8": "bob"}
