"""Metrics of a segmentation on 45 generated masks of 4000 x 4000 px and six classes, against scikit-learn and MONAI.

Overlap: the confusion matrix of each image, and pooled Dice, IoU and their mean with patient-bootstrap intervals.
Outlines and objects: boundary F1, HD95 and recall of objects of every class. The peers do one image each (they would
take the morning): scikit-learn's `confusion_matrix`; MONAI's `compute_dice`, and `compute_hausdorff_distance` (95th
percentile) of one class. Numbers must agree before times are compared. Masks are made beforehand and are not in the
times. Usage: `python benchmarks/segment_metrics.py [masks]`.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from scipy.ndimage import gaussian_filter
from sklearn.metrics import confusion_matrix

from lamella.metrics.segments.boundary import HD95, Outlines
from lamella.metrics.segments.confusion import confusion_of, dice_per_class
from lamella.metrics.segments.objects import TrueObjects
from lamella.metrics.segments.protocol import Protocol
from lamella.metrics.segments.scored import Scored, SegmentStudy
from lamella.metrics.segments.tables import segment_rows

MASKS, SIDE, CLASSES, PATIENTS = 45, 4000, 6, 15
UM = (0.25, 0.25)
_COARSE = 4  # generated on a grid four times coarser
_BUMP_PX = 25  # width of the tissue's patches


def main() -> None:
    masks = int(sys.argv[1]) if len(sys.argv) > 1 else MASKS
    pairs = [generated(seed) for seed in range(3)]  # 45 pairs would be 1.4 GB; the time is the same
    images = [pairs[number % len(pairs)] for number in range(masks)]
    print(f"{masks} masks of {SIDE} x {SIDE} px, {CLASSES} classes, {torch.get_num_threads()} thread(s) for torch")

    matrices, overlap_s = timed(lambda: [confusion_of(truth, called, CLASSES) for truth, called in images])
    outlines, outline_s = timed(lambda: [outlined(truth, called) for truth, called in images])
    objects, object_s = timed(lambda: [found(truth, called) for truth, called in images])
    _, table_s = timed(lambda: segment_rows(study(matrices, outlines, objects)))
    print(f"confusion of all             {overlap_s:7.2f} s  {1e3 * overlap_s / masks:7.0f} ms an image")
    print(f"boundary F1 and HD95 of all  {outline_s:7.2f} s  {1e3 * outline_s / masks:7.0f} ms an image")
    print(f"objects of all               {object_s:7.2f} s  {1e3 * object_s / masks:7.0f} ms an image")
    print(f"tables with intervals        {table_s:7.2f} s")
    print(f"together                     {overlap_s + outline_s + object_s + table_s:7.2f} s")

    truth, called = images[0]
    theirs, sklearn_s = timed(lambda: confusion_matrix(truth.ravel(), called.ravel(), labels=range(CLASSES)))
    np.testing.assert_array_equal(matrices[0][:, :CLASSES], theirs)
    compared("confusion, scikit-learn", overlap_s / masks, sklearn_s)
    tensors = one_hot(called), one_hot(truth)
    dice, monai_s = timed(lambda: compute_dice(*tensors, include_background=True)[0].numpy())
    np.testing.assert_allclose(dice_per_class(matrices[0]), dice, rtol=1e-6)
    compared("Dice of one-hot masks, MONAI", overlap_s / masks, monai_s)
    one_class = [tensor[:, 1:2] for tensor in tensors]
    theirs_um, hausdorff_s = timed(lambda: float(hausdorff(*one_class)))
    compared("HD95 of one class, MONAI", outline_s / masks / CLASSES, hausdorff_s)
    # MONAI also counts the image's edge as an outline, so the two agree only nearly.
    print(f"HD95 of class 1: ours {outlines[0][1, HD95]:.2f} um, MONAI {theirs_um:.2f} um")


def compared(name: str, ours_s: float, theirs_s: float) -> None:
    ratio = theirs_s / ours_s
    print(f"{name}: one image {theirs_s:.2f} s, ours {ours_s:.3f} s: {ratio:.0f}x faster")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def generated(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A truth and a prediction that is right for about two thirds of the pixels."""
    rng = np.random.default_rng(seed)
    side = SIDE // _COARSE
    fields = [gaussian_filter(rng.normal(size=(CLASSES, side, side)), (0, _BUMP_PX / 2, _BUMP_PX / 2)) for _ in "ab"]
    truth, called = (
        np.kron(field.argmax(0), np.ones((_COARSE, _COARSE), np.int64)).astype(np.uint8)
        for field in (fields[0], fields[0] + 0.5 * fields[1])
    )
    return truth, called


def outlined(truth: np.ndarray, called: np.ndarray) -> np.ndarray:
    unknown = np.zeros(truth.shape, bool)
    return Outlines(truth, unknown, UM, CLASSES).scores(Outlines(called, unknown, UM, CLASSES), 3.0)


def found(truth: np.ndarray, called: np.ndarray) -> np.ndarray:
    return TrueObjects(truth, CLASSES, UM[0] * UM[1], (500.0, 5000.0), 0).found(called)


def study(matrices: list[np.ndarray], outlines: list[np.ndarray], objects: list[np.ndarray]) -> SegmentStudy:
    count = len(matrices)
    names = tuple(f"class {number}" for number in range(CLASSES))
    return SegmentStudy(
        "generated",
        "model",
        {"model": Scored(np.stack(matrices), np.stack(outlines), np.stack(objects))},
        (),
        np.array([f"image {number}" for number in range(count)]),
        np.array([f"patient {number % PATIENTS}" for number in range(count)]),
        names,
        0,
        Protocol("automatic", False, "none", (), "generated", names, UM[0], "pixels", count),
        tolerance_um=3.0,
        longest_um=SIDE * UM[0] * 2**0.5,
        sizes_um2=(500.0, 5000.0),
    )


def one_hot(labels: np.ndarray) -> torch.Tensor:
    """(1, C, Y, X) as MONAI takes masks; made beforehand, in its favour."""
    return torch.from_numpy(np.stack([labels == number for number in range(CLASSES)])[None].astype(np.float32))


def hausdorff(called: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's own call of its own deprecated argument
        return compute_hausdorff_distance(called, truth, include_background=True, percentile=95, spacing=list(UM))


if __name__ == "__main__":
    main()
