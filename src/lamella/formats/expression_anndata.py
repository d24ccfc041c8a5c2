"""Measured expression as AnnData (`.h5ad`), in and out.

`obsm["spatial"]` holds x and y of the places in level-0 pixels, `obs` rows and columns on the chip, and
`uns["lamella"]` what a place is: `shape` (bin or spot), `size_um`, `mpp`. Files are written by h5py alone; those of
others are read through `anndata` (extra `spatial`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from lamella.errors import MissingExtraError, first_line
from lamella.formats.anndata_elements import begun, write_csr, write_element, write_frame
from lamella.formats.atomic import whole_file
from lamella.formats.expression_h5ad import lattice_facts, squidpy_facts
from lamella.formats.feature_names import unique_names
from lamella.formats.h5_room import h5_with_room
from lamella.formats.lattice import agreed_mpp, fit_lattice, no_mpp
from lamella.formats.placed_tiles import DAMAGE
from lamella.formats.sparse_counts import checked_counts, damaged
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.visium_spots import SPOT_UM
from lamella.geometry import BinGrid

COUNTS = "counts"  # the layer that holds raw counts, by scverse's convention


def write_expression_anndata(path: Path | str, counts: SpatialCounts) -> None:
    """Write the expression of a slide, whole or not at all.

    Args:
        path: `.h5ad`.
        counts: Of the slide; they become X.

    Raises:
        StorageError: The disk refused the write.
    """
    columns: dict[str, Any] = {}
    if counts.array_rc is not None:
        columns = {"array_row": counts.array_rc[:, 0], "array_col": counts.array_rc[:, 1]}
    if counts.flagged is not None:
        columns["in_tissue"] = counts.flagged
    matrix = counts.counts
    facts: dict[str, Any] = {"shape": counts.shape, "size_um": counts.size_um, "mpp": counts.mpp}
    if counts.grid is not None:
        facts = lattice_facts(counts.grid, counts.mpp)
    facts |= {"slide": counts.name, "all_measured": counts.all_measured, "captured_rc": counts.captured_rc}
    size = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    size += len(counts) * (counts.barcodes.dtype.itemsize + 32) + 128 * len(counts.genes)
    with whole_file(path) as part, h5_with_room(part, size) as file:
        begun(file)
        write_csr(file, "X", matrix)
        write_frame(file, "obs", counts.barcodes, columns)
        write_frame(file, "var", counts.genes, {"gene_ids": list(counts.gene_ids)} if counts.gene_ids else {})
        write_element(file["obsm"], "spatial", counts.places_px0)
        write_element(file["uns"], "lamella", facts)
        write_element(file["uns"], "spatial", squidpy_facts(counts.name, counts.size_um / counts.mpp))


def read_expression_anndata(
    path: Path | str,
    *,
    mpp: float | tuple[float, float] | None = None,
    layer: str | None = None,
    name: str | None = None,
) -> SpatialCounts:
    """Read a file of AnnData.

    Args:
        path: `.h5ad`.
        mpp: Micrometres per pixel of the image; wins over what the file says.
        layer: Which values; None: the layer `counts`, else X.
        name: Of the slide; the file's, if None.

    Raises:
        ExpressionError: The file is damaged, has no values or places, or does not say what its places are.
        MissingExtraError: anndata is not installed.
    """
    try:
        import anndata  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("anndata", "spatial") from error
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*names are not unique")  # said, or refused, below
            data = anndata.read_h5ad(path)
    except FileNotFoundError as error:
        raise ExpressionError(path, "the file does not exist", "Correct the path.") from error
    except Exception as error:
        # What a damaged file meets in anndata has types of its own, which it does not publish.
        if not isinstance(error, DAMAGE) and not type(error).__module__.startswith("anndata"):
            raise
        raise damaged(path, first_line(error)) from error
    return expression_of_anndata(path, data, mpp=mpp, layer=layer, name=name)


def expression_of_anndata(
    source: Path,
    data: Any,
    *,
    mpp: float | tuple[float, float] | None = None,
    layer: str | None = None,
    name: str | None = None,
    places_px0: np.ndarray | None = None,
    own_facts: Mapping[str, Any] | None = None,
) -> SpatialCounts:
    """The expression that an AnnData object holds.

    Args:
        source: Where it is from, for messages.
        data: The object.
        mpp: See `read_expression_anndata`.
        layer: As there.
        name: As there.
        places_px0: (N, 2) instead of `obsm["spatial"]`.
        own_facts: shape and size_um, known from elsewhere.

    Raises:
        ExpressionError: As there.
    """
    matrix = checked_counts(source, _matrix(source, data, layer))
    places = _places(source, data) if places_px0 is None else places_px0
    array_rc = _array_rc(source, data)
    facts = dict(own_facts) if own_facts else _facts(source, data, array_rc)
    grid = _grid(source, array_rc, places, float(facts["size_um"])) if facts["shape"] == "bin" else None
    genes = [str(gene) for gene in data.var_names]
    ids = tuple(str(entry) for entry in data.var["gene_ids"]) if "gene_ids" in data.var else ()
    notes: tuple[str, ...] = ()
    unique, shared = unique_names(genes, ids or [str(number) for number in range(len(genes))])
    if shared:
        notes = (f"{len(shared)} gene names stand for several genes and were followed by id or number",)
    captured = facts.get("captured_rc")
    return SpatialCounts(
        name=name or source.stem,
        source=source,
        counts=matrix,
        genes=tuple(unique),
        places_px0=places,
        shape=facts["shape"],
        size_um=float(facts["size_um"]),
        mpp=_mpp(source, grid, mpp, facts.get("mpp")),
        barcodes=_barcodes(source, data),
        array_rc=array_rc,
        grid=grid,
        flagged=np.asarray(data.obs["in_tissue"]).astype(bool) if "in_tissue" in data.obs else None,
        gene_ids=ids,
        captured_rc=None if captured is None else tuple(int(side) for side in captured),  # type: ignore[arg-type]
        # Others keep the bins that they were interested in; of the rest nothing is known.
        all_measured=bool(facts.get("all_measured", facts["shape"] == "spot")),
        notes=notes,
    )


def _grid(source: Path, array_rc: np.ndarray | None, places_px0: np.ndarray, size_um: float) -> BinGrid:
    if array_rc is None:
        # mistake: the lattice guessed from places alone; whether it is mirrored cannot be seen
        raise ExpressionError(
            source,
            "its bins have no rows and columns (obs array_row, array_col), which say how the chip lies",
            "Add them, as Space Ranger gives them.",
        )
    return fit_lattice(source, array_rc, places_px0, size_um)


def _mpp(source: Path, grid: BinGrid | None, stated: float | tuple[float, float] | None, own: Any) -> float:
    """What the image says or, if it is silent, the file; of bins it must agree with their size."""
    if grid is not None:
        return agreed_mpp(source, grid, stated, None if own is None else float(own))
    said = stated if stated is not None else own
    if said is None:
        raise no_mpp(source)
    return float(np.sqrt(said[0] * said[1])) if isinstance(said, tuple) else float(said)


def _matrix(source: Path, data: Any, layer: str | None) -> sparse.csr_array:
    if layer is None and COUNTS in data.layers:
        layer = COUNTS
    if layer is not None and layer not in data.layers:
        raise ExpressionError(source, f"it has no layer {layer}", f"It has {', '.join(data.layers) or 'none'}.")
    values = data.X if layer is None else data.layers[layer]
    if values is None:
        predicted = "lamella" in data.uns and bool(data.uns["lamella"].get("predicted", False))
        what = (
            "it holds a prediction, no measured counts" if predicted else "its X is empty and it has no layer `counts`"
        )
        raise ExpressionError(source, what, "Give measured expression.")
    if not sparse.issparse(values) and np.asarray(values).dtype.kind not in "biuf":
        raise ExpressionError(source, f"its values are {np.asarray(values).dtype}, no numbers", "Make it again.")
    return sparse.csr_array(values)


def _places(source: Path, data: Any) -> np.ndarray:
    if "spatial" not in data.obsm:
        raise ExpressionError(
            source, 'it has no obsm["spatial"]', "Add x and y of the places in pixels of the full-resolution image."
        )
    places = np.asarray(data.obsm["spatial"])
    if places.ndim != 2 or places.shape[1] < 2 or places.dtype.kind not in "iuf":
        raise ExpressionError(
            source, f'its obsm["spatial"] is {places.shape} of {places.dtype}', "Give (N, 2) numbers."
        )
    places = places[:, :2].astype(np.float64)
    if not np.isfinite(places).all():
        raise ExpressionError(source, 'its obsm["spatial"] holds a place that is not finite', "Correct it.")
    return places


def _array_rc(source: Path, data: Any) -> np.ndarray | None:
    if "array_row" not in data.obs or "array_col" not in data.obs:
        return None
    array = np.stack([np.asarray(data.obs[key]) for key in ("array_row", "array_col")], 1)
    if array.dtype.kind not in "iuf" or not np.array_equal(array, np.rint(array)):
        raise ExpressionError(source, "array_row or array_col is no whole number", "Correct obs.")
    return array.astype(np.int32)


def _barcodes(source: Path, data: Any) -> np.ndarray:
    names = [str(entry) for entry in data.obs_names]
    if len(set(names)) != len(names):
        raise ExpressionError(source, "names of places (obs_names) stand twice", "Give every place its own name.")
    return np.array([entry.encode() for entry in names], np.bytes_) if names else np.zeros(0, "S1")


def _facts(source: Path, data: Any, array_rc: np.ndarray | None) -> dict[str, Any]:
    """shape, size_um and, if known, mpp: of ours, of Visium HD's scale file, of Visium's array."""
    own = data.uns.get("lamella")
    if isinstance(own, Mapping) and own.get("shape") in ("bin", "spot") and "size_um" in own:
        return dict(own)
    libraries = data.uns.get("spatial")
    scales: Mapping[str, Any] = {}
    if isinstance(libraries, Mapping) and len(libraries) == 1:
        scales = next(iter(libraries.values())).get("scalefactors", {})
    mpp = scales.get("microns_per_pixel")
    if "bin_size_um" in scales:
        return {"shape": "bin", "size_um": float(scales["bin_size_um"]), "mpp": mpp}
    # Visium's array is hexagonal: rows and columns are both even or both odd.
    if array_rc is not None and len(array_rc) > 1 and not (array_rc.sum(1) % 2).any():
        return {"shape": "spot", "size_um": SPOT_UM, "mpp": mpp}
    raise ExpressionError(
        source,
        "it does not say whether its places are bins or spots, and of which size",
        'Set uns["lamella"] = {"shape": "bin" or "spot", "size_um": ..., "mpp": ...} and save it.',
    )
