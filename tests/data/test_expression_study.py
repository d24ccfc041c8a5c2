"""From a manifest to a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.tiny_expression import counts_of, full_rc, settings_of, slide_of, spots_of, write_spot_study
from tests.data.tiny_expression import study_of as made_study

from lamella.data import expression_study
from lamella.data.expression_digest import path_digest, slide_digest, study_digest
from lamella.data.expression_samples import SlideSamples
from lamella.data.expression_study import load_expression, open_expression, tile_of
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.imaging.datasets.problems import DatasetProblems

TABLE = np.random.default_rng(0).poisson(3, (16, 4))
TWO = {"b": ("P1", TABLE), "a": ("P2", TABLE + 1)}


def opened(folder: Path, **changes: object) -> object:
    return open_expression(settings_of(slides=folder / "manifest.csv", bin_um=20.0, **changes))


def test_a_study_of_spots(tmp_path: Path) -> None:
    write_spot_study(tmp_path, TWO)
    study = opened(tmp_path)
    assert [slide.slide_id for slide in study.slides] == ["a", "b"]
    assert (study.kind, study.patients, study.bin_um) == ("spot", ("P1", "P2"), 20.0)
    assert study.tile_bins == 6  # spots of 100 um in bins of 20, made even
    assert (study.by_id["a"].counts.counts.toarray() == TABLE + 1).all()
    assert study.slides[0].counts is study.slides[0].counts
    assert "no claim of significance" in study.notes[0]
    assert study.slides[0].mpp_stated == (4.0, 4.0)


@pytest.mark.parametrize(("bin_um", "tile"), [(25.0, 4), (100.0, 4), (2.0, 50), (24.0, 6), (12.5, 8)])
def test_a_tile_of_a_spot_covers_its_disk(bin_um: float, tile: int) -> None:
    assert tile_of("spot", settings_of(bin_um=bin_um), 100.0) == tile
    assert tile_of("bin", settings_of(bin_um=bin_um), 100.0) == 8


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Bad input: an image without mpp, a patient in two folds, files that are missing."""
    write_spot_study(tmp_path, {name: ("P1", TABLE + number) for number, name in enumerate("abcdef")})
    rows = [
        "slide_id,wsi_path,expression_path,patient,mpp,fold",
        "a,a.png,a_spots.csv,P1,,1",
        "b,b.png,nothing.csv,P1,4,1",
        "c,c.png,c_spots.csv,,4,1",
        "d,none.png,d_spots.csv,P2,4,1",
        "e,e.png,e_spots.csv,P3,4,1",
        "f,f.png,f_spots.csv,P3,4,2",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(DatasetProblems) as error:
        opened(tmp_path)
    told = "\n".join(error.value.problems)
    for part in (
        "state it in the manifest's column mpp",
        "b: there is no",
        "c: no patient is given",
        "none.png: the file does not exist",
        "patient P3 is in folds 1, 2 of the column fold",
    ):
        assert part in told
    assert len(error.value.problems) == 5


def test_a_patient_under_two_names_is_refused(tmp_path: Path) -> None:
    write_spot_study(tmp_path, {"a": ("P1", TABLE), "b": ("p1", TABLE + 1)})
    with pytest.raises(DatasetProblems, match="P1 and p1 are written as different patients"):
        opened(tmp_path)


def test_a_copied_slide_is_refused(tmp_path: Path) -> None:
    """The same pixels, or the same counts, could stand on both sides of a fold."""
    write_spot_study(tmp_path, TWO)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(DatasetProblems, match=r"a, b have the same image \(patients P1, P2\)"):
        opened(tmp_path)
    write_spot_study(tmp_path, TWO)
    text = (tmp_path / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(text.replace("b_spots.csv", "a_spots.csv"))
    with pytest.raises(DatasetProblems, match="a, b have the same expression"):
        opened(tmp_path)


def test_equal_tables_of_places_are_no_copy(tmp_path: Path) -> None:
    """All sections of one array have the same spots; their counts differ."""
    write_spot_study(tmp_path, TWO)
    assert (tmp_path / "a_spots.csv").read_bytes() == (tmp_path / "b_spots.csv").read_bytes()
    opened(tmp_path)


def test_a_manifest_without_expression(tmp_path: Path) -> None:
    write_spot_study(tmp_path, TWO)
    text = (tmp_path / "manifest.csv").read_text().replace("expression_path", "expression")
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DatasetProblems, match="no expression_path is given"):
        opened(tmp_path)


def test_a_stated_kind_must_be_that_of_the_files(tmp_path: Path) -> None:
    write_spot_study(tmp_path, TWO)
    assert opened(tmp_path, kind="spot").kind == "spot"
    study = opened(tmp_path, kind="bin")  # nothing is read for it
    with pytest.raises(ExpressionError, match="it holds spots, and the study is of bins"):
        SlideSamples.of(study.slides[0], study, ("G1",), settings_of())


def test_bins_are_pooled_to_the_size_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SpatialCounts] = [counts_of(np.ones((64, 1), int), full_rc(8, 8))]
    monkeypatch.setattr(expression_study, "read_expression", lambda path, **facts: made[0])
    assert load_expression(Path("x"), (0.5, 0.5), 2.0, "s") is made[0]
    eight = load_expression(Path("x"), (0.5, 0.5), 8.0, "s")
    assert (eight.size_um, len(eight)) == (8.0, 4)
    assert (eight.counts.toarray() == 16).all()
    for wrong in (3.0, 1.0):
        with pytest.raises(ExpressionError, match="no whole number of them"):
            load_expression(Path("x"), (0.5, 0.5), wrong, "s")
    made[0] = spots_of(np.ones((1, 1), int), np.zeros((1, 2)), 55)
    assert load_expression(Path("x"), (0.5, 0.5), 8.0, "s") is made[0]


# ---- digests --------------------------------------------------------------------------------------------------------


def test_digests_follow_what_is_read_and_not_where_it_lies(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        folder.mkdir()
        write_spot_study(folder, TWO)
    one, two = opened(first), opened(second)
    assert study_digest(one) == study_digest(two)
    assert study_digest(one, one.slides[:1]) != study_digest(one)
    assert slide_digest(one.slides[0]) == slide_digest(two.slides[0]) != slide_digest(one.slides[1])
    before = slide_digest(two.slides[0])
    pixels = np.asarray(Image.open(second / "a.png")).copy()
    pixels[5, 5] = 0
    Image.fromarray(pixels).save(second / "a.png")
    assert slide_digest(two.slides[0]) != before
    assert study_digest(one) != study_digest(opened(second))


def test_counts_beside_a_table_of_spots_belong_to_it(tmp_path: Path) -> None:
    write_spot_study(tmp_path, TWO)
    before = path_digest(tmp_path / "a_spots.csv")
    write_spot_study(tmp_path, {**TWO, "b": ("P1", TABLE + 5)})
    assert path_digest(tmp_path / "a_spots.csv") == before
    write_spot_study(tmp_path, {**TWO, "a": ("P2", TABLE + 5)})
    assert path_digest(tmp_path / "a_spots.csv") != before


def test_a_folder_is_what_lies_below_it(tmp_path: Path) -> None:
    (tmp_path / "run" / "spatial").mkdir(parents=True)
    (tmp_path / "run" / "matrix.h5").write_bytes(b"1")
    (tmp_path / "run" / "spatial" / "positions.parquet").write_bytes(b"2")
    before = path_digest(tmp_path / "run")
    (tmp_path / "run" / "web_summary.html").write_text("not read")
    assert path_digest(tmp_path / "run") == before
    (tmp_path / "run" / "spatial" / "positions.parquet").write_bytes(b"33")
    assert path_digest(tmp_path / "run") != before


def test_patients_and_masks_are_part_of_it(tmp_path: Path) -> None:
    counts = counts_of(np.ones((4, 1), int), full_rc(2, 2))
    one = slide_of(tmp_path, counts)
    other = slide_of(tmp_path, counts, patient="P9")
    assert study_digest(made_study(one)) != study_digest(made_study(other))
    before = slide_digest(one)
    slide_of(tmp_path, counts, tissue=np.eye(160, dtype=bool))
    assert slide_digest(one) != before
