"""What colour alone tells: a class for every pixel from its own colour, or from the mean colour around it.

The baseline that a network has to beat. Fitted on the images of the training groups only, with the width of the mean
and the weighting of the classes that do best there.

Letters: P pixels, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.segments.confusion import confusion_of, dice_per_class, mean_of_present

# Sides of the window whose mean colour is taken: a pixel, a nucleus, a few cells.
WINDOWS_PX = (1, 9, 33)
# Colours are told apart in steps of 4: 64 levels of each of red, green and blue, so a table of 262,144 answers.
_SHIFT, _LEVELS = 2, 64
_TISSUE_TIMES = (2.0, 4.0)


@dataclass(frozen=True)
class ColourRule:
    """The class of each colour.

    Attributes:
        window_px: Side of the window whose mean colour is looked up; 1 is the pixel itself.
        table: (64, 64, 64) uint8 channel of a colour.
        told: How it was chosen, for the table's note.
    """

    window_px: int
    table: np.ndarray
    told: str

    def predict(self, pixels_YXC: np.ndarray) -> np.ndarray:
        """(Y, X) uint8 channels of a uint8 (Y, X, 3) image."""
        return self.table[tuple(np.moveaxis(mean_colours(pixels_YXC, self.window_px) >> _SHIFT, -1, 0))]


@dataclass(frozen=True)
class ColourSample:
    """Labelled pixels of one image.

    Attributes:
        colours_WP3: uint8 colours, averaged over each of `WINDOWS_PX`.
        channels_P: uint8 channels.
    """

    colours_WP3: np.ndarray
    channels_P: np.ndarray


def sample_colours(pixels_YXC: np.ndarray, channels_YX: np.ndarray, count: int, *, seed: int = 0) -> ColourSample:
    """Draw labelled pixels of an image, with replacement; none where nothing is labelled."""
    labelled = np.flatnonzero(channels_YX.ravel() != NOT_LABELLED)
    places = labelled[np.random.default_rng(seed).integers(len(labelled), size=count)] if len(labelled) else labelled
    colours = [mean_colours(pixels_YXC, window_px).reshape(-1, 3)[places] for window_px in WINDOWS_PX]
    return ColourSample(np.stack(colours), channels_YX.ravel()[places])


def fit_colour_rule(samples: Sequence[ColourSample], classes: int, background: int | None) -> ColourRule | None:
    """Fit the rule; None where the training images show fewer than two classes.

    Args:
        samples: Of each training image.
        classes: C.
        background: Channel left out of the mean Dice that the choice is made by.
    """
    channels_P = np.concatenate([sample.channels_P for sample in samples]) if samples else np.empty(0, np.uint8)
    if len(np.unique(channels_P)) < 2:
        return None
    best: tuple[float, int, LogisticRegression, str] | None = None
    for number, window_px in enumerate(WINDOWS_PX):
        terms = colour_terms(np.concatenate([sample.colours_WP3[number] for sample in samples]))
        for shares, weighting in _weightings(np.unique(channels_P), background).items():
            model = _fitted(terms, channels_P, weighting)
            matrix = confusion_of(channels_P, model.predict(terms).astype(np.uint8), classes)
            score = float(mean_of_present(dice_per_class(matrix), background))
            told = f"mean colour of {window_px} x {window_px} px, classes {shares}"
            if best is None or score > best[0]:
                best = score, window_px, model, told
    assert best is not None
    _, window_px, model, told = best
    return ColourRule(window_px, table_of(lambda colours_P3: model.predict(colour_terms(colours_P3))), told)


def _weightings(present: np.ndarray, background: int | None) -> dict[str, str | dict[int, float] | None]:
    """How much a pixel of each class counts.

    The most likely class is not the one with the best Dice, which calls more tissue than there is.
    """
    found: dict[str, str | dict[int, float] | None] = {"as frequent as they are": None, "equally frequent": "balanced"}
    if background is not None:
        for times in _TISSUE_TIMES:
            weights = {int(number): 1.0 if number == background else times for number in present}
            found[f"as frequent as they are, tissue {times:g} times so"] = weights
    return found


def _fitted(terms: np.ndarray, channels_P: np.ndarray, weighting: str | dict[int, float] | None) -> LogisticRegression:
    model = LogisticRegression(class_weight=weighting, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline's last digit is not worth more steps
        return model.fit(terms, channels_P)


def table_of(answer: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(64, 64, 64) uint8: the answer for every colour, (P, 3) to (P,)."""
    levels = (np.arange(_LEVELS) << _SHIFT) + (1 << _SHIFT) // 2
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    return answer(grid).astype(np.uint8).reshape((_LEVELS,) * 3)


def colour_terms(colours_P3: np.ndarray) -> np.ndarray:
    """(P, 9) the three values, their squares and products, all about -1 to 1."""
    values = colours_P3.astype(np.float64) / 127.5 - 1
    red, green, blue = values.T
    return np.column_stack([values, values**2, red * green, green * blue, red * blue])


def mean_colours(pixels_YXC: np.ndarray, window_px: int) -> np.ndarray:
    """The colours averaged over the window around each pixel."""
    return pixels_YXC if window_px == 1 else uniform_filter(pixels_YXC, (window_px, window_px, 1), mode="nearest")
