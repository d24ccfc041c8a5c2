"""Generated cohorts with expression: sections of several patients, each with its own stain and its own levels of genes.

Three kinds of files: Visium HD, Visium spots of 55 um, and old arrays of 100 um spots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import sparse

from lamella.formats.atomic import whole_file
from lamella.formats.tables import write_csv
from lamella.slides.phantom import SCANNERS, Scanner, scan, write_phantom
from lamella.slides.phantom_expression import Chip, Genes, draw, lay_chip, make_genes, rates
from lamella.slides.phantom_expression_files import write_hd_folder, write_spot_tables, write_visium_folder
from lamella.slides.phantom_tissue import GLASS, MPP, Tissue, draw_tissue

Files = Literal["hd", "visium", "st"]
TURNS_DEG = (1.1, -0.8, 0.6, -1.3)
"""How the chips of a cohort are turned against their images, in turn."""
# Pitch and diameter of spots in micrometres: Visium's, and an array of Spatial Transcriptomics.
_SPOTS = {"visium": (100.0, 55.0), "st": (200.0, 100.0)}
_COLUMNS = ("slide_id", "wsi_path", "expression_path", "patient", "mpp")


@dataclass(frozen=True)
class ExpressionPlan:
    """What is drawn.

    Attributes:
        files: hd: Space Ranger's folders of Visium HD. visium: its folders of 55 um spots. st: tables of 100 um spots.
        patients: How many.
        slides: Of each patient.
        size_px: Side of an image in level-0 pixels (0.5 um), a multiple of 8.
        side_bins: Bins of 2 um along the side of the chip, a multiple of 8; it must fit into the image when turned.
        genes: How many.
        mirrored: Whether the chips are seen from the other side, as real ones are.
        patient_spread: Deviation of the logarithm of a gene's rate over patients.
        seed: Of everything.
    """

    files: Files = "hd"
    patients: int = 3
    slides: int = 1
    size_px: int = 1024
    side_bins: int = 192
    genes: int = 60
    mirrored: bool = True
    patient_spread: float = 0.25
    seed: int = 0


def write_expression_cohort(folder: Path, plan: ExpressionPlan) -> Path:
    """Write images, expression, truth and the manifest; slides that stand already are left alone.

    In `folder`: `slides/<id>.tif`; `expression/<id>/` (a run's folder, with `true_rates.npz`) or, of st, the tables
    `expression/<id>_*`; `tissue/` and `classes/` masks of the truth; `manifest.csv` (slide_id, wsi_path,
    expression_path, patient, mpp; paths relative to it).

    `true_rates.npz`: `genes` (G,); `expected` (N, G) float32 expected counts, with `rows`, `cols` (N,) of the bins of
    2 um, or with `barcodes` (N,) of the spots; `theta` and `zero` (G,) of the draws.

    Returns:
        Path of `manifest.csv`.
    """
    folder = Path(folder)
    genes = _genes(plan)
    rows = []
    for number in range(plan.patients * plan.slides):
        patient = number // plan.slides
        name = f"p{patient + 1}s{number % plan.slides + 1}"
        image = f"slides/{name}.tif"
        expression = f"expression/{name}" + ("_spots.csv" if plan.files == "st" else "")
        truth = f"expression/{name}" + ("_true_rates.npz" if plan.files == "st" else "/true_rates.npz")
        if not (folder / truth).exists():
            seed = plan.seed * 1000 + number  # 1000: more slides than any generated cohort has
            tissue = draw_tissue(seed, plan.size_px)
            pixels = scan(tissue, scanner_of(patient, plan.seed), seed)
            masks = (folder / kind / f"{name}.png" for kind in ("tissue", "classes"))
            write_phantom(tissue, pixels, folder / image, *masks)
            levels = np.random.default_rng([plan.seed, patient, 14]).normal(0, plan.patient_spread, plan.genes)
            section = _Section(name, tissue, pixels, genes, levels, seed)
            chip = lay_chip(
                plan.size_px, plan.side_bins, turn_deg=TURNS_DEG[number % len(TURNS_DEG)], mirrored=plan.mirrored
            )
            (_write_bins if plan.files == "hd" else _write_spots)(folder, section, chip, plan.files)
        rows.append((name, image, expression, f"P{patient + 1}", MPP))
    write_csv(folder / "manifest.csv", [dict(zip(_COLUMNS, row, strict=True)) for row in rows], _COLUMNS)
    return folder / "manifest.csv"


def _genes(plan: ExpressionPlan) -> Genes:
    """Of spots: a tenth of the counts of Visium HD for their area, and no structural zeros."""
    if plan.files == "hd":
        return make_genes(plan.genes, plan.seed)
    genes = make_genes(plan.genes, plan.seed, (0.0006, 0.018))
    return replace(genes, zero=np.zeros(plan.genes))


def scanner_of(patient: int, seed: int) -> Scanner:
    """The stain and the scanner of a patient: one of the two, its stain vectors varied by some percent."""
    base = SCANNERS[patient % len(SCANNERS)]
    rng = np.random.default_rng([seed, patient, 15])

    def varied(vector: Iterable[float]) -> tuple[float, float, float]:
        red, green, blue = (float(value * rng.uniform(0.94, 1.06)) for value in vector)
        return red, green, blue

    return Scanner(base.name, varied(base.haematoxylin), varied(base.eosin), base.white, base.gamma)


@dataclass(frozen=True)
class _Section:
    """One section as drawn; `levels` (G,) is its patient's change of the logarithm of each gene's rate."""

    name: str
    tissue: Tissue
    pixels: np.ndarray
    genes: Genes
    levels: np.ndarray
    seed: int

    def expected(self, places_px0: np.ndarray) -> np.ndarray:
        return rates(self.tissue, self.genes, places_px0, self.seed, patient=self.levels)


def _write_bins(folder: Path, section: _Section, chip: Chip, _: Files) -> None:
    row, col = (each.ravel() for each in np.indices((chip.rows, chip.cols)))
    places = np.stack(chip.grid.place_px0(row, col), axis=1)
    expected = section.expected(places)
    counts = draw(expected, section.genes, section.seed)
    x, y = places.astype(np.int64).T
    run = folder / "expression" / section.name
    flagged = section.tissue.labels[y, x] > GLASS
    write_hd_folder(run, counts, section.genes.names, chip, flagged, section.pixels, section.seed)
    where = {"rows": row.astype(np.int32), "cols": col.astype(np.int32)}
    _write_truth(run / "true_rates.npz", section.genes, expected, where)


def _write_spots(folder: Path, section: _Section, chip: Chip, files: Files) -> None:
    """Spots are the sums of the bins' rates under their disks."""
    pitch_um, diameter_um = _SPOTS[files]
    row, col, centre = _spot_lattice(chip, pitch_um, hexagonal=files == "visium")
    reach = int(diameter_um // 4)  # bins of 2 um from the centre to the rim
    offset = np.stack([each.ravel() for each in np.mgrid[-reach : reach + 1, -reach : reach + 1]], axis=1)
    offset = offset[np.hypot(*offset.T) * 2 <= diameter_um / 2]
    near = (centre[:, None] + offset[None]).reshape(-1, 2)
    places = np.stack(chip.grid.place_px0(near[:, 0], near[:, 1]), axis=1)
    expected = section.expected(places).reshape(len(centre), len(offset), -1).sum(axis=1)
    x, y = chip.grid.place_px0(centre[:, 0], centre[:, 1])
    on_tissue = section.tissue.labels[y.astype(np.int64), x.astype(np.int64)] > GLASS
    expected, counts = expected[on_tissue], draw(expected, section.genes, section.seed)[on_tissue]
    barcode = np.array([f"SPOT{number:012d}-1" for number in range(len(centre))])
    every = {"barcode": barcode, "row": row, "col": col, "x": x, "y": y, "flagged": on_tissue}
    spots = {name: values[on_tissue] for name, values in every.items()}
    if files == "st":
        write_spot_tables(folder / "expression", section.name, counts, section.genes.names, spots)
        names = np.array([f"{r}x{c}" for r, c in zip(spots["row"], spots["col"], strict=True)])
        truth = folder / "expression" / f"{section.name}_true_rates.npz"
    else:
        run = folder / "expression" / section.name
        write_visium_folder(run, sparse.csr_array(counts), section.genes.names, spots, section.pixels)
        names, truth = spots["barcode"], run / "true_rates.npz"
    _write_truth(truth, section.genes, expected, {"barcodes": names})


def _spot_lattice(chip: Chip, pitch_um: float, *, hexagonal: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns (N,) of spots, and their centres (N, 2) in rows and columns of bins.

    Hexagonal: every other row lies half a pitch aside, and columns count by two, as Visium's do.
    """
    across, down = pitch_um / 2, pitch_um / 2 * (np.sqrt(3) / 2 if hexagonal else 1.0)
    found = []
    for row in range(int(chip.rows // down)):
        odd = row % 2 if hexagonal else 0
        for col in range(int(chip.cols // across)):
            number = 2 * col + odd if hexagonal else col
            found.append((row, number, down / 2 + row * down, across / 2 + (col + odd / 2) * across))
    row, col, centre_row, centre_col = np.array(found).T
    inside = (centre_row < chip.rows - across / 4) & (centre_col < chip.cols - across / 4)
    centre = np.stack([centre_row, centre_col], axis=1)[inside]
    return row[inside].astype(np.int64), col[inside].astype(np.int64), centre


def _write_truth(path: Path, genes: Genes, expected: np.ndarray, where: dict[str, np.ndarray]) -> None:
    arrays = {"genes": np.array(genes.names), "expected": expected, "theta": genes.theta, "zero": genes.zero, **where}
    with whole_file(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
