"""Measured values to what people see and networks take: windows, robust percentiles, z-scores over the foreground.

Letters: C channels, T frames, Z slices, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from lamella.config import Settings
from lamella.errors import ImageError
from lamella.imaging.measured import MedicalImage, Unit, Video, Volume, Window

# Level and width in Hounsfield units, as radiologists use them.
WINDOWS: dict[str, Window] = {
    "soft_tissue": Window(40, 400, "soft_tissue"),
    "lung": Window(-600, 1500, "lung"),
    "bone": Window(400, 1800, "bone"),
    "brain": Window(40, 80, "brain"),
    "liver": Window(60, 150, "liver"),
    "mediastinum": Window(50, 350, "mediastinum"),
}
_WHITE = 255.0
# A z-score that is shown spreads this many standard deviations to either side over black to white.
_SHOWN_STD = 3.0
# Percentiles of more values than this are those of every n-th one: their error is below a thousandth of the range.
_ENOUGH_VALUES = 2_000_000

Percent = Annotated[float, Field(ge=0, le=100)]


class IntensitySettings(Settings):
    """How measured values become grey values."""

    name: Literal["auto", "window", "percentile", "zscore", "minmax"] = "auto"
    """auto: bytes as they are; CT by window; everything else by the file's window or percentiles for pictures and by
    z-score over the foreground for volumes. minmax lets one bright pixel darken all others: only when asked for."""
    window: str | tuple[float, float] | None = None
    """A CT window (soft_tissue, lung, bone, brain, liver, mediastinum) or [level, width]; null takes the file's."""
    percentiles: tuple[Percent, Percent] = (0.5, 99.5)
    """Share of values that become black, and up to which the others become white."""

    @field_validator("window")
    @classmethod
    def _known(cls, value: str | tuple[float, float] | None) -> str | tuple[float, float] | None:
        if isinstance(value, str) and value not in WINDOWS:
            raise ValueError(f"one of {', '.join(WINDOWS)}, or [level, width]")
        if isinstance(value, tuple) and not value[1] > 0:
            raise ValueError("[level, width] with a width above 0")
        return value

    @model_validator(mode="after")
    def _ascending(self) -> IntensitySettings:
        if not self.percentiles[0] < self.percentiles[1]:
            raise ValueError("percentiles: the first must be below the second")
        return self

    def asked_window(self) -> Window | None:
        """The window of the settings; None where the file's is to be taken."""
        if self.window is None:
            return None
        return WINDOWS[self.window] if isinstance(self.window, str) else Window(*self.window)


DEFAULT = IntensitySettings()


def to_bytes_rgb(image: MedicalImage, settings: IntensitySettings = DEFAULT) -> np.ndarray:
    """A 2-D image as a network for pictures takes it.

    `auto` leaves bytes as they are; Hounsfield units need a window, of the settings or the file; other values take the
    file's first window, else percentiles.

    Returns:
        (Y, X, 3) uint8; grey thrice.

    Raises:
        ImageError: It is constant, holds NaN or infinity, or needs a window that nobody states.
    """
    shown = _shown(image.values, image.unit, image.windows, settings, image.source or "the image")
    return np.repeat(shown[..., None], 3, axis=-1) if shown.ndim == 2 else shown


def video_bytes(video: Video, settings: IntensitySettings = DEFAULT) -> np.ndarray:
    """All frames as pictures, as `to_bytes_rgb` makes them, with one range for all.

    Returns:
        (T, Y, X, 3) uint8.

    Raises:
        ImageError: As for `to_bytes_rgb`.
    """
    shown = _shown(video.frames_TYXC, video.unit, video.windows, settings, video.source or "the video")
    return np.repeat(shown, 3, axis=-1) if shown.shape[-1] == 1 else shown


def volume_bytes(volume: Volume, settings: IntensitySettings = DEFAULT) -> np.ndarray:
    """A volume as grey pictures, as `to_bytes_rgb` makes them; each channel has its own range, time points share one.

    Returns:
        (C, Z, Y, X) uint8.

    Raises:
        ImageError: As for `to_bytes_rgb`.
    """
    thing = volume.source or "the volume"
    if volume.fourth == "time":
        return _shown(volume.values_CZYX, volume.unit, volume.windows, settings, thing)
    return np.stack([_shown(one, volume.unit, volume.windows, settings, thing) for one in volume.values_CZYX])


def to_network(volume: Volume, settings: IntensitySettings = DEFAULT) -> np.ndarray:
    """A volume as a 3-D network takes it.

    `auto` spreads a window of Hounsfield units over -1 to 1, clipped (the window of the settings, else soft tissue:
    a file's own window is for eyes and differs from file to file). Other volumes become z-scores over the foreground,
    after the settings' percentiles have cut off outliers. Channels are scaled each by itself, time points together.

    Returns:
        (C, Z, Y, X) float32.

    Raises:
        ImageError: A channel is constant or holds NaN or infinity, or a window is asked for that nobody states.
    """
    thing = volume.source or "the volume"
    name = settings.name
    if name == "auto":
        name = "window" if volume.unit == "HU" or settings.window is not None else "zscore"
    windows = () if volume.unit == "HU" and settings.name == "auto" else volume.windows
    scaled = np.empty(volume.values_CZYX.shape, np.float32)
    together = [slice(None)] if volume.fourth == "time" else list(range(len(scaled)))
    for place in together:
        values = volume.values_CZYX[place]
        _check(values, thing, _channel_noun(volume, place))
        if name == "zscore":
            scaled[place] = zscore(values, settings.percentiles)
        else:
            fallback = WINDOWS["soft_tissue"] if settings.name == "auto" else None
            low, high = _range(values, name, windows, settings, thing, fallback)
            scaled[place] = (values - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
            np.clip(scaled[place], -1, 1, out=scaled[place])
    return scaled


def refuse_blank(measured: MedicalImage | Volume | Video) -> None:
    """Refuse what shows nothing, as every use of it would: for those who ask before they begin.

    Raises:
        ImageError: It is constant (a volume: one of its channels), or holds NaN or infinity.
    """
    if isinstance(measured, Volume):
        together = [slice(None)] if measured.fourth == "time" else list(range(len(measured.values_CZYX)))
        for place in together:
            _check(measured.values_CZYX[place], measured.source or "the volume", _channel_noun(measured, place))
    elif isinstance(measured, Video):
        _check(measured.frames_TYXC, measured.source or "the video")
    else:
        _check(measured.values, measured.source or "the image")


def zscore(values: np.ndarray, percentiles: tuple[float, float] = DEFAULT.percentiles) -> np.ndarray:
    """Distance from the foreground's mean in its standard deviations, outliers cut off at the percentiles.

    The foreground is what lies above the mean of all, which leaves out air, as in torchio's `ZNormalization.mean`.

    Returns:
        float32 of the same shape.
    """
    low, high = robust_range(values, percentiles)
    clipped = np.clip(values, low, high, dtype=np.float32)
    sample = _thinned(clipped)
    foreground = sample[sample > sample.mean(dtype=np.float64)]
    mean, std = foreground.mean(dtype=np.float64), foreground.std(dtype=np.float64)
    if std == 0:  # two values: a mask, or a drawing
        mean, std = sample.mean(dtype=np.float64), sample.std(dtype=np.float64)
    clipped -= np.float32(mean)
    clipped /= np.float32(std)
    return clipped


def robust_range(values: np.ndarray, percentiles: tuple[float, float] = DEFAULT.percentiles) -> tuple[float, float]:
    """The percentiles' values; the extremes where the percentiles coincide (a small bright thing on black)."""
    low, high = np.percentile(_thinned(values), percentiles)
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()))


def _shown(
    values: np.ndarray, unit: Unit, windows: Sequence[Window], settings: IntensitySettings, thing: object
) -> np.ndarray:
    """Values from black to white as uint8, in their shape."""
    _check(values, thing)
    name = settings.name
    if name == "auto":
        if unit == "byte" and settings.window is None:
            return values.astype(np.uint8, copy=False)
        name = "window" if unit == "HU" or windows or settings.window is not None else "percentile"
    if name == "zscore":
        scaled = (zscore(values, settings.percentiles) + _SHOWN_STD) * np.float32(_WHITE / (2 * _SHOWN_STD))
    else:
        low, high = _range(values, name, windows, settings, thing)
        scaled = (values - np.float32(low)) * np.float32(_WHITE / (high - low))
    return np.rint(scaled).clip(0, _WHITE).astype(np.uint8)


def _range(
    values: np.ndarray,
    name: str,
    windows: Sequence[Window],
    settings: IntensitySettings,
    thing: object,
    fallback: Window | None = None,
) -> tuple[float, float]:
    """Which value is black, and which white."""
    if name == "percentile":
        return robust_range(values, settings.percentiles)
    if name == "minmax":
        return float(values.min()), float(values.max())
    window = settings.asked_window() or (windows[0] if windows else fallback)
    if window is None:
        raise ImageError(
            thing,
            "it states no window for its values",
            f"Name one: window=NAME ({', '.join(WINDOWS)}) or window=[level,width].",
        )
    return window.level - window.width / 2, window.level + window.width / 2


def _check(values: np.ndarray, thing: object, part: str = "") -> None:
    if not values.size:
        raise ImageError(thing, "it holds no pixels", "Fetch the file again.")
    low, high = float(values.min()), float(values.max())  # NaN goes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(thing, f"some values{part} are NaN or infinite", "Correct them where it was made.")
    if low == high:
        raise ImageError(thing, f"all values{part} are {low:g}: there is nothing to see", "Leave it out.")


def _channel_noun(volume: Volume, place: object) -> str:
    if not isinstance(place, int) or len(volume.values_CZYX) == 1:
        return ""
    return f" of channel {volume.channels[place] if place < len(volume.channels) else place}"


def _thinned(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1)
    # An odd step meets all rows and columns of images whose sides are powers of two.
    return flat[:: (flat.size // _ENOUGH_VALUES) | 1] if flat.size > _ENOUGH_VALUES else flat
