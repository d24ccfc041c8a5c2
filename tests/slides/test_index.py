"""The slide index: every slide has its own fate, reruns change nothing, and the folder can be moved."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import LamellaError, ManifestError, MaskMismatchError
from lamella.formats.tables import read_csv
from lamella.slides import indexing
from lamella.slides.index import SlideIndex
from lamella.slides.indexing import build_index
from lamella.slides.manifest import ManifestRow, find_slides
from lamella.slides.tissue import TissueSettings

SETTINGS = TissueSettings()


def fates_of(rows, folder, settings=SETTINGS):
    return {fate.row.slide_id: fate for fate in build_index(rows, folder, settings, {"tissue": {}})}


def stamps(folder):
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def slide(make_slide):
    return make_slide("a.tif", 512, 768, mpp=0.5)


def test_a_slide_with_a_computed_mask(slide, tmp_path):
    rows = [ManifestRow("a", slide, metadata={"patient": "P1"})]
    assert fates_of(rows, tmp_path / "index")["a"].status == "ok"
    index = SlideIndex.load(tmp_path / "index")
    (entry,) = index
    assert (entry.frame.width_px, entry.frame.height_px, entry.mpp_stated) == (768, 512, (0.5, 0.5))
    assert entry.level_sizes_px == ((768, 512), (384, 256), (192, 128))
    assert entry.metadata == {"patient": "P1"}
    assert (entry.mask_frame.width_px, entry.mask_frame.height_px) == (48, 32)
    tissue = entry.tissue()
    # The generated tissue is an ellipse that covers pi * 0.17 of the slide.
    assert entry.tissue_fraction == pytest.approx(np.pi * 0.17, abs=0.05)
    assert tissue.mask.mean() == entry.tissue_fraction
    assert entry.tissue_area_mm2 == pytest.approx(entry.tissue_fraction * 0.384 * 0.256)
    with entry.open() as opened:
        assert opened.mpp == 0.5
    assert index["a"] is entry
    assert ("a" in index, "b" in index) == (True, False)
    with pytest.raises(LamellaError, match=r"slide b: the index .* lacks it"):
        index["b"]


def test_a_given_mask_is_laid_over_the_slide_with_its_values(slide, tmp_path):
    values = np.zeros((64, 96), np.uint8)
    values[16:48, 24:72] = 2
    values[:8] = 1
    Image.fromarray(values).save(tmp_path / "mask.png")
    rows = [ManifestRow("a", slide, tmp_path / "mask.png")]
    fates_of(rows, tmp_path / "index", TissueSettings(mask_values=(2,)))
    entry = SlideIndex.load(tmp_path / "index")["a"]
    assert entry.mask_frame.mpp_x == pytest.approx(4.0)
    np.testing.assert_array_equal(entry.tissue().mask, values == 2)
    assert entry.mask_path == tmp_path / "mask.png"
    assert entry.tissue_fraction == 0.25


def bad_slides(tmp_path, make_slide):
    """slide_id -> (row, status, part of the reason)."""
    good = make_slide("good.tif", 256, 256, levels=1)
    empty, broken, png = (tmp_path / name for name in ("empty.svs", "broken.svs", "png.svs"))
    empty.touch()
    broken.write_bytes(good.read_bytes()[:200])
    Image.fromarray(np.full((50, 50, 3), 200, np.uint8)).save(png, format="PNG")
    bare = make_slide("bare.tif", 256, 256, levels=1, mpp=None)
    absurd = make_slide("absurd.tif", 256, 256, levels=1, mpp=896.0)
    glass = tmp_path / "glass.tif"
    tifffile.imwrite(
        glass,
        np.full((256, 256, 3), 244, np.uint8),
        tile=(128, 128),
        photometric="rgb",
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    narrow, black, other = (tmp_path / name for name in ("narrow.png", "black.png", "other.tif"))
    Image.fromarray(np.full((20, 100), 255, np.uint8)).save(narrow)
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(black)
    tifffile.imwrite(other, np.ones((64, 64), np.uint8), resolution=(1250, 1250), resolutionunit="CENTIMETER")
    copies = [make_slide(f"copy{number}.tif", 256, 256, levels=1) for number in range(5)]
    return {
        "gone": (ManifestRow("gone", tmp_path / "gone.svs"), "failed", "does not exist"),
        "empty": (ManifestRow("empty", empty), "failed", "empty (0 bytes)"),
        "broken": (ManifestRow("broken", broken), "failed", "no reader takes it"),
        "png": (ManifestRow("png", png, mpp=None), "failed", "it is a PNG image"),
        "bare": (ManifestRow("bare", bare), "failed", "`--mpp 0.5`"),
        "absurd": (ManifestRow("absurd", absurd), "failed", "896"),
        "glass": (ManifestRow("glass", glass), "rejected", "no tissue was found"),
        "narrow": (ManifestRow("narrow", copies[0], narrow), "rejected", "another aspect"),
        "black": (ManifestRow("black", copies[1], black), "rejected", "it is 0 everywhere"),
        "other": (ManifestRow("other", copies[2], other), "rejected", "states 8 um per pixel in x, but"),
        "lost": (ManifestRow("lost", copies[3], tmp_path / "no.png"), "rejected", "mask file does not exist"),
        "label": (
            ManifestRow("label", copies[4], metadata={"label_mask_path": str(tmp_path / "no.tif")}),
            "failed",
            "column label_mask_path does not exist",
        ),
        "twin": (ManifestRow("twin", good), "rejected", "the same file as slide good"),
        "good": (ManifestRow("good", good), "ok", ""),
    }


def test_every_slide_ends_with_its_own_status_and_reason(tmp_path, make_slide):
    cases = bad_slides(tmp_path, make_slide)
    rows = [cases["good"][0], *(row for name, (row, _, _) in cases.items() if name != "good")]
    folder = tmp_path / "index"
    fates = fates_of(rows, folder)
    for name, (_, status, reason) in cases.items():
        assert fates[name].status == status, (name, fates[name].error)
        assert reason in fates[name].error, name
    report = {row["slide_id"]: row for row in read_csv(folder / "slide_metadata_build_report.csv")}
    assert list(report) == [row.slide_id for row in rows]
    assert {name: row["status"] for name, row in report.items()} == {name: case[1] for name, case in cases.items()}
    failed = read_csv(folder / "failed.csv")
    assert {row["slide_id"] for row in failed} == set(cases) - {"good"}
    assert all(row["error"] and row["path"] for row in failed)
    assert [slide.slide_id for slide in SlideIndex.load(folder)] == ["good"]


def test_an_index_without_a_usable_slide_says_so(tmp_path):
    fates_of([ManifestRow("gone", tmp_path / "gone.svs")], tmp_path / "index")
    with pytest.raises(LamellaError, match="no usable slide"):
        SlideIndex.load(tmp_path / "index")
    with pytest.raises(LamellaError, match="not a slide index"):
        SlideIndex.load(tmp_path / "nowhere")


def test_an_identical_rerun_changes_nothing_and_opens_nothing(slide, make_slide, tmp_path, monkeypatch):
    rows = [ManifestRow("a", slide), ManifestRow("b", make_slide("b.tif", 256, 256, seed=2))]
    fates_of(rows, tmp_path / "index")
    before = stamps(tmp_path / "index")
    monkeypatch.setattr(indexing, "open_slide", None)
    fates_of(rows, tmp_path / "index")
    assert stamps(tmp_path / "index") == before


def test_a_killed_run_goes_on_where_it_stopped(make_slide, tmp_path, monkeypatch):
    rows = [ManifestRow(name, make_slide(f"{name}.tif", 256, 256, levels=1)) for name in "abc"]
    opened = []
    real = indexing.open_slide

    def counted(path, **options):
        if len(opened) == 2:
            raise KeyboardInterrupt
        opened.append(path.stem)
        return real(path, **options)

    monkeypatch.setattr(indexing, "open_slide", counted)
    with pytest.raises(KeyboardInterrupt):
        fates_of(rows, tmp_path / "index")
    assert not (tmp_path / "index" / "slides.parquet").exists()
    opened.clear()
    assert {fate.status for fate in fates_of(rows, tmp_path / "index").values()} == {"ok"}
    assert opened == ["c"]
    assert not list((tmp_path / "index").glob(".*"))


def test_a_slide_that_was_mended_or_replaced_is_read_again(make_slide, tmp_path):
    late = tmp_path / "late.tif"
    rows = [ManifestRow("a", make_slide("a.tif", 256, 256)), ManifestRow("late", late)]
    assert fates_of(rows, tmp_path / "index")["late"].status == "failed"
    make_slide("late.tif", 256, 256, seed=3)
    make_slide("a.tif", 256, 512)
    fates = fates_of(rows, tmp_path / "index")
    assert {fate.status for fate in fates.values()} == {"ok"}
    assert fates["a"].slide.frame.width_px == 512
    assert not (tmp_path / "index" / "failed.csv").exists()


def test_index_and_slides_moved_together_still_load(make_slide, tmp_path):
    old = tmp_path / "old"
    (old / "slides").mkdir(parents=True)
    path = make_slide("a.tif", 256, 256, folder=old / "slides")
    label = old / "label.png"
    Image.fromarray(np.ones((32, 32), np.uint8)).save(label)
    rows = [ManifestRow("a", path, metadata={"label_mask_path": str(label), "label": "tumour"})]
    fates_of(rows, old / "deep" / "index")
    shutil.move(old, tmp_path / "new")
    entry = SlideIndex.load(tmp_path / "new" / "deep" / "index")["a"]
    with entry.open() as opened:
        assert opened.frame.width_px == 256
    assert entry.tissue().mask.any()
    assert entry.metadata == {"label_mask_path": str(tmp_path / "new" / "label.png"), "label": "tumour"}
    for file in (tmp_path / "new" / "deep" / "index").iterdir():
        if file.is_file():
            assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_a_mask_replaced_by_one_of_another_size_is_noticed(slide, tmp_path):
    fates_of([ManifestRow("a", slide)], tmp_path / "index")
    Image.fromarray(np.full((10, 15), 255, np.uint8)).save(tmp_path / "index" / "masks" / "a.png")
    with pytest.raises(MaskMismatchError, match="when it was indexed"):
        SlideIndex.load(tmp_path / "index")["a"].tissue()


def test_the_export_has_the_source_projects_fields_and_comes_back(slide, tmp_path):
    values = np.ones((64, 96), np.uint8)
    Image.fromarray(values).save(tmp_path / "mask.png")
    rows = [
        ManifestRow("a", slide, tmp_path / "mask.png", (0.5, 0.5), metadata={"organ": "colon"}),
        ManifestRow("gone", tmp_path / "gone.svs"),
    ]
    fates_of(rows, tmp_path / "index")
    export = tmp_path / "index" / "slide_metadata_index.jsonl"
    first, second = (json.loads(line) for line in export.read_text().splitlines())
    assert (first["slide_id"], first["status"], first["error"]) == ("a", "ok", None)
    assert first["wsi_shapes"] == [[768, 512], [384, 256], [192, 128]]
    assert first["wsi_spacings_mpp"] == [0.5, 1.0, 2.0]
    assert (first["mask_level0_width"], first["mask_level0_spacing_mpp"]) == (96, 4.0)
    assert (first["mask_to_wsi_scale_x"], first["mask_to_wsi_scale_y"]) == (8.0, 8.0)
    assert second["status"] == "failed"
    again = {row.slide_id: row for row in find_slides([export])}
    assert again["a"].mask_path.resolve() == tmp_path / "mask.png"
    assert again["a"].mpp == (0.5, 0.5)
    assert dict(again["a"].metadata) == {"organ": "colon"}
    fates_of([again["a"]], tmp_path / "again")
    assert SlideIndex.load(tmp_path / "again")["a"].frame == SlideIndex.load(tmp_path / "index")["a"].frame


def test_a_computed_mask_is_not_imported_as_a_given_one(slide, tmp_path):
    fates_of([ManifestRow("a", slide)], tmp_path / "index")
    (row,) = find_slides([tmp_path / "index" / "slide_metadata_index.jsonl"])
    assert row.mask_path is None


def test_a_metadata_column_must_not_take_a_name_of_the_index(slide, tmp_path):
    with pytest.raises(ManifestError, match="column reader"):
        fates_of([ManifestRow("a", slide, metadata={"reader": "x"})], tmp_path / "index")


def test_each_axis_keeps_its_own_spacing(slide, tmp_path):
    fates_of([ManifestRow("a", slide, mpp=(0.5, 0.25))], tmp_path / "index")
    entry = SlideIndex.load(tmp_path / "index")["a"]
    assert entry.mpp_stated == (0.5, 0.25)
    assert entry.mask_frame.size_um == pytest.approx((384, 128))
    assert entry.tissue_area_mm2 == pytest.approx(entry.tissue_fraction * 0.384 * 0.128)
