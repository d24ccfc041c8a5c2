"""What predictors did on the same images, as counts: the study that a segmentation's table is made of.

Letters: N images, C classes, K sizes of objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from lamella.metrics.resamples import Resamples
from lamella.metrics.segments.protocol import WEAK_PROMPTS, Protocol


@dataclass(frozen=True)
class Scored:
    """What one predictor did.

    Attributes:
        matrices: (N, C, C + 1) as of `confusion.confusion_of`.
        boundaries: (N, C, 2) as of `boundary.boundary_scores`; None where it was not asked, or the size of a pixel is
            unknown.
        objects: (N, C, K, 2) as of `objects.object_counts`; None as above.
    """

    matrices: np.ndarray
    boundaries: np.ndarray | None = None
    objects: np.ndarray | None = None


@dataclass(frozen=True)
class SegmentStudy:
    """Predictors on the same N images.

    Attributes:
        title: What the table is called behind its task.
        judged: Name of the judged predictor.
        scored: Name -> its counts; the judged one first.
        constants: Names of the predictors that give every pixel one class.
        items: (N,) ids.
        groups: (N,) what is resampled together.
        classes: C names.
        background: Channel that is no tissue; None where every channel is one.
        protocol: Of all rows.
        tolerance_um: Of the boundary F1.
        longest_um: Diagonal of the largest image: no distance is longer.
        sizes_um2: Ends of the sizes of objects.
        control: Counts of the judged model's predictions on other groups' images; None where there is one group.
        seed: Of the resamples.
        prompts: Name -> what a weak predictor was told of the judged images; nothing where it is not named.
        against: Names that the judged predictor is compared with; None: all others.

    Raises:
        ValueError: A predictor was not scored on every image, or the protocol is of another number of them.
    """

    title: str
    judged: str
    scored: Mapping[str, Scored]
    constants: tuple[str, ...]
    items: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    background: int | None
    protocol: Protocol
    tolerance_um: float = 0.0
    longest_um: float = 0.0
    sizes_um2: tuple[float, ...] = ()
    control: Scored | None = None
    seed: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict)
    against: tuple[str, ...] | None = None
    resamples: Resamples = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.protocol.n != len(self.items):
            raise ValueError(f"the protocol is of {self.protocol.n} images, and there are {len(self.items)}")
        for name, scored in self.scored.items():
            if len(scored.matrices) != len(self.items):
                raise ValueError(f"{name} was scored on {len(scored.matrices)} of {len(self.items)} images")
        object.__setattr__(self, "resamples", Resamples(self.groups, seed=self.seed))

    def protocol_of(self, name: str, other: str | None = None) -> Protocol:
        """The protocol of a predictor's row; of a difference, that of the one that was told more."""
        told = [self.prompts.get(each, self.protocol.prompt) for each in (name, other) if each is not None]
        if self.protocol.task != "weak":
            return self.protocol
        return replace(self.protocol, prompt=max(told, key=WEAK_PROMPTS.index))

    @property
    def question(self) -> str:
        """The title of the table."""
        return self.protocol.question(self.title)

    @property
    def tissues(self) -> list[tuple[int, str]]:
        """(channel, name) of the classes that are some tissue."""
        return [(number, name) for number, name in enumerate(self.classes) if number != self.background]
