"""Studies of generated features for the tests of the questions on images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lamella.data.splits import group_folds
from lamella.metrics.image_study import ImageProbeSettings, ImageStudy, Part

QUICK = ImageProbeSettings(c_grid=(0.01, 1.0), folds=3, inner_folds=2, knn_k=5, control_draws=2)
PER_GROUP = 2


def study(
    *, items: int = 180, classes: int = 2, seed: int = 0, split: bool = True, signal: float = 1.5, sites: int = 0
) -> ImageStudy:
    """Items two a group; one encoder sees the class, five random ones see a little of it, one sees nothing."""
    rng = np.random.default_rng(seed)
    groups = np.arange(items) // PER_GROUP
    labels = groups % classes
    shown = np.eye(classes)[labels]

    def features(strength: float) -> np.ndarray:
        return np.concatenate([strength * shown + rng.normal(size=shown.shape), rng.normal(size=(items, 3))], axis=1)

    part = np.array(["train", "val", "test"])[rng.permutation(groups.max() + 1) % 3][groups]
    rows = {name: np.flatnonzero(part == name) for name in ("train", "val", "test")}
    nobody = np.zeros(0, np.int64)
    folds = group_folds(groups, labels, 3)
    parts = (
        (Part(rows["train"], rows["val"], rows["test"]),)
        if split
        else tuple(Part(np.flatnonzero(folds != fold), nobody, np.flatnonzero(folds == fold)) for fold in range(3))
    )
    return ImageStudy(
        features={
            "ours": (features(signal),),
            "random init": tuple(features(0.3) for _ in range(5)),
            "pixel statistics": (rng.normal(size=(items, 5)),),
        },
        items=np.array([f"i{number}" for number in range(items)]),
        groups=groups,
        parts=parts,
        make_folds=group_folds,
        labels=labels,
        class_names=tuple(f"class {number}" for number in range(classes)),
        labelled=np.ones(items, bool),
        sites=(groups // classes) % sites if sites else None,
        site_names=tuple(f"site {number}" for number in range(sites)),
        probes=QUICK,
        twin="random init",
    )


def several_labels(*, items: int = 180, seed: int = 0) -> ImageStudy:
    """Three classes: one seen by the encoder, one not, one without a single positive."""
    rng = np.random.default_rng(seed)
    base = study(items=items, seed=seed)
    marks = np.stack([base.labels == 1, rng.random(items) < 0.3, np.zeros(items, bool)], axis=1)
    return replace(base, labels=marks, class_names=("seen", "unseen", "absent"))


def permuted(base: ImageStudy, seed: int = 0) -> ImageStudy:
    """The same study with its rows in another order."""
    order = np.random.default_rng(seed).permutation(len(base.items))
    place = np.argsort(order)
    return replace(
        base,
        features={name: tuple(each[order] for each in them) for name, them in base.features.items()},
        items=base.items[order],
        groups=base.groups[order],
        labels=base.labels[order],
        labelled=base.labelled[order],
        parts=tuple(Part(*(np.sort(place[rows]) for rows in (p.train, p.val, p.test))) for p in base.parts),
    )
