"""Settings of stage 5, under the source's names where it has some."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lamella.config import Settings
from lamella.dense.blending import BlendSettings, WindowName
from lamella.dense.engine import DenseSettings
from lamella.dense.refining.settings import RefineSettings
from lamella.engine.jobs import JobSettings
from lamella.engine.world import DeviceName, PrecisionName
from lamella.slides.tissue import TissueSettings


def _turns(value: Any) -> Any:
    """The source says true or false; true is all eight turned and mirrored copies."""
    return {True: "d4", False: "none"}[value] if isinstance(value, bool) else value


class UncertainSettings(Settings):
    """The list of tiles whose labels would help most (active learning)."""

    count: Annotated[int, Field(ge=0)] = 100
    """Tiles in uncertain_tiles.csv, over all slides together."""
    by: Literal["margin", "entropy"] = "margin"
    """margin: how close the two most probable classes are. entropy: of all classes."""
    most_per_slide: Annotated[int, Field(ge=1)] | None = None
    """Of one slide, so that the list is spread over slides; null: as many as there are."""


class PredictionSettings(Settings):
    """Stage 5: masks of new slides."""

    slides: tuple[Path, ...] = ()
    """Slide files, folders, manifests or index folders; the test slides of the study where none are given here or
    behind the configuration on the command line."""
    mpp0: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of level 0 of new slides whose files do not say."""
    coordinates: Path | None = None
    """Folder of coordinate files, one for each new slide and named after it, or one file: only what these tiles cover
    is labelled. Null: what is tissue."""
    place: Literal["corner", "centre"] | None = None
    """What a bare (N, 2) coordinate file holds: top-left corners or centres. It does not say itself."""
    model: str | None = None
    """A model folder, or that of a run whose folds and seeds are averaged; the study's own by default."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Tiles shown to the model at once."""
    overlap_ratio: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    """Least share of a tile's side that its neighbour covers too."""
    fusion: Literal["averaging", "voting"] = "averaging"
    """How overlapping tiles become one: their probabilities averaged, or each tile votes for one class."""
    window: WindowName = "gaussian"
    """Weight of a tile's pixels in either: less at its edge, which knows less of what is around."""
    use_tta: Annotated[Literal["none", "flips", "d4"], BeforeValidator(_turns)] = "none"
    """Also show every tile mirrored (flips, 4 in all), or turned too (d4, 8). true is d4, false none."""
    scales: Annotated[tuple[float, ...], Field(min_length=1)] = (1.0,)
    """Show every tile at these multiples of the model's micrometres per pixel and average; each must be a whole
    multiple of the smallest, which is the spacing of the mask: 1, 2 adds one half as fine."""
    gate: Literal["none", "predicted"] = "none"
    """predicted: classes that the model says the slide (or each patch, where labels are of patches) does not hold are
    taken out of the maps."""
    refine: RefineSettings = RefineSettings()
    """Post-processing."""
    everywhere: bool | None = None
    """Look at the whole slide, tissue or not; null: as data.everywhere."""
    tissue: TissueSettings = TissueSettings()
    """How tissue is found where neither coordinates nor an index nor a mask give it."""
    small_mpx: Annotated[float, Field(ge=0)] = 16
    """Masks of up to so many megapixels are segmentation_mask.png and confidence_maps.npz, larger ones
    segmentation_mask.ome.tif and confidence_maps.zarr. 16 are 4096 x 4096: 64 MB for each class in memory."""
    geojson: bool = True
    """Also write objects.geojson.gz: outlines of the classes for QuPath; objects.outlines, the same for the viewer."""
    uncertain: UncertainSettings = UncertainSettings()
    """The list of the most uncertain tiles."""
    dct_scaling: bool = False
    """Decode JPEG at 1/2 or 1/4 where the model sees that much less than the slide: faster, not the exact average."""
    precision: PrecisionName = "fp32"
    """Arithmetic of the model. bf16 is faster on a GPU and rounds; auto takes it where it is native."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Tiles read at once."""
    device: DeviceName = "auto"
    """Where the model runs."""
    jobs: JobSettings = JobSettings()
    """Where the slides are done."""

    def dense(self, *, everywhere: bool, within: bool) -> DenseSettings:
        """What the dense engine is told.

        Args:
            everywhere: Look at all of the slide.
            within: Label only what lies in the given area.
        """
        return DenseSettings(
            blend=BlendSettings(window=self.window, overlap=self.overlap_ratio, tta=self.use_tta),
            everywhere=everywhere,
            within_tissue=within,
            tissue=self.tissue,
        )

    def deciding(self) -> dict[str, Any]:
        """What a slide's files depend on, as plain values."""
        return self.model_dump(mode="json", exclude=set(NOT_DECIDING))


# Speed, or which slides: what decides of them (the slide, its tiles, the model) is marked in each slide's folder.
NOT_DECIDING = (
    "slides", "mpp0", "coordinates", "place", "model", "batch_size", "everywhere", "uncertain", "threads", "device",
    "jobs",
)  # fmt: skip
