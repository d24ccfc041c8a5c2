"""Settings of the network that learns masks from labels of images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.models.class_evidence import WHITE_LEVEL, BackgroundScore
from lamella.models.prototype_scores import Merge
from lamella.models.pyramids.building import BackboneSettings, EfficientNetSettings

_NOT_NETWORK = {"backbone", "from_scratch"}


class WeakModelSettings(Settings):
    """The network of stage 3."""

    backbone: BackboneSettings = EfficientNetSettings()
    """What turns a tile into features: efficientnet, segformer (MiT), swin, sam2 or encoder."""
    from_scratch: bool = False
    """Whether a backbone without weights may begin with random ones; otherwise that is refused."""
    scores: Literal["prototypes", "linear"] = "prototypes"
    """prototypes: cosines to adapted prototypes at every level. linear: a plain classifier of the last level (CAM)."""
    merge: Merge = "mean"
    """How a class's prototypes make one map: mean, max, or softmax (weighted by it; what upstream calls max)."""
    merge_used: Merge | None = None
    """The same in maps and answers of the trained model, where that is another; upstream: mean, then softmax."""
    adapter_ratio: Annotated[float, Field(gt=0)] = 0.5
    """Hidden width of the prototypes' adapters over their own."""
    unit_prototypes: bool = True
    """Divide adapted prototypes by their length, too, so that maps are cosines; upstream divides only the features."""
    bias: bool = True
    """Learn an offset for each class and level; upstream has none."""
    norm: bool = True
    """Normalise features over their channels (LayerNorm) before they are compared; upstream does not."""
    project: Annotated[int, Field(ge=1)] | None = None
    """Width to which features are projected linearly before they are compared; null leaves them."""
    tile_pooling: Literal["mean", "top", "max"] = "mean"
    """How a tile's places make its logit: the mean of all, of the highest (top_fraction), or the highest."""
    top_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the places that tile_pooling=top takes the mean of."""
    fuse: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Weights of the levels in maps; null: the last of 0, 0.3, 0.3, 0.4."""
    background_score: BackgroundScore = "power"
    """What the background's share comes from. power: (1 - strongest class)^alpha. white: glass. prototypes: its own;
    only slides and patches without any class teach where it is, and none where it is not, so that it wins too often.
    auto: prototypes where it has some, else power."""
    alpha: Annotated[float, Field(gt=0)] = 1.0
    """Of power. With 1 a class wins from a probability of a half on; upstream's 10 gives it all from 0.16 on."""
    white_level: Annotated[float, Field(gt=0, lt=1)] = WHITE_LEVEL
    """Of white: brightness of the darkest colour from which a pixel is rather glass."""

    def head_facts(self) -> dict[str, Any]:
        """What a model folder must know beside its weights."""
        return self.model_dump(mode="json", exclude=_NOT_NETWORK)
