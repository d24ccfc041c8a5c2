from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.dense.refining.test_crf import two_colours
from tests.dense.refining.test_windows import of, smooth_maps
from tests.dense.tiny_models import array_slide

from lamella.dense.refining import bands
from lamella.dense.refining.bands import refine_maps, refine_raster
from lamella.dense.refining.settings import CrfSettings, RefineSettings
from lamella.errors import LamellaError, OutputConflictError, StorageError
from lamella.formats.ome_zarr import LabelStore, ProbabilityStore, open_raster

NAMES = ("gland", "stroma", "background")
ALL_BUT_CRF = RefineSettings(min_component_size=30)


def stored(folder: Path, maps: np.ndarray, chunk: int = 16) -> Path:
    store = ProbabilityStore(folder / "probabilities.zarr", NAMES, *maps.shape[1:], 0.5, chunk)
    for y in range(0, maps.shape[1], chunk):
        store.write(y, maps[:, y : y + chunk])
    store.finish()
    return store.folder


def labels_of(out: Path) -> np.ndarray:
    return np.asarray(open_raster(out / "labels.zarr").levels[0][:])


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(100, 130), (16, 16), (33, 47), (7, 90)])
def test_a_slide_gets_the_labels_of_its_image_in_memory(tmp_path, shape, threads):
    maps = smooth_maps(3, 3, *shape, unseen=0.48)
    source = stored(tmp_path, maps)
    facts = refine_raster(source, None, ALL_BUT_CRF, tmp_path / "out", threads=threads, core_px=32)
    assert (labels_of(tmp_path / "out") == refine_maps(maps, None, ALL_BUT_CRF, 2)).all()
    assert (labels_of(tmp_path / "out") != maps.argmax(0))[maps.any(0)].any()
    assert facts["classes"] == list(NAMES)
    assert open_raster(tmp_path / "out" / "labels.zarr").names == NAMES
    assert open_raster(tmp_path / "out" / "labels.zarr").frame == open_raster(source).frame
    assert not list((tmp_path / "out").glob(".labels*"))


def test_with_a_crf_it_sees_the_slide_at_the_rasters_resolution(tmp_path):
    """The slide is twice as fine, and windows are the same as in memory: so are the labels, to the bit."""
    picture, _ = two_colours(90, 120)
    maps = smooth_maps(5, 3, 90, 120, unseen=0.47)
    given = of(use_crf=True, crf=CrfSettings(alike_px=6), morphological_op="closing", min_component_size=20)
    slide = array_slide(picture.repeat(2, 0).repeat(2, 1), 0.25)
    refine_raster(stored(tmp_path, maps), slide, given, tmp_path / "out", core_px=48)
    wanted = refine_maps(maps, picture, given, 2, core_px=48)
    assert (labels_of(tmp_path / "out") == wanted).all()
    assert (wanted != refine_maps(maps, picture, of(min_component_size=20), 2)).mean() > 0.01


def test_windows_where_nobody_looked_are_not_read(tmp_path):
    picture, _ = two_colours(64, 64)
    maps = smooth_maps(5, 3, 64, 64)
    maps[:, 16:] = 0
    slide = array_slide(picture)
    boxes = []
    slide.reader.read_level = (
        lambda level, x, y, width, height: (  # type: ignore[method-assign]
            boxes.append((y, height)) or picture[y : y + height, x : x + width]
        )
    )
    given = of(use_crf=True, crf=CrfSettings(alike_px=2, near_px=2))
    refine_raster(stored(tmp_path, maps), slide, given, tmp_path / "out", core_px=16)
    assert boxes
    assert max(y + height for y, height in boxes) <= 16 + 6
    assert (labels_of(tmp_path / "out")[16:] == 255).all()


@pytest.mark.parametrize("stage", [".labels-with-small-pieces.zarr", "labels.zarr"])
def test_after_a_full_disk_it_goes_on_and_ends_the_same(tmp_path, monkeypatch, stage):
    maps = smooth_maps(3, 3, 100, 60)
    source = stored(tmp_path, maps)
    refine_raster(source, None, ALL_BUT_CRF, tmp_path / "whole", core_px=16)
    write, written = LabelStore.write, []

    def fills_up(self: LabelStore, y0: int, band: np.ndarray) -> None:
        if self.folder.name == stage:
            if len(written) == 3:
                raise StorageError(self.folder, "the disk is full", "Make room.")
            written.append(y0)
        write(self, y0, band)

    monkeypatch.setattr(LabelStore, "write", fills_up)
    with pytest.raises(StorageError):
        refine_raster(source, None, ALL_BUT_CRF, tmp_path / "out", core_px=16)
    again: list[tuple[str, int]] = []
    monkeypatch.setattr(
        LabelStore, "write", lambda self, y0, band: (again.append((self.folder.name, y0)), write(self, y0, band))[1]
    )
    refine_raster(source, None, ALL_BUT_CRF, tmp_path / "out", core_px=16)
    assert [y0 for name, y0 in again if name == stage] == [48, 64, 80, 96], "three bands were there"
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    monkeypatch.setattr(LabelStore, "write", fills_up)
    refine_raster(source, None, ALL_BUT_CRF, tmp_path / "out", core_px=16)  # done: nothing is written


def test_a_run_that_was_killed_after_its_labels_were_whole_ends_the_same(tmp_path, monkeypatch):
    maps = smooth_maps(3, 3, 100, 60)
    source = stored(tmp_path, maps)
    refine_raster(source, None, ALL_BUT_CRF, tmp_path / "whole", core_px=16)

    def killed(folder: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bands.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        refine_raster(source, None, ALL_BUT_CRF, tmp_path / "out", core_px=16)
    monkeypatch.undo()
    refine_raster(source, None, ALL_BUT_CRF, tmp_path / "out", core_px=16)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_other_settings_or_other_probabilities_never_take_old_labels_for_theirs(tmp_path):
    maps = smooth_maps(3, 3, 40, 60)
    source, out = stored(tmp_path, maps), tmp_path / "out"
    refine_raster(source, None, ALL_BUT_CRF, out)
    before = files(out)
    with pytest.raises(OutputConflictError, match="min_component_size"):
        refine_raster(source, None, RefineSettings(min_component_size=31), out)
    shutil.rmtree(source)
    maps[:2, 30, 30] = maps[1::-1, 30, 30]
    stored(tmp_path, maps)
    with pytest.raises(OutputConflictError, match="probabilities"):
        refine_raster(source, None, ALL_BUT_CRF, out)
    assert files(out) == before


def test_a_slide_of_background_only_and_one_that_nobody_looked_at_have_defined_labels(tmp_path):
    maps = np.zeros((3, 40, 50), np.uint8)
    refine_raster(stored(tmp_path / "a", maps), None, ALL_BUT_CRF, tmp_path / "a" / "out")
    assert (labels_of(tmp_path / "a" / "out") == 255).all()
    maps[2] = 255
    slide = array_slide(two_colours(40, 50)[0])
    refine_raster(stored(tmp_path / "b", maps), slide, RefineSettings(use_crf=True), tmp_path / "b" / "out")
    assert (labels_of(tmp_path / "b" / "out") == 2).all()


def test_what_cannot_be_refined_is_told(tmp_path):
    source = stored(tmp_path, smooth_maps(3, 3, 40, 60))
    with pytest.raises(LamellaError, match=r"gland, stroma, background.*'glass'"):
        refine_raster(source, None, ALL_BUT_CRF, tmp_path / "out", background="glass")
    with pytest.raises(LamellaError, match="no finished raster"):
        refine_raster(tmp_path / "none.zarr", None, ALL_BUT_CRF, tmp_path / "out")
    refine_raster(source, None, ALL_BUT_CRF, tmp_path / "out", background=None)
    with pytest.raises(LamellaError, match="it holds labels, not probabilities"):
        refine_raster(tmp_path / "out" / "labels.zarr", None, ALL_BUT_CRF, tmp_path / "more")
    with pytest.raises(ValueError, match="needs the slide"):
        refine_raster(source, None, RefineSettings(use_crf=True), tmp_path / "crf")
    assert json.loads((tmp_path / "out" / "prediction.json").read_text())["background"] is None
