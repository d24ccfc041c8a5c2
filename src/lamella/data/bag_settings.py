"""What a weakly supervised study is made of: slides (or patches), labels, split, tiles, truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lamella.config import Settings
from lamella.data.bags import LabelsAre
from lamella.formats.label_csv import LabelFormat


class WeakDataSettings(Settings):
    """What is learned from: slides (or patches), their labels and split, and where their tiles lie."""

    slides: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Slide files, folders of them, manifest CSVs, or index folders, in any mix. An index (`lamella index`) keeps where
    tissue is; without one it is found anew by every command."""
    labels_are: LabelsAre
    """slide: a label says what a whole slide shows somewhere. patch: what this very tile shows."""
    mpp0: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of the slides' level 0, for files that do not say (plain images). A manifest's own wins."""
    split_csv: Path | None = None
    """Columns train,val,test or filename,split; null: the manifest's column `split`, or no split (folds)."""
    labels_csv: Path | None = None
    """image_name,label or image_name and a column for each class; null: the manifest's columns."""
    label_format: LabelFormat | None = None
    """How labels are written: class_index (a number), columns (0 or 1 in a column of each class) or multi_hot ("1,0").
    null: read off columns named after classes, or names of classes; a bare number is refused."""
    coordinates: Path | None = None
    """A file or folder of tiles; null: a grid over the tissue."""
    place: Literal["corner", "centre"] | None = None
    """What the places of bare (N, 2) coordinates are; files that say it themselves are believed."""
    masks: Path | None = None
    """Folder of pixel truth, named after the slides; null: the manifest's column label_mask_path, or none."""
    mask_values: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Class -> its values in the masks, such as {tumor: [1, 4]}. The background has 0 unless said. Others are not
    labelled."""
    group_column: str | None = None
    """The manifest's column of what must not be torn apart; null: `patient` where there is one."""
    mpp: Annotated[float, Field(gt=0)] = 0.5
    """Micrometres per pixel of a tile."""
    tile_px: Annotated[int, Field(ge=1)] = 224
    """Side of a tile."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a tile that its neighbour in the grid covers too."""
    min_tissue_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least tissue in a tile of the grid."""
    everywhere: bool = False
    """All of every slide is tissue: patches and cut-out regions."""
    max_tiles: Annotated[int, Field(ge=1)] | None = None
    """At most so many tiles of a slide, drawn with the study's seed; null: all."""

    @field_validator("slides", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, Path)) else value

    @field_validator("mask_values", mode="before")
    @classmethod
    def _one_value(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: (value,) if isinstance(value, int) else value for name, value in values.items()}
