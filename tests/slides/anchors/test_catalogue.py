"""The anchor catalogue: complete grids, three policies, shards, CSV."""

import copy
import json
import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import ConfigError, LamellaError, ManifestError, OutputConflictError
from lamella.formats.tables import iterate_csv, read_csv, write_csv
from lamella.geometry import Box, Frame
from lamella.slides.anchors import catalogue as anchors_module
from lamella.slides.anchors import cataloguing
from lamella.slides.anchors.anchor_csv import COLUMNS, ImportedAnchors, export_csv
from lamella.slides.anchors.catalogue import Catalogue
from lamella.slides.anchors.cataloguing import build_catalogue, grid_positions_px0, grid_size
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.anchors.targets import place_targets
from lamella.slides.index import IndexedSlide, SlideIndex, write_slides
from lamella.slides.masks import write_mask

PROFILE = CrossSampling()
MASK_MPP = 8.0


def make_index(folder, masks, mpp=0.5):
    """An index of slides that exist by their masks only; a mask pixel is 8 um."""
    folder.mkdir(parents=True, exist_ok=True)
    slides = []
    for slide_id, mask in masks.items():
        path = folder / "masks" / f"{slide_id}.png"
        write_mask(path, mask)
        height, width = mask.shape
        frame = Frame(round(width * MASK_MPP / mpp), round(height * MASK_MPP / mpp), mpp, mpp)
        mask_frame = frame.resized(width, height)
        slides.append(IndexedSlide(slide_id, folder / f"{slide_id}.tif", path, frame, mask_frame))
    write_slides(folder, slides, {})
    return SlideIndex.load(folder)


def full(height=128, width=160):
    return np.ones((height, width), bool)


def fates_of(index, folder, sampling=PROFILE, **options):
    return {fate.slide_id: fate for fate in build_catalogue(index, sampling, folder, **options)}


def corners_px0(catalogue, slide_id):
    frame = catalogue.index[slide_id].frame
    columns = catalogue.slide_anchors(slide_id)
    half = catalogue.sampling.context_fov_um / frame.mpp_x / 2
    return np.stack([columns["center_x_px0"], columns["center_y_px0"]], axis=1) - half


@given(
    length=st.integers(1, 5000), side=st.floats(1, 3000), stride_fraction=st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.7])
)
@settings(max_examples=200, deadline=None)
def test_positions_start_at_the_edge_end_at_the_edge_and_leave_no_gap(length, side, stride_fraction):
    positions = grid_positions_px0(length, side, side * stride_fraction)
    if side > length + 1e-6:
        assert len(positions) == 0
        return
    assert positions[0] == 0
    assert positions[-1] + side <= length + 1e-6
    assert length - (positions[-1] + side) < 1 + 1e-6  # the last row: less than a pixel is left over
    assert (np.diff(positions) > 0).all()
    assert (np.diff(positions) <= side * stride_fraction + 1 + 1e-6).all()


def test_the_last_row_and_column_are_in_the_catalogue(tmp_path):
    index = make_index(tmp_path / "index", {"a": full(130, 163)})
    fates_of(index, tmp_path / "anchors")
    catalogue = Catalogue.load(tmp_path / "anchors")
    corners = corners_px0(catalogue, "a")
    frame = index["a"].frame
    assert corners.max(axis=0).tolist() == [frame.width_px - 1024, frame.height_px - 1024]
    assert corners.min(axis=0).tolist() == [0, 0]
    assert len(catalogue) == len(corners) == grid_size(frame, PROFILE) == 5 * 4


@pytest.mark.parametrize("mpp", [0.5, 0.2427, 0.5015])
def test_corners_are_whole_level_0_pixels_and_contexts_lie_inside(tmp_path, mpp):
    index = make_index(tmp_path / "index", {"a": full()}, mpp)
    fates_of(index, tmp_path / "anchors")
    catalogue = Catalogue.load(tmp_path / "anchors")
    frame = index["a"].frame
    for row in range(len(catalogue)):
        box = catalogue.anchor(row).context_px0(frame, PROFILE)
        assert box.x0 == pytest.approx(round(box.x0), abs=1e-6)
        assert frame.bounds_px.contains(box, slack=1e-6)
        assert box.width * mpp == pytest.approx(512)


def test_tissue_fractions_are_those_of_the_mask_pixel_by_pixel(tmp_path):
    mask = np.kron(np.random.default_rng(0).random((16, 20)) < 0.5, np.ones((8, 8), bool))
    index = make_index(tmp_path / "index", {"a": mask})
    fates_of(index, tmp_path / "anchors")
    catalogue = Catalogue.load(tmp_path / "anchors")
    assert len(catalogue) > 5
    for row in range(len(catalogue)):
        anchor = catalogue.anchor(row)
        x, y = (round((value - 512) / 16) for value in (anchor.center_x_px0, anchor.center_y_px0))
        assert anchor.tissue_fraction == pytest.approx(mask[y : y + 64, x : x + 64].mean(), abs=1e-6)


def test_contexts_with_too_little_tissue_are_left_out(tmp_path):
    mask = full()
    mask[:, 70:] = False
    index = make_index(tmp_path / "index", {"a": mask})
    fates_of(index, tmp_path / "anchors")
    corners = corners_px0(Catalogue.load(tmp_path / "anchors"), "a")
    # A context at column 48 px of the mask still holds 22 of 64 columns of tissue; at 64 it holds 6.
    assert corners[:, 0].max() == 512


def speckled():
    """Tissue on the left, then columns whose tissue is too thin for targets, then tissue again."""
    mask = full(64, 64 * 6)
    thin = np.arange(64 * 2) % 16 < 4  # 25 % of a context, but 18.75 to 31 % of any target
    mask[:, 128:256] = thin[None, :]
    return mask


POLICY = {"min_target_tissue_fraction": 0.6, "anchor_stride_fraction": 1.0}


def test_skip_anchor_leaves_out_only_the_anchors_that_do_not_fit(tmp_path):
    index = make_index(tmp_path / "index", {"a": speckled(), "b": full()})
    sampling = CrossSampling(**POLICY, when_targets_do_not_fit="skip_anchor")
    fates = fates_of(index, tmp_path / "anchors", sampling)
    catalogue = Catalogue.load(tmp_path / "anchors")
    assert (corners_px0(catalogue, "a")[:, 0] / 1024).tolist() == [0, 1, 4, 5]
    assert fates["a"].status == "ok"
    assert "targets do not fit at 2 positions" in fates["a"].reason
    assert fates["b"].reason == ""


def test_skip_slide_really_skips_the_rest_of_that_slide_and_no_other(tmp_path):
    index = make_index(tmp_path / "index", {"a": np.vstack([speckled(), full(64, 384)]), "b": full()})
    sampling = CrossSampling(**POLICY, when_targets_do_not_fit="skip_slide")
    fates = fates_of(index, tmp_path / "anchors", sampling)
    catalogue = Catalogue.load(tmp_path / "anchors")
    assert (corners_px0(catalogue, "a") / 1024).tolist() == [[0, 0], [1, 0]]
    assert fates["a"].status == "skipped"
    assert "after 2 anchors; the rest of the slide was skipped (skip_slide)" in fates["a"].reason
    assert fates["b"].anchors == grid_size(index["b"].frame, sampling)


def test_lower_threshold_keeps_the_anchors_and_notes_the_threshold_of_each(tmp_path):
    index = make_index(tmp_path / "index", {"a": speckled()})
    sampling = CrossSampling(**POLICY, threshold_floor=0.1, threshold_step=0.1)
    fates = fates_of(index, tmp_path / "anchors", sampling)
    catalogue = Catalogue.load(tmp_path / "anchors")
    thresholds = [catalogue.anchor(row).min_target_tissue_fraction for row in range(len(catalogue))]
    assert thresholds == [0.6, 0.6, 0.2, 0.2, 0.6, 0.6]
    assert "lowered for 2 anchors" in fates["a"].reason
    tissue = index["a"].tissue()
    for row in range(len(catalogue)):  # what was proven holds at run time, whatever is drawn
        anchor = catalogue.anchor(row)
        context = index["a"].frame.box_um(anchor.context_px0(index["a"].frame, sampling))
        for seed in range(10):
            boxes = place_targets(
                np.random.default_rng(seed), tissue, context, sampling, anchor.min_target_tissue_fraction
            )
            on_slide = boxes + np.array([context.x0, context.y0] * 2)
            assert tissue.fractions(on_slide).min() >= anchor.min_target_tissue_fraction - 1e-6


def test_slides_without_anchors_are_reported_with_their_reason(tmp_path):
    bare = np.zeros((128, 128), bool)
    bare[:4, :4] = True
    index = make_index(tmp_path / "index", {"a": full(), "small": full(40, 300), "bare": bare})
    fates_of(index, tmp_path / "anchors")
    report = {row["slide_id"]: row for row in read_csv(tmp_path / "anchors" / "report.csv")}
    assert list(report["a"]) == ["slide_id", "status", "reason", "anchors"]
    assert (report["a"]["status"], report["a"]["anchors"]) == ("ok", "12")
    assert report["small"]["status"] == "failed"
    assert "2400 x 320 um) is smaller than a context of 512 um" in report["small"]["reason"]
    assert "no context holds 20% tissue" in report["bare"]["reason"]
    assert {row["slide_id"] for row in read_csv(tmp_path / "anchors" / "failed.csv")} == {"small", "bare"}
    assert [path.name for path in (tmp_path / "anchors" / "shards").iterdir()] == ["a.parquet"]


def test_a_lost_mask_fails_its_slide_alone(tmp_path):
    index = make_index(tmp_path / "index", {"a": full(), "b": full()})
    index["a"].mask_path.unlink()
    fates = fates_of(index, tmp_path / "anchors")
    assert (fates["a"].status, fates["b"].status) == ("failed", "ok")
    assert "does not exist" in fates["a"].reason


def test_a_profile_whose_targets_cannot_fit_is_refused_before_anything_is_written(tmp_path):
    index = make_index(tmp_path / "index", {"a": full()})
    sampling = CrossSampling(
        context_mpp=2, context_fov_um=256, target_fov_um=128, target_margin_um=16, align_targets_to_patch_grid=True
    )
    with pytest.raises(ConfigError, match="targets_per_context"):
        build_catalogue(index, sampling, tmp_path / "anchors")
    assert not (tmp_path / "anchors").exists()


def test_rows_shards_and_ids_agree(tmp_path):
    index = make_index(tmp_path / "index", {"a": full(), "none": np.zeros((99, 99), bool), "b": full(64, 200)})
    fates_of(index, tmp_path / "anchors")
    catalogue = Catalogue.load(tmp_path / "anchors")
    assert catalogue.shards == [("a", 0, 12), ("b", 12, 6)]
    assert len(catalogue) == 18
    found = [catalogue.anchor(row) for row in range(18)]
    assert [anchor.anchor_id for anchor in found[:2]] == ["a_0000000", "a_0000001"]
    assert found[12].anchor_id == "b_0000000"
    assert len({anchor.anchor_id for anchor in found}) == 18
    for row in (-1, 18):
        with pytest.raises(IndexError):
            catalogue.anchor(row)


def test_few_shards_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(anchors_module, "_ROWS_IN_MEMORY", 25)
    index = make_index(tmp_path / "index", {name: full() for name in "abcde"})
    fates_of(index, tmp_path / "anchors")
    catalogue = Catalogue.load(tmp_path / "anchors")
    for row in range(len(catalogue)):
        catalogue.anchor(row)
        assert sum(len(kept["number"]) for kept in catalogue._columns.values()) <= 25
    assert catalogue._columns
    assert not copy.copy(catalogue)._columns  # another process starts without


def test_an_identical_rerun_changes_nothing_and_reads_no_mask(tmp_path, monkeypatch):
    index = make_index(tmp_path / "index", {"a": full(), "b": full()})
    fates = fates_of(index, tmp_path / "anchors")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "anchors").rglob("*") if p.is_file()}
    monkeypatch.setattr(IndexedSlide, "tissue", None)
    assert fates_of(index, tmp_path / "anchors") == fates
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "anchors").rglob("*") if p.is_file()}
    assert after == before


def test_a_killed_run_goes_on_to_the_same_catalogue(tmp_path, monkeypatch):
    index = make_index(tmp_path / "index", {name: speckled() for name in "abc"})
    fates_of(index, tmp_path / "straight")
    done = []
    real = IndexedSlide.tissue

    def counted(slide):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(slide.slide_id)
        return real(slide)

    monkeypatch.setattr(IndexedSlide, "tissue", counted)
    with pytest.raises(KeyboardInterrupt):
        fates_of(index, tmp_path / "anchors")
    with pytest.raises(LamellaError, match="not an anchor catalogue"):
        Catalogue.load(tmp_path / "anchors")
    done.clear()
    fates_of(index, tmp_path / "anchors")
    assert done == ["c"]
    for path in (tmp_path / "straight").rglob("*"):
        if path.is_file():
            other = tmp_path / "anchors" / path.relative_to(tmp_path / "straight")
            assert other.read_bytes() == path.read_bytes()


def test_a_slide_that_fails_its_check_leaves_no_shard(tmp_path):
    from lamella.errors import SlideError

    def check(slide, shard):
        if slide.slide_id == "a":
            raise SlideError("a.tif", "the file is gone", "Bring it back.")

    index = make_index(tmp_path / "index", {"a": full(), "b": full()})
    fates = fates_of(index, tmp_path / "anchors", check=check)
    assert (fates["a"].status, fates["a"].anchors) == ("failed", 0)
    assert Catalogue.load(tmp_path / "anchors").shards == [("b", 0, 12)]


def test_catalogue_and_index_moved_together_still_load(tmp_path):
    index = make_index(tmp_path / "old" / "index", {"a": full()})
    fates_of(index, tmp_path / "old" / "runs" / "anchors")
    old_hash = Catalogue.load(tmp_path / "old" / "runs" / "anchors").hash
    shutil.move(tmp_path / "old", tmp_path / "new")
    catalogue = Catalogue.load(tmp_path / "new" / "runs" / "anchors")
    assert catalogue.index["a"].wsi_path == tmp_path / "new" / "index" / "a.tif"
    assert catalogue.hash == old_hash
    for path in (tmp_path / "new" / "runs").rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()


def test_the_hash_changes_with_profile_anchors_and_index(tmp_path):
    index = make_index(tmp_path / "index", {"a": full()})
    other = make_index(tmp_path / "other", {"a": full(200, 200)})
    hashes = set()
    for number, (slides, sampling) in enumerate(
        [(index, PROFILE), (index, CrossSampling(target_margin_um=0)), (other, PROFILE)]
    ):
        fates_of(slides, tmp_path / str(number), sampling)
        hashes.add(Catalogue.load(tmp_path / str(number)).hash)
    assert len(hashes) == 3


def test_a_changed_index_or_a_damaged_catalogue_is_refused(tmp_path):
    index = make_index(tmp_path / "index", {"a": full()})
    fates_of(index, tmp_path / "anchors")
    listing = (tmp_path / "anchors" / "catalogue.json").read_text()
    (tmp_path / "anchors" / "catalogue.json").write_text(listing[:50])
    with pytest.raises(LamellaError, match="damaged"):
        Catalogue.load(tmp_path / "anchors")
    (tmp_path / "anchors" / "catalogue.json").write_text(json.dumps({**json.loads(listing), "format": "else 9"}))
    with pytest.raises(LamellaError, match="format 'else 9'"):
        Catalogue.load(tmp_path / "anchors")
    (tmp_path / "anchors" / "catalogue.json").write_text(listing)
    make_index(tmp_path / "index", {"a": full(), "b": full()})
    with pytest.raises(OutputConflictError, match="was changed since"):
        Catalogue.load(tmp_path / "anchors")
    make_index(tmp_path / "index", {"a": full()})
    (tmp_path / "anchors" / "shards" / "a.parquet").unlink()
    with pytest.raises(LamellaError, match="gone"):
        Catalogue.load(tmp_path / "anchors")


def test_memory_does_not_grow_with_the_rows_of_the_grid(tmp_path, monkeypatch):
    """Forty times the rows in nearly the same memory; benchmarks/index.py measures it at a million anchors."""
    monkeypatch.setattr(cataloguing, "_ROWS_PER_WRITE", 256)
    index = make_index(tmp_path / "index", {"a": full(300, 300)})
    tissue = index["a"].tissue()
    tissue.fractions(np.array([[0.0, 0, 1, 1]]))  # its integral image belongs to the mask, not to the anchors
    monkeypatch.setattr(IndexedSlide, "tissue", lambda slide: tissue)
    peaks = []
    for rows in (10, 400):

        def source(slide, sampling, rows=rows):
            for row in range(rows):
                yield cataloguing.Candidates(np.stack([np.arange(512.0, 600), np.full(88, 512.0 + row)], axis=1))

        tracemalloc.start()
        fates = fates_of(index, tmp_path / f"{rows}", source_of=lambda slide_id: source)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert fates["a"].anchors == 88 * rows
    assert peaks[1] < 1.3 * peaks[0]


# ---- CSV ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def catalogue(tmp_path):
    index = make_index(tmp_path / "index", {"a": speckled(), "b": full(130, 163)})
    fates_of(index, tmp_path / "anchors")
    return Catalogue.load(tmp_path / "anchors")


def test_the_csv_has_exactly_the_source_projects_columns(catalogue, tmp_path):
    export_csv(catalogue, tmp_path / "out" / "anchors.csv")
    rows = list(iterate_csv(tmp_path / "out" / "anchors.csv"))
    assert tuple(rows[0]) == COLUMNS
    assert ",".join(COLUMNS) == (
        "anchor_id,slide_id,profile_id,wsi_path,mask_path,center_x_level0,center_y_level0,center_x_mask,center_y_mask,"
        "tissue_fraction,is_in_bounds,wsi_level0_spacing_mpp,mask_level0_spacing_mpp,context_mpp,target_mpp,"
        "context_fov_um,target_fov_um,targets_per_context,min_tissue_fraction,target_margin_um,"
        "target_margin_context_px,context_size_px,target_size_context_px,spacing_tolerance"
    )
    assert len(rows) == len(catalogue)
    row = rows[-1]
    assert row["anchor_id"] == "b_0000019"
    assert row["tissue_fraction"] == "1.000000"
    assert (row["center_x_level0"], row["center_x_mask"]) == ("2096", "131")
    assert (row["context_size_px"], row["target_size_context_px"], row["target_margin_context_px"]) == (
        "512",
        "128",
        "16",
    )
    assert row["wsi_path"] == "../index/b.tif"


def test_export_and_import_give_the_same_anchors(catalogue, tmp_path):
    export_csv(catalogue, tmp_path / "anchors.csv")
    imported = ImportedAnchors(tmp_path / "anchors.csv", catalogue.index, PROFILE)
    assert len(imported) == len(catalogue)
    fates_of(catalogue.index, tmp_path / "again", source_of=lambda slide_id: imported.candidates)
    again = Catalogue.load(tmp_path / "again")
    assert [again.anchor(row) for row in range(len(again))] == [catalogue.anchor(row) for row in range(len(catalogue))]


def edited(tmp_path, catalogue, **changes):
    export_csv(catalogue, tmp_path / "anchors.csv")
    rows = read_csv(tmp_path / "anchors.csv")
    rows[3].update(changes)
    write_csv(tmp_path / "edited.csv", rows, COLUMNS)
    return tmp_path / "edited.csv"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"slide_id": "zz", "anchor_id": "zz_0000003"}, r"not in the index .*: zz \(line 5\)"),
        ({"anchor_id": "b_0000003"}, "line 5: anchor_id 'b_0000003' is not the slide_id"),
        ({"anchor_id": "a_0000002"}, "anchor_id a_0000002 stands twice"),
        ({"center_x_level0": "left"}, "center_x_level0 is 'left', not a number"),
        ({"context_mpp": "2"}, "another profile .context_mpp=2.*sampling.context_mpp=2"),
    ],
)
def test_a_csv_that_does_not_belong_is_refused(catalogue, tmp_path, changes, cause):
    with pytest.raises(ManifestError, match=cause):
        ImportedAnchors(edited(tmp_path, catalogue, **changes), catalogue.index, PROFILE)


def test_a_csv_without_its_columns_is_refused(catalogue, tmp_path):
    write_csv(tmp_path / "x.csv", [{"slide_id": "a", "x": 1}], ("slide_id", "x"))
    with pytest.raises(ManifestError, match="lacks the column anchor_id, center_x_level0, center_y_level0"):
        ImportedAnchors(tmp_path / "x.csv", catalogue.index, PROFILE)
    write_csv(tmp_path / "y.csv", [], COLUMNS)
    with pytest.raises(ManifestError, match="no anchors"):
        ImportedAnchors(tmp_path / "y.csv", catalogue.index, PROFILE)


def test_imported_anchors_off_the_slide_are_left_out_and_counted(catalogue, tmp_path):
    path = edited(tmp_path, catalogue, center_x_level0="500")
    imported = ImportedAnchors(path, catalogue.index, PROFILE)
    fates = fates_of(catalogue.index, tmp_path / "again", source_of=lambda slide_id: imported.candidates)
    assert fates["a"].anchors == 10
    assert "1 positions lie outside the slide" in fates["a"].reason


def test_a_csv_made_with_another_pixel_size_fails_its_slide(catalogue, tmp_path):
    export_csv(catalogue, tmp_path / "anchors.csv")
    rows = read_csv(tmp_path / "anchors.csv")
    for row in rows:
        row["wsi_level0_spacing_mpp"] = "0.25" if row["slide_id"] == "a" else row["wsi_level0_spacing_mpp"]
    write_csv(tmp_path / "edited.csv", rows, COLUMNS)
    imported = ImportedAnchors(tmp_path / "edited.csv", catalogue.index, PROFILE)
    fates = fates_of(catalogue.index, tmp_path / "again", source_of=lambda slide_id: imported.candidates)
    assert (fates["a"].status, fates["b"].status) == ("failed", "ok")
    assert "0.25 um per pixel, the index has 0.5" in fates["a"].reason


def test_the_context_of_an_anchor_is_centred_on_it(catalogue):
    anchor = catalogue.anchor(0)
    assert anchor.context_px0(catalogue.index["a"].frame, PROFILE) == Box(0, 0, 1024, 1024)
