"""Settings of stages 0 to 2: from tiles of known classes to prototypes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lamella.config import Settings
from lamella.data.bag_purity import Pure
from lamella.engine.world import DeviceName, PrecisionName


class CoordinateSettings(Settings):
    """Settings of stage 0."""

    num_per_class: Annotated[int, Field(ge=1)] = 5
    """Slides of each class. Where slides are single patches, num_per_class x samples_per_wsi of them."""
    samples_per_wsi: Annotated[int, Field(ge=1)] = 1000
    """Tiles of each slide."""
    pure: Pure = "auto"
    """What tells tiles of one class. auto: labels of tiles, else pixel truth of training slides, else slides of one
    class. masks: pixel truth alone. labels: never pixel truth. none: any slide with the class."""
    min_cover: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Least share of a tile that pixel truth gives to its class."""


class FeatureSettings(Settings):
    """Settings of stage 1."""

    encoder: str = "plip"
    """A model folder, a name that `lamella encoders` lists, or name@folder of its weights. The default is the
    vision-language model of pathology whose network Lamella can build."""
    tile_px: Annotated[int, Field(ge=1)] | None = None
    """Side in pixels of the tiles shown to the encoder, if not data.tile_px: the same square of tissue, read finer or
    coarser. For encoders whose patches do not divide data.tile_px."""
    precision: PrecisionName = "fp32"
    """Arithmetic of the encoder. bf16 is faster on a GPU and rounds the features; auto takes it where it is native."""
    unreadable_tiles: Literal["fail", "skip"] = "fail"
    """A tile that cannot be decoded: the stage fails, or the tile is left out and listed in skipped.csv."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Tiles encoded at once."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Tiles read at once."""
    device: DeviceName = "auto"
    """Where the encoder runs."""


class PrototypeSettings(Settings):
    """Settings of stage 2."""

    k: Annotated[int, Field(ge=1)] = 3
    """Prototypes of each class."""
    k_list: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """How many each class has, in class_order; one more for the background, where it has exemplars, or it has `k`."""
    spare: Annotated[int, Field(ge=0)] | None = None
    """So many clusters more are made of each class, and those left out that are most like exemplars of other classes.
    null: as many as prototypes for classes whose exemplars are known by labels of whole slides alone (they hold other
    tissue, too) and number at least eight for each prototype, none for the others."""
    restarts: Annotated[int, Field(ge=1)] = 10
    """Starts of the k-means; the best is kept."""
    representatives: Annotated[int, Field(ge=0)] = 0
    """0: a prototype is the centre of its cluster. n: the n exemplars nearest to each centre are prototypes, so that a
    class has n times as many (the paper's code: 5)."""
    pictures: Annotated[int, Field(ge=0)] = 6
    """Exemplars shown of each cluster; 0 draws no pictures."""
    import_from: Path | None = None
    """Prototypes of elsewhere instead: a folder of this stage, or a file of torch.save with features, k_list and
    class_order; or exemplars: a file of torch.save with features and class_names. Nothing is unpickled. Stage 1 does
    nothing then."""
    import_encoder: str | None = None
    """The encoder that made an imported file's features, which does not say; needed only where training shows images to
    that encoder."""

    @model_validator(mode="after")
    def _import_goes_with_its_encoder(self) -> PrototypeSettings:
        if self.import_encoder is not None and self.import_from is None:
            raise ValueError("import_encoder says what made the features of import_from, which is not given")
        return self
