"""How fast is a Visium HD folder of 2 um bins read, and how much memory does it take beside the matrix itself?

Generated: 1000 x 1000 bins, 500 genes, 3 % of the entries not zero, a chip that is mirrored and turned, files packed
as 10x packs them. Ours: `read_visium_hd`, which also fits the lattice and checks that matrix and positions belong
together. Peer: what scanpy and spatialdata-io do, written with h5py, scipy and pandas: the arrays as the file has them,
a table of positions joined by barcode. Each reads in a process of its own; its peak is what the kernel says (VmHWM)
less what it had when everything was imported.

    python benchmarks/read_visium_hd.py [--side BINS] [--genes G]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from lamella.formats.visium_hd import read_visium_hd

MPP, BIN_UM, TURN_DEG, SHARE = 0.2738, 2, 1.0, 0.03
MOST_MEMORY = 3.0  # of the sparse matrix
CHUNK = 80_000  # entries, as Space Ranger's files have them


def write_run(outs: Path, side: int, genes: int) -> None:
    rng = np.random.default_rng(0)
    square = outs / "binned_outputs" / "square_002um"
    (square / "spatial").mkdir(parents=True)
    row, col = (each.ravel() for each in np.indices((side, side)))
    names = np.char.add(np.char.mod("s_002um_%05d", row), np.char.mod("_%05d-1", col)).astype("S")
    counts = sparse.random_array((side * side, genes), density=SHARE, format="csr", rng=rng, dtype=np.float32)
    order = rng.permutation(side * side)
    with h5py.File(square / "filtered_feature_bc_matrix.h5", "w") as file:
        for name, values in {
            "barcodes": names[order],
            "data": rng.geometric(0.7, counts.nnz).astype(np.int32),
            "indices": counts.indices.astype(np.int64),
            "indptr": counts.indptr.astype(np.int64),
            "features/id": np.array([f"ENSG{number:011d}" for number in range(genes)], "S"),
            "features/name": np.array([f"GENE{number}" for number in range(genes)], "S"),
            "features/feature_type": np.array(["Gene Expression"] * genes, "S"),
        }.items():
            chunks = (min(CHUNK, len(values)),)
            file.create_dataset(f"matrix/{name}", data=values, chunks=chunks, compression="gzip", compression_opts=4)
        file["matrix/shape"] = np.array([genes, side * side], np.int32)
    step, turn = BIN_UM / MPP, math.radians(TURN_DEG)
    x = 21_000 - col * math.cos(turn) * step + row * math.sin(turn) * step
    y = 50 + col * math.sin(turn) * step + row * math.cos(turn) * step
    table = {
        "barcode": pa.array(names).cast(pa.string()),
        "in_tissue": np.ones(len(row), np.int32),
        "array_row": row.astype(np.int32),
        "array_col": col.astype(np.int32),
        "pxl_row_in_fullres": y,
        "pxl_col_in_fullres": x,
    }
    pq.write_table(pa.table(table), square / "spatial" / "tissue_positions.parquet")
    scales = {"bin_size_um": float(BIN_UM), "microns_per_pixel": MPP, "spot_diameter_fullres": step}
    (square / "spatial" / "scalefactors_json.json").write_text(json.dumps(scales))


def ours(square: Path) -> sparse.csr_array:
    return read_visium_hd(square).counts


def theirs(square: Path) -> sparse.csr_matrix:
    with h5py.File(square / "filtered_feature_bc_matrix.h5") as file:
        arrays = {name: file[f"matrix/{name}"][()] for name in ("data", "indices", "indptr", "barcodes", "shape")}
    genes, places = arrays["shape"]
    parts = arrays["data"], arrays["indices"], arrays["indptr"]
    counts = sparse.csr_matrix(parts, shape=(places, genes))
    obs = pandas.DataFrame(index=arrays["barcodes"].astype(str))
    positions = pandas.read_parquet(square / "spatial" / "tissue_positions.parquet").set_index("barcode")
    obs = pandas.merge(obs, positions.loc[obs.index], how="left", left_index=True, right_index=True)
    if len(obs) != counts.shape[0]:
        raise SystemExit("the table lost places")
    return counts


READERS = {"ours": ours, "theirs": theirs}


def kilobytes(key: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])


def read_once(reader: str, square: Path) -> None:
    """In a process of its own: seconds, peak over what was there before, and the matrix's own bytes."""
    before, start = kilobytes("VmRSS"), time.perf_counter()
    counts = READERS[reader](square)
    seconds = time.perf_counter() - start
    own = counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes
    print(seconds, (kilobytes("VmHWM") - before) * 1024, own, int(counts.sum()))


def measure(reader: str, square: Path) -> list[float]:
    command = [sys.executable, __file__, "--read", reader, str(square)]
    return [float(word) for word in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1000, help="bins along the side of the chip")
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_once(arguments.read[0], Path(arguments.read[1]))
        return
    print("name, ours, theirs, ratio, n")
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder), arguments.side, arguments.genes)
        square = Path(folder) / "binned_outputs" / "square_002um"
        rounds = {name: [measure(name, square) for _ in range(arguments.rounds)] for name in READERS}
    if len({row[3] for rows in rounds.values() for row in rows}) != 1:
        raise SystemExit("the readers do not read the same counts")
    seconds = {name: statistics.median(row[0] for row in rows) for name, rows in rounds.items()}
    peaks = {name: max(row[1] for row in rows) for name, rows in rounds.items()}
    matrix = rounds["ours"][0][2]
    n = f"n={arguments.side**2} bins x {arguments.genes} genes, {matrix / 1e6:.0f} MB sparse"
    print(
        f"read Visium HD, {seconds['ours']:.2f} s, {seconds['theirs']:.2f} s, "
        f"{seconds['theirs'] / seconds['ours']:.2f}x faster, {n} x {arguments.rounds}"
    )
    times = peaks["ours"] / matrix
    verdict = "ok" if times <= MOST_MEMORY else "MISS"
    print(
        f"read Visium HD, peak, {peaks['ours'] / 1e6:.0f} MB, {peaks['theirs'] / 1e6:.0f} MB, {times:.2f} times the "
        f"sparse matrix, {n} (target {MOST_MEMORY:g}: {verdict})"
    )


if __name__ == "__main__":
    main()
