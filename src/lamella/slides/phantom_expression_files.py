"""Generated expression in the files of those who make it: Space Ranger's of Visium HD and of Visium, and plain tables.

The layout of Visium HD is that of Space Ranger 3: the matrix holds the bins under tissue that caught something, genes
in rows; the positions hold every bin of the chip, in another order. Pixels are (row, column) of the full-resolution
image. Sources: 10x Genomics, "HDF5 feature-barcode matrix format" and "Spatial outputs".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
from PIL import Image
from scipy import sparse

from lamella.formats.atomic import whole_file
from lamella.formats.tables import write_csv, write_parquet
from lamella.slides.phantom_expression import Chip
from lamella.slides.phantom_tissue import MPP

BIN_UM = (2, 8, 16)
_HIRES_PX, _LOWRES_PX = 2000, 600  # longest sides of Space Ranger's small images


def write_matrix(path: Path, counts: sparse.csr_array, barcodes: np.ndarray, genes: tuple[str, ...]) -> None:
    """Write counts (N, G) as `filtered_feature_bc_matrix.h5`; the file's columns are the places.

    Raises:
        StorageError: The disk refused the write.
    """
    texts = {
        "feature_type": ["Gene Expression"] * len(genes),
        "genome": ["phantom"] * len(genes),
        "id": [gene_id(number) for number in range(len(genes))],
        "name": list(genes),
    }
    counts = sparse.csr_array(counts)
    counts.sort_indices()
    with whole_file(path) as part, h5py.File(part, "w") as file:
        file.attrs["chemistry_description"] = "Visium HD v1"
        file.attrs["filetype"] = "matrix"
        file.attrs["library_ids"] = np.array([b"phantom"])
        file.attrs["original_gem_groups"] = np.array([1])
        file.attrs["software_version"] = "spaceranger-3.0.0"
        file.attrs["version"] = 2
        matrix = file.create_group("matrix")
        # Rows of ours are columns of the file: the same three arrays.
        matrix.create_dataset("barcodes", data=barcodes.astype("S"), compression="gzip")
        matrix.create_dataset("data", data=counts.data.astype(np.int32), compression="gzip")
        matrix.create_dataset("indices", data=counts.indices.astype(np.int64), compression="gzip")
        matrix.create_dataset("indptr", data=counts.indptr.astype(np.int64), compression="gzip")
        matrix.create_dataset("shape", data=np.array(counts.shape[::-1], np.int32))
        features = matrix.create_group("features")
        features.create_dataset("_all_tag_keys", data=np.array([b"genome"]))
        for name, values in texts.items():
            features.create_dataset(name, data=np.array(values).astype("S"))


def gene_id(number: int) -> str:
    """A stable id in Ensembl's form."""
    return f"ENSP{number:011d}"


def write_hd_folder(
    folder: Path,
    counts: sparse.csr_array,
    genes: tuple[str, ...],
    chip: Chip,
    flagged: np.ndarray,
    pixels: np.ndarray,
    seed: int,
) -> None:
    """Write `binned_outputs/square_{002,008,016}um` and `spatial/` of a run.

    Args:
        folder: The run's.
        counts: (rows * cols, G) int32 of the bins of 2 um, row by row.
        genes: G names.
        chip: Where the bins lie; rows and columns are multiples of 8.
        flagged: (rows * cols,) bool, the vendor's `in_tissue`.
        pixels: (H, W, 3) uint8, the full-resolution image, for the small ones.
        seed: Of the order of the positions.
    """
    pictures = small_images(pixels)
    for bin_um in BIN_UM:
        factor = bin_um // BIN_UM[0]
        square = folder / "binned_outputs" / f"square_{bin_um:03d}um"
        rows, cols = chip.rows // factor, chip.cols // factor
        blocks = _blocks(chip, factor)
        summed = sparse.csr_array(blocks @ counts).astype(np.int32)
        under = (blocks @ flagged.astype(np.int32)) * 2 >= factor**2  # half of its bins, as a coarser mask would say
        row, col = (each.ravel() for each in np.indices((rows, cols)))
        names = np.array([f"s_{bin_um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, col, strict=True)])
        kept = under & (np.diff(summed.indptr) > 0)
        write_matrix(square / "filtered_feature_bc_matrix.h5", summed[kept], names[kept], genes)
        x, y = chip.grid.coarser(factor).place_px0(row, col)
        order = np.random.default_rng([seed, bin_um]).permutation(len(names))
        positions = {
            "barcode": pa.array(names[order]),
            "in_tissue": pa.array(under[order].astype(np.int32)),
            "array_row": pa.array(row[order].astype(np.int32)),
            "array_col": pa.array(col[order].astype(np.int32)),
            "pxl_row_in_fullres": pa.array(y[order]),
            "pxl_col_in_fullres": pa.array(x[order]),
        }
        write_parquet(square / "spatial" / "tissue_positions.parquet", positions)
        facts = {"bin_size_um": float(bin_um), "microns_per_pixel": MPP, "spot_diameter_fullres": bin_um / MPP}
        write_spatial(square / "spatial", pictures, facts)
    write_spatial(folder / "spatial", pictures, None)


def write_visium_folder(
    folder: Path, counts: sparse.csr_array, genes: tuple[str, ...], spots: Mapping[str, np.ndarray], pixels: np.ndarray
) -> None:
    """Write a Visium run: 55 um spots, `spatial/tissue_positions.csv` with a header, no micrometres per pixel stated.

    Args:
        folder: The run's.
        counts: (N, G) int32.
        genes: G names.
        spots: barcode, row, col, x, y, flagged: N values each.
        pixels: (H, W, 3) uint8.
    """
    write_matrix(folder / "filtered_feature_bc_matrix.h5", counts, spots["barcode"], genes)
    columns = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
    rows = zip(*(spots[name].tolist() for name in ("barcode", "flagged", "row", "col", "y", "x")), strict=True)
    lines = [dict(zip(columns, (row[0], int(row[1]), *row[2:]), strict=True)) for row in rows]
    write_csv(folder / "spatial" / "tissue_positions.csv", lines, columns)
    write_spatial(folder / "spatial", small_images(pixels), {"spot_diameter_fullres": 65 / MPP})


def write_spot_tables(
    folder: Path, name: str, counts: sparse.csr_array, genes: tuple[str, ...], spots: Mapping[str, np.ndarray]
) -> None:
    """Write a section of an old array as her2st's are kept here: `<name>_spots.csv`, `<name>_counts.npz`, `meta.json`.

    Args:
        folder: Of all sections.
        name: Of this one.
        counts: (N, G) int32.
        genes: G names, the same in all sections.
        spots: row, col, x, y: N values each.
    """
    total = np.asarray(counts.sum(axis=1)).ravel()
    columns = ("id", "array_x", "array_y", "px", "py", "total_umi")
    rows = zip(*(spots[each].tolist() for each in ("row", "col", "x", "y")), total.tolist(), strict=True)
    lines = [dict(zip(columns, (f"{row[0]}x{row[1]}", *row), strict=True)) for row in rows]
    write_csv(folder / f"{name}_spots.csv", lines, columns)
    parts = {"data": counts.data.astype(np.uint16), "indices": counts.indices.astype(np.int32)}
    with whole_file(folder / f"{name}_counts.npz") as part:
        np.savez_compressed(
            part,
            **parts,
            indptr=counts.indptr.astype(np.int32),
            shape=np.array(counts.shape, np.int64),
            format=np.array(b"csr"),
        )
    path = folder / "meta.json"
    known = json.loads(path.read_text(encoding="utf-8"))["sections"] if path.exists() else {}
    known[name] = {"um_per_px": MPP, "spot_diameter_px": 100 / MPP, "spots": int(counts.shape[0])}
    text = json.dumps({"sections": known, "genes": list(genes), "n_genes": len(genes)}, indent=1)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_spatial(folder: Path, pictures: Mapping[str, np.ndarray], facts: Mapping[str, float] | None) -> None:
    """The small images of a run, and with `facts` its `scalefactors_json.json`."""
    for name, picture in pictures.items():
        if name != "full":
            with whole_file(folder / f"tissue_{name}_image.png") as part:
                Image.fromarray(picture).save(part, compress_level=1)  # eight of them: speed
    if facts is None:
        return
    full = pictures["full"].shape[0]
    factors = {f"tissue_{name}_scalef": pictures[name].shape[0] / full for name in ("hires", "lowres")}
    extra = {"fiducial_diameter_fullres": 330 / MPP, "regist_target_img_scalef": factors["tissue_hires_scalef"]}
    with whole_file(folder / "scalefactors_json.json") as part:
        part.write_text(json.dumps({**facts, **factors, **extra}, indent=4), encoding="utf-8")


def small_images(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The image and Space Ranger's two small ones."""
    found = {"full": pixels}
    for name, side_px in (("hires", _HIRES_PX), ("lowres", _LOWRES_PX)):
        scale = min(1.0, side_px / max(pixels.shape[:2]))
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        found[name] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return found


def _blocks(chip: Chip, factor: int) -> sparse.csr_array:
    """(blocks, bins) of ones: which bins a block is the sum of."""
    row, col = (each.ravel() // factor for each in np.indices((chip.rows, chip.cols)))
    block = row * (chip.cols // factor) + col
    ones = np.ones(len(block), np.int32)
    return sparse.csr_array((ones, (block, np.arange(len(block)))))
