"""Labels, splits and coordinates that no study can be made of, through the command line: exit code 2, what is wrong and
what to do; and odd ones that have a defined result."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_weak import PLAN, in_files, rows_of, tiny_cohort, write_rows, write_study

from lamella.cli import main


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return tiny_cohort(tmp_path_factory.mktemp("weak") / "cohort")


@pytest.fixture
def weak(cohort, tmp_path, capsys):
    """Run a stage on a changed study; (exit code, everything it printed). Where it is refused, nothing is written."""

    def written() -> dict[Path, int]:
        files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files if path.suffix in (".npy", ".parquet", ".safetensors")}

    def run(stage: str = "coordinates", **changes: Any) -> tuple[int, str]:
        study = write_study(tmp_path / "study.yaml", cohort, **changes)
        before = written()
        code = main(["weak", stage, str(study), "-o", str(tmp_path / "out")])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        assert code == 0 or written() == before
        return code, shown.out + shown.err

    return run


def with_split(cohort: Path, text: str, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    return in_files(cohort) | {"split_csv": str(tmp_path / "split.csv")}


def with_labels(cohort: Path, rows: list[dict[str, Any]], tmp_path: Path, **more: Any) -> dict[str, Any]:
    return in_files(cohort) | {"labels_csv": str(write_rows(tmp_path / "labels.csv", rows)), **more}


def names(cohort: Path) -> list[str]:
    return [row["slide_id"] for row in rows_of(cohort / "manifest.csv")]


# ---- split -----------------------------------------------------------------------------------------------------------


def test_a_ragged_split_is_read_as_it_is_meant(weak, cohort):
    code, shown = weak(data=in_files(cohort))  # train has four slides, the others two
    assert code == 0, shown


def test_a_row_with_more_cells_than_columns_is_refused(weak, cohort, tmp_path):
    one, two, three, *_ = names(cohort)
    code, shown = weak(data=with_split(cohort, f"train,val,test\n{one},{two},{three},{one}\n", tmp_path))
    assert code == 2
    assert "split.csv" in shown


def test_an_image_in_two_parts_is_refused_whatever_it_is_called(weak, cohort, tmp_path):
    one, two, three, *_ = names(cohort)
    code, shown = weak(data=with_split(cohort, f"train,val,test\n{one},{two},{one}.tif\n{three},,\n", tmp_path))
    assert code == 2
    assert f"slide {one} (as {one}.tif) stands in train and in test" in shown


def test_a_patient_in_two_parts_is_refused(weak, cohort, tmp_path):
    rows = rows_of(cohort / "manifest.csv")
    for row in rows:
        row |= {key: str(cohort / row[key]) for key in ("wsi_path", "label_mask_path")}
    rows[0]["split"] = "test"  # the second slide of its patient is trained on
    code, shown = weak(data={"slides": str(write_rows(tmp_path / "manifest.csv", rows))})
    assert code == 2
    assert f"patient {rows[0]['patient']} stands in" in shown


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_an_unknown_class_is_refused(weak, cohort, tmp_path):
    rows = [{"image_name": name, "label": "necrosis"} for name in names(cohort)]
    code, shown = weak(data=with_labels(cohort, rows, tmp_path))
    assert code == 2
    assert "necrosis" in shown
    assert "gland" in shown  # the classes that there are


def test_the_number_of_a_class_that_is_not_there_is_refused(weak, cohort, tmp_path):
    rows = [{"image_name": name, "label": 2} for name in names(cohort)]
    code, shown = weak(data=with_labels(cohort, rows, tmp_path, label_format="class_index"))
    assert code == 2
    assert "2" in shown


def test_a_bare_1_is_not_guessed(weak, cohort, tmp_path):
    rows = [{"image_name": name, "label": number % 2} for number, name in enumerate(names(cohort))]
    code, shown = weak(data=with_labels(cohort, rows, tmp_path))
    assert code == 2
    assert "label_format" in shown
    code, shown = weak(data=with_labels(cohort, rows, tmp_path, label_format="class_index"))
    assert code == 0, shown


def test_two_labels_of_one_image_are_refused(weak, cohort, tmp_path):
    rows = rows_of(cohort / "labels.csv")
    twice = rows[0] | {"image_name": rows[0]["image_name"] + ".tif", "gland": 1 - int(rows[0]["gland"])}
    code, shown = weak(data=with_labels(cohort, [*rows, twice], tmp_path))
    assert code == 2
    assert "labelled twice, and differently" in shown


def test_a_class_with_no_slides_is_refused(weak):
    code, shown = weak(
        class_order=["gland", "lymphoid", "solid"], data={"mask_values": {"gland": 1, "lymphoid": 3, "solid": 4}}
    )
    assert code == 2
    assert "solid" in shown


def test_a_class_absent_from_validation_is_told(weak, cohort, tmp_path):
    rows = rows_of(cohort / "labels.csv")
    validated = [row["val"] for row in rows_of(cohort / "split.csv") if row["val"]]
    for row in rows:
        if row["image_name"] in validated:
            row["gland"] = "0"
    code, shown = weak(data=with_labels(cohort, rows, tmp_path))
    assert code == 0, shown
    assert "class gland: no slide of val has it" in shown


# ---- coordinates -----------------------------------------------------------------------------------------------------


def coordinates(cohort: Path, tmp_path: Path, name: str, array: np.ndarray, **more: Any) -> dict[str, Any]:
    """The cohort's coordinates, but those of one slide."""
    folder = tmp_path / "coordinates"
    folder.mkdir(exist_ok=True)
    for file in (cohort / "coordinates").glob("*.npy"):
        (folder / file.name).write_bytes(file.read_bytes())
    np.save(folder / f"{name}.npy", array)
    return in_files(cohort) | {"coordinates": str(folder), **more}


def tiles_of(cohort: Path, name: str) -> np.ndarray:
    return np.load(cohort / "coordinates" / f"{name}.npy", allow_pickle=False)


def test_coordinates_off_the_slide_are_refused_not_padded(weak, cohort, tmp_path):
    name = names(cohort)[0]
    tiles = tiles_of(cohort, name)
    tiles["x"][0] = PLAN.size_px + 100
    code, shown = weak(data=coordinates(cohort, tmp_path, name, tiles))
    assert code == 2
    assert name in shown
    assert "outside" in shown or "off" in shown


def test_coordinates_of_another_slide_are_refused(weak, cohort, tmp_path):
    one, two, *_ = names(cohort)
    code, shown = weak(data=coordinates(cohort, tmp_path, one, tiles_of(cohort, two)))
    assert code == 2
    assert one in shown
    assert two in shown


def renamed(tiles: np.ndarray, name: str) -> np.ndarray:
    kinds = [(key, tiles.dtype[key]) for key in tiles.dtype.names if key != "wsi_name"]
    found = np.zeros(len(tiles), [*kinds, ("wsi_name", f"U{len(name)}")])
    for key, _ in kinds:
        found[key] = tiles[key]
    found["wsi_name"] = name
    return found


def test_a_slide_goes_by_its_name_with_and_without_extension(weak, cohort, tmp_path):
    name = names(cohort)[1]  # not the first: the source took the first slide listed
    bare = tiles_of(cohort, name)
    for called in (name, f"{name}.tif"):
        code, shown = weak("coordinates", data=coordinates(cohort, tmp_path, name, renamed(bare, called)))
        assert code == 0, shown  # the second time it is the same study: nothing is to be done
    code, shown = weak(data=coordinates(cohort, tmp_path, name, renamed(bare, "case_77")))
    assert code == 2
    assert "case_77" in shown


def test_bare_places_are_corners_or_centres_only_where_it_is_said(weak, cohort, tmp_path):
    name = names(cohort)[0]
    tiles = tiles_of(cohort, name)
    centres = np.stack([tiles["x"], tiles["y"]], axis=1) + PLAN.tile_px // 2
    code, shown = weak(data=coordinates(cohort, tmp_path, name, centres))
    assert code == 2
    assert "data.place" in shown
    code, shown = weak(data=coordinates(cohort, tmp_path, name, centres, place="centre"))
    assert code == 0, shown


class _Payload:
    """Unpickling it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_an_object_array_is_refused_without_being_unpickled(weak, cohort, tmp_path):
    name = names(cohort)[0]
    trace = tmp_path / "it ran"
    array = np.array([_Payload(trace)], object)
    pickle.dumps(array)  # it can be pickled, so it could be loaded
    data = coordinates(cohort, tmp_path, names(cohort)[1], tiles_of(cohort, names(cohort)[1]))
    np.save(tmp_path / "coordinates" / f"{name}.npy", array, allow_pickle=True)
    code, shown = weak(data=data)
    assert code == 2
    assert f"{name}.npy" in shown
    assert not trace.exists()


def test_tiles_of_another_size_are_refused(weak, cohort):
    code, shown = weak(data=in_files(cohort) | {"tile_px": 96})
    assert code == 2
    assert "32" in shown or "64" in shown


# ---- stages ----------------------------------------------------------------------------------------------------------


def test_a_stage_before_its_turn_names_the_one_that_comes_first(weak):
    for stage, first in (
        ("features", "weak coordinates"),
        ("prototypes", "weak features"),
        ("train", "prototypes"),
        ("evaluate", "train"),
    ):
        code, shown = weak(stage)
        assert code == 2
        assert first in shown, stage


def test_an_unknown_stage_and_a_missing_study_are_refused(capsys, tmp_path):
    assert main(["weak", "segment", "study.yaml", "-o", str(tmp_path)]) == 2
    assert "it takes a stage first (run, coordinates" in capsys.readouterr().err
    assert main(["weak", "run", "-o", str(tmp_path)]) == 2
    assert "no configuration is given" in capsys.readouterr().err


def test_a_label_of_a_slide_is_never_taken_for_one_of_its_patches(weak):
    code, shown = weak(data={"labels_are": "patch"})
    assert code == 2
    assert "data.labels_are=slide" in shown


def test_what_labels_are_of_must_be_said(weak):
    code, shown = weak(data={"labels_are": None})
    assert code == 2
    assert "labels_are" in shown
