"""Image prototypes: typical features of each class, to which pixels are compared.

Shapes: K prototypes of all classes, D numbers each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of every class, class by class.

    Attributes:
        features_KD: float32, of unit length (they are compared by their angle).
        classes: Names, in the order of the channels: the classes, then the background where it has prototypes.
        k_list: How many prototypes each class has; they add up to K.
        encoder: Name of the encoder that made the features, as `load_encoder` takes it.
        fingerprint: Of that encoder.
        facts: Plain values for the reader: sizes of clusters, how exemplars were chosen.
    """

    features_KD: Tensor
    classes: tuple[str, ...]
    k_list: tuple[int, ...]
    encoder: str
    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cumsum_k(self) -> tuple[int, ...]:
        """Where each class begins, and K: (0, 3, 6) for two classes of three."""
        return (0, *(int(end) for end in np.cumsum(self.k_list)))

    @property
    def class_of_K(self) -> np.ndarray:
        """(K,) the number of each prototype's class."""
        return np.repeat(np.arange(len(self.k_list)), self.k_list)
