"""Expression, positions, images and patients that no study can be made of, through the command line.

Exit code 2 (1 where other slides are fine), what is wrong and what to do; nothing is dropped or put in its place.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from tests.tiny_expression import PLAN, tiny_expression, write_study

from lamella.cli import main
from lamella.slides.phantom_expression_cohort import ExpressionPlan


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("expression")
    tiny_expression(folder)
    return folder


@pytest.fixture
def cohort(made, tmp_path) -> Path:
    """A copy of the cohort, to be damaged."""
    shutil.copytree(made, tmp_path / "cohort")
    return tmp_path / "cohort"


@pytest.fixture
def check(tmp_path, capsys) -> Callable[..., tuple[int, str]]:
    """Run a stage on a cohort; (exit code, everything it printed)."""

    def run(cohort: Path, stage: str = "check", **changes: Any) -> tuple[int, str]:
        study = write_study(tmp_path / "study.yaml", cohort / "manifest.csv", changes)
        code = main(["expression", stage, str(study), "-o", str(tmp_path / "out")])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out + shown.err

    return run


def squares(cohort: Path, name: str = "p2s1") -> list[Path]:
    """The three folders of bins of a slide."""
    return sorted((cohort / "expression" / name / "binned_outputs").glob("square_*"))


def with_positions(cohort: Path, change: Callable[[dict[str, list[Any]]], object]) -> None:
    for square in squares(cohort):
        path = square / "spatial" / "tissue_positions.parquet"
        columns = pq.read_table(path).to_pydict()
        change(columns)
        pq.write_table(pa.table(columns), path)


def with_counts(cohort: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for square in squares(cohort):
        with h5py.File(square / "filtered_feature_bc_matrix.h5", "r+") as file:
            changed = change(file["matrix/data"][:])
            del file["matrix/data"]
            file["matrix/data"] = changed


def with_manifest(cohort: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    with open(cohort / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = change(list(csv.DictReader(file)))
    with open(cohort / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# ---- matrix and positions --------------------------------------------------------------------------------------------


def test_positions_of_another_run(cohort, check) -> None:
    def rename(columns: dict[str, list[Any]]) -> None:
        columns["barcode"] = [f"x{name}" for name in columns["barcode"]]

    with_positions(cohort, rename)
    code, shown = check(cohort)
    assert code in (1, 2)
    assert "p2s1" in shown
    assert "barcodes" in shown


def test_barcodes_without_a_position_are_counted_and_none_is_dropped(cohort, check) -> None:
    def cut(columns: dict[str, list[Any]]) -> None:
        for name, values in columns.items():
            columns[name] = values[: len(values) // 2]

    with_positions(cohort, cut)
    code, shown = check(cohort)
    assert code in (1, 2)
    assert "p2s1" in shown
    assert "barcodes" in shown


def test_a_truncated_matrix(cohort, check) -> None:
    for square in squares(cohort):
        path = square / "filtered_feature_bc_matrix.h5"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, shown = check(cohort)
    assert code in (1, 2)
    assert "filtered_feature_bc_matrix.h5" in shown


def test_rows_and_columns_without_places_in_the_image(cohort, check) -> None:
    """A mirrored grid without transform: nobody can say which way it lies."""
    with_positions(cohort, lambda columns: [columns.pop(f"pxl_{axis}_in_fullres") for axis in ("row", "col")])
    code, shown = check(cohort)
    assert code in (1, 2)
    assert "pxl_" in shown


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_fractional_and_negative_counts_stop_a_count_loss(cohort, check, value) -> None:
    def change(data: np.ndarray) -> np.ndarray:
        changed = data.astype(np.float32)
        changed[0] = value
        return changed

    with_counts(cohort, change)
    code, shown = check(cohort)
    assert code in (1, 2)
    assert "p2s1" in shown
    assert "counts" in shown


# ---- genes -----------------------------------------------------------------------------------------------------------


def test_genes_that_are_not_measured_are_all_named(cohort, check) -> None:
    code, shown = check(cohort, panel={"genes": ["GLAND1", "NOSUCH1", "NOSUCH2"], "number": None})
    assert code == 2
    assert "NOSUCH1" in shown
    assert "NOSUCH2" in shown
    assert "GLAND1" not in shown.split("NOSUCH1")[0].splitlines()[-1]


def test_a_gene_without_a_count_on_the_judged_slide_is_named_and_goes_on(cohort, check) -> None:
    for square in squares(cohort):
        with h5py.File(square / "filtered_feature_bc_matrix.h5", "r+") as file:
            gene = [name.decode() for name in file["matrix/features/name"][:]].index("GLAND1")
            data = file["matrix/data"][:]
            data[file["matrix/indices"][:] == gene] = 0
            file["matrix/data"][...] = data
    code, shown = check(cohort, panel={"genes": ["GLAND1", "STROMA1"], "number": None})
    assert code == 0, shown
    assert "GLAND1" in shown + (cohort.parent / "out" / "checked" / "report.md").read_text(encoding="utf-8")


# ---- images and patients ---------------------------------------------------------------------------------------------


def test_an_image_that_does_not_say_its_mpp(cohort, check) -> None:
    with_manifest(cohort, lambda rows: [{key: row[key] for key in row if key != "mpp"} for row in rows])
    path = cohort / "slides" / "p1s1.tif"
    pixels = tifffile.imread(path, level=0)
    path.unlink()
    Image.fromarray(pixels).save(path.with_suffix(".png"))
    renamed = {"slides/p1s1.tif": "slides/p1s1.png"}
    with_manifest(
        cohort, lambda rows: [{**row, "wsi_path": renamed.get(row["wsi_path"], row["wsi_path"])} for row in rows]
    )
    code, shown = check(cohort)
    assert code == 2
    assert "p1s1" in shown
    assert "mpp" in shown


def test_an_mpp_that_contradicts_the_bins(cohort, check) -> None:
    with_manifest(cohort, lambda rows: [{**row, "mpp": "0.25"} for row in rows])
    code, shown = check(cohort)
    assert code in (1, 2)
    assert "0.25" in shown


def test_one_patient_only(cohort, check) -> None:
    with_manifest(cohort, lambda rows: [{**row, "patient": "P1"} for row in rows])
    for stage in ("check", "train"):
        code, shown = check(cohort, stage)
        assert code == 2
        assert "one patient" in shown.lower() or "only" in shown


def test_a_patient_in_two_folds(cohort, check) -> None:
    with_manifest(
        cohort,
        lambda rows: [{**row, "patient": "P1" if n < 2 else "P3", "fold": str(n)} for n, row in enumerate(rows)],
    )
    code, shown = check(cohort)
    assert code == 2
    assert "P1" in shown


def test_one_section_listed_as_two_patients(cohort, check) -> None:
    """The same expression under two names would be judged by a model that has seen it."""
    shutil.rmtree(cohort / "expression" / "p2s1")
    shutil.copytree(cohort / "expression" / "p1s1", cohort / "expression" / "p2s1")
    code, shown = check(cohort)
    assert code == 2
    assert "p1s1" in shown
    assert "p2s1" in shown


def test_a_missing_expression_folder(cohort, check) -> None:
    shutil.rmtree(cohort / "expression" / "p3s1")
    code, shown = check(cohort)
    assert code == 2
    assert "p3s1" in shown


# ---- settings --------------------------------------------------------------------------------------------------------


def test_bins_that_are_no_multiple_of_the_files(cohort, check) -> None:
    code, shown = check(cohort, data={"bin_um": 3})
    assert code in (1, 2)
    assert "3 um" in shown


def test_a_count_loss_of_values(cohort, check) -> None:
    code, shown = check(cohort, "train", data={"target": "log_cpm"})
    assert code == 2
    assert "nb" in shown
    assert "mse" in shown


def test_the_neighbourhood_of_spots_needs_rows_and_columns(tmp_path, check) -> None:
    """A spot table without an array: its neighbours are unknown, and are not guessed."""
    plan = ExpressionPlan(files="st", size_px=512, side_bins=104, genes=6, seed=PLAN.seed)
    tiny_expression(tmp_path / "st", plan)
    for path in (tmp_path / "st" / "expression").glob("*_spots.csv"):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        kept = [{key: row[key] for key in row if not key.startswith("array_")} for row in rows]
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(kept[0]))
            writer.writeheader()
            writer.writerows({**row, "id": f"spot{number}"} for number, row in enumerate(kept))
    code, shown = check(tmp_path / "st", "train", data={"target": "log_cpm_smoothed"}, train={"loss": {"name": "mse"}})
    assert code == 2
    assert "rows and columns" in shown
