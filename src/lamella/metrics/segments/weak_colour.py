"""What colour alone tells when only labels of whole images are given: the baseline of weakly trained models.

Every pixel of an image is taken to have the labels of the image, which is wrong of many; over all images the colours of
a class are still more frequent where the class is. One logistic regression for each class against the images without
it, both weighted alike; a pixel is the most likely class, and the background where none is likelier than not, or where
there is glass. No mask is used, neither to fit nor to choose.

Letters: P pixels, C classes (without the background), W windows, I images.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lamella.metrics.segments.colour import WINDOWS_PX, ColourRule, colour_terms, mean_colours, table_of

# Optical density below which Macenko et al. (2009) take a pixel for transparent: glass.
_GLASS_OD = 0.15
_WHITE = 240.0  # the value of glass there


@dataclass(frozen=True)
class WeakColourSample:
    """Pixels of one image and what is known of the whole.

    Attributes:
        colours_WP3: uint8 colours, averaged over each of `WINDOWS_PX`.
        labels_C: 0 or 1 for each class.
    """

    colours_WP3: np.ndarray
    labels_C: np.ndarray


def sample_weak_colours(
    pixels_YXC: np.ndarray, labels_C: Sequence[int], count: int, *, seed: int = 0
) -> WeakColourSample:
    """Draw pixels of an image, with replacement."""
    height, width = pixels_YXC.shape[:2]
    places = np.random.default_rng(seed).integers(height * width, size=count)
    colours = [mean_colours(pixels_YXC, window_px).reshape(-1, 3)[places] for window_px in WINDOWS_PX]
    return WeakColourSample(np.stack(colours), np.asarray(labels_C, np.uint8))


def fit_weak_colour_rule(samples: Sequence[WeakColourSample], background: int | None) -> ColourRule | None:
    """Fit the rule; None where a class is in all images or in none: nothing tells its colours apart then.

    The window of the mean is the one whose classes tell the images' own labels best (mean area under the ROC curve).

    Args:
        samples: Of each training image.
        background: Channel of the background, behind the classes; None where every pixel is some class.
    """
    labels_IC = np.stack([sample.labels_C for sample in samples]) if samples else np.zeros((0, 0), np.uint8)
    if not labels_IC.size or (labels_IC.all(0) | ~labels_IC.any(0)).any():
        return _only_class(labels_IC, background)
    image_P = np.repeat(np.arange(len(samples)), [sample.colours_WP3.shape[1] for sample in samples])
    best: tuple[float, int, list[LogisticRegression]] | None = None
    for number, window_px in enumerate(WINDOWS_PX):
        terms = colour_terms(np.concatenate([sample.colours_WP3[number] for sample in samples]))
        models = [_fitted(terms, labels_P) for labels_P in labels_IC[image_P].T]
        score = _told(_likelihoods(models, terms), image_P, labels_IC)
        if best is None or score > best[0]:
            best = score, window_px, models
    assert best is not None
    score, window_px, models = best
    told = f"mean colour of {window_px} x {window_px} px, tells the training images' labels with an AUC of {score:.2f}"
    return ColourRule(window_px, table_of(lambda colours_P3: _answers(models, colours_P3, background)), told)


def _only_class(labels_IC: np.ndarray, background: int | None) -> ColourRule | None:
    """Where one class is all there is, what is not glass is it: labels say no more, and that is a rule."""
    if background is None or labels_IC.shape[1:] != (1,) or not labels_IC.all():
        return None
    table = table_of(lambda colours_P3: np.where(_is_glass(colours_P3), background, 0))
    return ColourRule(WINDOWS_PX[0], table, "every training image has the one class: what is not glass is called it")


def _fitted(terms: np.ndarray, labels_P: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline's last digit is not worth more steps
        return LogisticRegression(class_weight="balanced", max_iter=200).fit(terms, labels_P)


def _likelihoods(models: Sequence[LogisticRegression], terms: np.ndarray) -> np.ndarray:
    """(P, C) probability that a pixel is of an image with the class."""
    return np.stack([model.predict_proba(terms)[:, 1] for model in models], axis=1)


def _told(likelihoods_PC: np.ndarray, image_P: np.ndarray, labels_IC: np.ndarray) -> float:
    """Mean over the classes of how well the mean likelihood of an image's pixels tells its label."""
    count_I = np.bincount(image_P, minlength=len(labels_IC))
    scores = [
        roc_auc_score(labels_I, np.bincount(image_P, weights=likelihood_P, minlength=len(labels_IC)) / count_I)
        for likelihood_P, labels_I in zip(likelihoods_PC.T, labels_IC.T, strict=True)
    ]
    return float(np.mean(scores))


def _answers(models: Sequence[LogisticRegression], colours_P3: np.ndarray, background: int | None) -> np.ndarray:
    likelihoods_PC = _likelihoods(models, colour_terms(colours_P3))
    called_P = likelihoods_PC.argmax(1)
    if background is None:
        return called_P
    nothing_P = (likelihoods_PC.max(1) <= 0.5) | _is_glass(colours_P3)
    return np.where(nothing_P, background, called_P)


def _is_glass(colours_P3: np.ndarray) -> np.ndarray:
    density_P3 = -np.log((colours_P3.astype(np.float64) + 1) / _WHITE)
    return (density_P3 < _GLASS_OD).all(1)
