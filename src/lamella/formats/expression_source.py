"""Expression of a slide from whatever it is kept in."""

from __future__ import annotations

from pathlib import Path

from lamella.formats.expression_anndata import read_expression_anndata
from lamella.formats.expression_spatialdata import is_spatialdata, read_expression_spatialdata
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.spot_tables import read_spot_tables, spot_source
from lamella.formats.tiled_labels import is_tiled_labels, read_tiled_labels
from lamella.formats.visium_hd import is_visium_hd, read_visium_hd
from lamella.formats.visium_spots import is_visium_spots, read_visium_spots

_TABLES = (".csv", ".tsv", ".npz", ".gz", ".json")
_TRIED = (
    "a Visium HD folder (binned_outputs, square_XXXum), a Visium folder (with spatial/tissue_positions), AnnData "
    "(.h5ad), SpatialData (.zarr), prepared labels (a folder with patches.json), or tables of spots "
    "(<id>_spots.csv with <id>_counts.npz or .tsv beside it, or a .json that names them)"
)


def read_expression(
    path: Path | str,
    *,
    mpp: float | tuple[float, float] | None = None,
    bin_um: float | None = None,
    name: str | None = None,
) -> SpatialCounts:
    """Read the expression of one slide, all genes.

    Args:
        path: What it is kept in; see the message of an unknown one for the list.
        mpp: Micrometres per pixel of the full-resolution image as the image or manifest says it, of x and y or one
            number.
        bin_um: Wanted side of bins, where a source has several: that size, or the largest one that divides it.
        name: Of the slide; the file's, if None.

    Raises:
        ExpressionError: It is none of these, or cannot be read as what it is.
    """
    path = Path(path)
    if not path.exists():
        raise ExpressionError(path, "there is no such file or folder", "Correct the path.")
    if is_visium_hd(path):
        return read_visium_hd(path, bin_um=bin_um, mpp=mpp, name=name)
    if is_visium_spots(path):
        return read_visium_spots(path, mpp=mpp, name=name)
    if path.suffix == ".h5ad":
        return read_expression_anndata(path, mpp=mpp, name=name)
    if is_spatialdata(path):
        return read_expression_spatialdata(path, mpp=mpp, bin_um=bin_um, name=name)
    if is_tiled_labels(path):
        return read_tiled_labels(path, mpp=mpp, name=name)
    if path.is_file() and path.suffix in _TABLES:
        return read_spot_tables(spot_source(path), mpp=mpp, name=name)
    raise ExpressionError(path, "it is no expression that Lamella reads", f"Give {_TRIED}.")
