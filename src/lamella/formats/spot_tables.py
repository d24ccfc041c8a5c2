"""Spots in plain tables: one of places, one of counts. Legacy Spatial Transcriptomics is published so.

The places are a CSV or TSV with a name (`id`, or `x` and `y` of the array, named "10x13") and the place in pixels of
the image. The counts are a table of spots x genes with the names of the genes in its first line and those of the spots
in its first column (TSV or CSV, packed or not), or the parts of a sparse matrix in `.npz` (`data, indices, indptr,
shape`, as scipy writes it) whose rows are in the order of the places.
Shapes: N spots, G genes.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from lamella.errors import first_line
from lamella.formats.feature_matrix import read_feature_matrix
from lamella.formats.feature_names import listed, unique_names
from lamella.formats.lattice import no_mpp
from lamella.formats.sparse_counts import checked_counts, damaged
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.spot_places import read_spot_places, text_table

LEGACY_SPOT_UM = 100.0  # diameter of a spot of Spatial Transcriptomics (Stahl et al. 2016); their centres are 200 apart

_SPOTS = "_spots.csv"
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    EOFError,
    SyntaxError,
    TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class SpotSource:
    """The files of one section.

    Attributes:
        spots: Table of the places.
        counts: Table, `.npz` parts, `.h5` or Matrix Market folder.
        genes: A JSON with a list `genes`, or a text file with one name a line, where the counts do not name them.
        mpp: Micrometres per pixel of the image, if a file says it.
        diameter_um: Of a spot.
    """

    spots: Path
    counts: Path
    genes: Path | None = None
    mpp: float | None = None
    diameter_um: float = LEGACY_SPOT_UM


@dataclass(frozen=True)
class _Counts:
    values: sparse.csr_array
    genes: tuple[str, ...]
    spots: tuple[str, ...] | None
    """Names of the rows; None: in the order of the places."""
    notes: tuple[str, ...] = ()


def read_spot_tables(
    source: SpotSource, *, mpp: float | tuple[float, float] | None = None, name: str | None = None
) -> SpatialCounts:
    """Read the spots of one section.

    Args:
        source: Its files; see `spot_source`.
        mpp: Micrometres per pixel of the image; wins over what the files say.
        name: Of the section; the file's, if None.

    Raises:
        ExpressionError: A file is missing or damaged, spots and counts disagree, or nothing gives micrometres.
    """
    names, places_px0, array_rc = read_spot_places(source.spots)
    counts = _counts(source, len(names))
    order = _rows(source, names, counts)
    stated = mpp if mpp is not None else source.mpp
    if stated is None:
        raise no_mpp(source.spots)
    mpp_x, mpp_y = stated if isinstance(stated, tuple) else (stated, stated)
    return SpatialCounts(
        name=name or source.spots.name.removesuffix(_SPOTS).split(".")[0],
        source=source.spots,
        counts=checked_counts(source.counts, counts.values if order is None else counts.values[order]),
        genes=counts.genes,
        places_px0=places_px0,
        shape="spot",
        size_um=source.diameter_um,
        mpp=float(np.sqrt(mpp_x * mpp_y)),
        barcodes=np.array(names, np.bytes_),
        array_rc=array_rc,
        notes=counts.notes,
    )


def spot_source(path: Path) -> SpotSource:
    """The files of a section, from one of them.

    Args:
        path: `<id>_spots.csv` or `<id>_counts.npz` (or .tsv, .csv, packed or not), with the other and `meta.json`
            beside it; or a JSON that names them: `{"spots": ..., "counts": ..., "genes": ..., "mpp": ...,
            "diameter_um": ...}`, paths being relative to it.

    Raises:
        ExpressionError: A file is missing or says nothing of them.
    """
    if path.suffix == ".json":
        return _described(path)
    stem = path.name.split("_spots")[0].split("_counts")[0]
    spots = path.with_name(stem + _SPOTS)
    counts = [
        path.with_name(f"{stem}_counts{ending}")
        for ending in (".npz", ".tsv", ".tsv.gz", ".csv", ".csv.gz", ".h5")
        if path.with_name(f"{stem}_counts{ending}").is_file()
    ]
    if not spots.is_file() or not counts:
        missing = spots.name if not spots.is_file() else f"{stem}_counts.npz, .tsv, .csv or .h5"
        raise ExpressionError(
            path,
            f"there is no {missing} beside it",
            'Put them together, or describe them in a JSON: {"spots": ..., "counts": ..., "mpp": ...}.',
        )
    meta = path.with_name("meta.json")
    if not meta.is_file():
        return SpotSource(spots, counts[0])
    section = _json(meta).get("sections", {}).get(stem, {})
    own_mpp, diameter_px = section.get("um_per_px"), section.get("spot_diameter_px")
    sized = own_mpp is not None and diameter_px is not None
    return SpotSource(spots, counts[0], meta, own_mpp, round(own_mpp * diameter_px, 3) if sized else LEGACY_SPOT_UM)


def _described(path: Path) -> SpotSource:
    said = _json(path)
    unknown = set(said) - {"spots", "counts", "genes", "mpp", "diameter_um"}
    if "spots" not in said or "counts" not in said or unknown:
        what = (
            f"it has keys that nobody reads: {', '.join(sorted(unknown))}"
            if unknown
            else "it names no spots and counts"
        )
        raise ExpressionError(path, what, 'Write {"spots": ..., "counts": ..., "genes": ..., "mpp": ...}.')
    genes = said.get("genes")
    return SpotSource(
        path.parent / said["spots"],
        path.parent / said["counts"],
        None if genes is None else path.parent / genes,
        said.get("mpp"),
        float(said.get("diameter_um", LEGACY_SPOT_UM)),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Correct the path.") from error
    except (OSError, ValueError) as error:
        raise ExpressionError(path, f"it cannot be read as JSON ({first_line(error)})", "Write it again.") from error
    if not isinstance(read, dict):
        raise ExpressionError(path, "it is no JSON object", "Write it again.")
    return read


def _counts(source: SpotSource, spots: int) -> _Counts:
    path = source.counts
    if path.suffix == ".npz":
        return _of_parts(source, spots)
    if path.suffix == ".h5" or path.is_dir():
        read = read_feature_matrix(path)
        return _Counts(read.counts, read.genes, tuple(entry.decode() for entry in read.barcodes.tolist()), read.notes)
    return _of_table(path)


def _of_parts(source: SpotSource, spots: int) -> _Counts:
    path = source.counts
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as parts:
            kind = parts["format"].item() if "format" in parts else b"csr"
            kind = kind.decode() if isinstance(kind, bytes) else kind
            if kind not in ("csr", "csc"):
                raise ExpressionError(path, f"it is a sparse matrix of the kind {kind}", "Save it as csr.")
            build = sparse.csr_array if kind == "csr" else sparse.csc_array
            arrays = parts["data"], parts["indices"], parts["indptr"]
            values = build(arrays, shape=tuple(int(side) for side in parts["shape"]))
        values.check_format(full_check=True)
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Correct the path.") from error
    except _DAMAGE as error:
        raise damaged(path, first_line(error)) from error
    if source.genes is None:
        raise ExpressionError(
            path, "nothing names its genes", "Put a meta.json with a list `genes` beside it, or name the file."
        )
    genes = _gene_list(source.genes)
    if values.shape != (spots, len(genes)):
        raise ExpressionError(
            path,
            f"it has {values.shape[0]} spots x {values.shape[1]} genes, but {source.spots.name} lists {spots} spots "
            f"and {source.genes.name} {len(genes)} genes",
            "Give the files of the same section.",
        )
    return _Counts(sparse.csr_array(values), genes, None)


def _gene_list(path: Path) -> tuple[str, ...]:
    if path.suffix == ".json":
        genes = _json(path).get("genes")
        if not isinstance(genes, list):
            raise ExpressionError(path, "it has no list `genes`", "Write the names of the genes into it.")
        names = [str(gene) for gene in genes]
    else:
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ExpressionError(path, f"it cannot be read ({first_line(error)})", "Give one gene a line.") from error
    twice = unique_names(names, names)[1]
    if twice:
        raise ExpressionError(path, f"{len(twice)} genes stand twice: {listed(twice)}", "Give each gene its own name.")
    return tuple(names)


def _of_table(path: Path) -> _Counts:
    table = text_table(path, "\t" if ".tsv" in path.name else ",")
    first, *genes = table.column_names
    shared = unique_names(genes, genes)[1]
    if shared:
        raise ExpressionError(path, f"{len(shared)} genes stand twice: {listed(shared)}", "Give each its own name.")
    columns, indices, starts = [], [], [0]
    for gene in genes:
        column = table[gene]
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) or column.null_count:
            raise ExpressionError(path, f"a count of {gene} is missing or no number", "Correct the table.")
        values = column.to_numpy()
        kept = np.flatnonzero(values)
        columns.append(values[kept])
        indices.append(kept)
        starts.append(starts[-1] + len(kept))
    whole = np.concatenate(columns or [np.zeros(0, np.int64)])
    by_gene = sparse.csc_array(
        (whole, np.concatenate(indices or [np.zeros(0, np.int64)]), np.array(starts)),
        shape=(table.num_rows, len(genes)),
    )
    return _Counts(sparse.csr_array(by_gene), tuple(genes), tuple(str(spot) for spot in table[first].to_pylist()))


def _rows(source: SpotSource, names: list[str], counts: _Counts) -> np.ndarray | None:
    """The counts' rows in the order of the places; None if they are."""
    if counts.spots is None:
        return None
    position = {spot: number for number, spot in enumerate(counts.spots)}
    uncounted = [spot for spot in names if spot not in position]
    unplaced = sorted(set(counts.spots) - set(names))
    problems = []
    if len(position) < len(counts.spots):
        problems.append(f"{len(counts.spots) - len(position)} of its spots stand twice")
    if uncounted:
        problems.append(f"{len(uncounted)} spots with a place are not in it: {listed(uncounted)}")
    if unplaced:
        problems.append(f"{len(unplaced)} of its spots have no place: {listed(unplaced)}")
    if problems:
        raise ExpressionError(
            source.counts,
            f"it disagrees with {source.spots.name}: {'; '.join(problems)}",
            "Give tables of the same spots; take out on both sides those that are not on tissue.",
        )
    return np.array([position[spot] for spot in names], np.int64)
