"""The pixels of a DICOM file: stored numbers, then the values that they stand for.

Stored numbers become values by the modality LUT (slope and intercept, or a table); MONOCHROME1 is turned round so that
bright means much. Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames, parse_basic_offsets
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.pixels.processing import convert_color_space

from lamella.errors import ImageError
from lamella.imaging.dicom_codecs import Shape, decode_frame, decodes
from lamella.imaging.dicom_header import MOST_PIXELS, frame_count, number, numbers, syntax_of, text
from lamella.imaging.measured import Unit, Window

_COLOURS = ("Red", "Green", "Blue")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_YBR_STORED = ("YBR_FULL", "YBR_FULL_422")
_BYTE_MAX = 255
_TABLE = "VOI LUT"


@dataclass(frozen=True)
class Pixels:
    """Values of all frames of a file.

    Attributes:
        values: (T, Y, X) float32 or uint8, or (T, Y, X, 3) uint8.
        unit: What they are.
        windows: Windows in their unit.
    """

    values: np.ndarray
    unit: Unit
    windows: tuple[Window, ...]


def measured_pixels(path: Path, header: Dataset) -> Pixels:
    """Decode all frames and give them their unit.

    Raises:
        ImageError: There are no pixels, or nothing decodes them.
        ValueError: The pixels contradict the header (also what `file_faults` catches).
    """
    stored = stored_pixels(path, header)
    colour = text(header, "PhotometricInterpretation")
    if colour in _GREY:
        return _grey(header, stored, turned=colour == "MONOCHROME1")
    if colour == "PALETTE COLOR":
        return Pixels(_looked_up(header, stored), "byte", ())
    if stored.ndim == 4 and stored.shape[3] == 3:  # decoded to RGB, whatever it was stored as
        return Pixels(_eight_bits(stored, int(header.BitsStored)), "byte", ())
    said = colour if colour.replace("_", "").isalnum() else "not stated"
    raise ImageError(path, f"its colours are {said}, which is not read", "Convert it to RGB or grey.")


def stored_pixels(path: Path, header: Dataset) -> np.ndarray:
    """The numbers as stored: (T, Y, X) or (T, Y, X, 3) as RGB, or palette indices.

    Raises:
        ImageError: There are no pixels, or nothing decodes them.
        ValueError: The pixels contradict the header (also what `file_faults` catches).
    """
    if "PixelData" not in header:
        kind = (
            "floating-point pixels" if "FloatPixelData" in header or "DoubleFloatPixelData" in header else "no pixels"
        )
        raise ImageError(path, f"it holds {kind} (element PixelData is missing)", "Give a DICOM file with an image.")
    syntax = syntax_of(header)
    if not decodes(syntax):
        raise ImageError(
            path,
            f"nothing here decodes its transfer syntax, {syntax.name}",
            "Convert it with another program, for example `gdcmconv --raw IN OUT` or `dcmdjpeg IN OUT`.",
        )
    shape, frames = _shape(header), frame_count(header)
    if shape.rows * shape.columns * frames * shape.samples > MOST_PIXELS:
        _check_room(header, shape, frames, compressed=syntax.is_encapsulated)
    stored = _compressed(header, shape, frames) if syntax.is_encapsulated else _plain(header, shape, frames)
    return stored.reshape(frames, shape.rows, shape.columns, *((shape.samples,) if shape.samples > 1 else ()))


def _shape(header: Dataset) -> Shape:
    lacking = [name for name in ("Rows", "Columns", "BitsAllocated", "BitsStored") if header.get(name) is None]
    if lacking:
        raise ValueError(f"it has pixels, but no {', '.join(lacking)}")
    shape = Shape(
        rows=int(header.Rows),
        columns=int(header.Columns),
        samples=int(header.get("SamplesPerPixel") or 1),
        bits_allocated=int(header.BitsAllocated),
        colour=text(header, "PhotometricInterpretation"),
    )
    stored = int(header.BitsStored)
    if not (shape.rows and shape.columns):
        raise ValueError(f"it states {shape.rows} x {shape.columns} pixels")
    if (
        shape.samples not in (1, 3)
        or shape.bits_allocated not in (1, 8, 16, 32)
        or not 0 < stored <= shape.bits_allocated
    ):
        raise ValueError(f"it states {shape.samples} samples of {stored} in {shape.bits_allocated} bits")
    return shape


def _check_room(header: Dataset, shape: Shape, frames: int, *, compressed: bool) -> None:
    """A header may state any size; before memory is taken for many pixels, the bytes must be able to hold them."""
    most = 1000 if compressed else 1  # flat JPEG and run lengths shrink to a few hundredths
    stated = shape.rows * shape.columns * shape.samples * frames * shape.bits_allocated // 8
    if stated > most * len(header.PixelData):
        raise ValueError(f"it states {stated:,} bytes of pixels and holds {len(header.PixelData):,}")


def _plain(header: Dataset, shape: Shape, frames: int) -> np.ndarray:
    """Uncompressed pixels; pydicom unpacks planes, 4:2:2 colours, single bits and byte orders."""
    subsampled = shape.colour == "YBR_FULL_422"
    samples = 2 if subsampled else shape.samples
    frame_bytes = shape.rows * shape.columns * samples * shape.bits_allocated / 8
    held, needed = len(header.PixelData), ceil(frame_bytes * frames)
    if held < needed:
        raise ValueError(f"it is truncated: {held} of {needed} bytes of pixels are there")
    if held - needed >= max(frame_bytes, 2):  # what is less may be filling
        raise ValueError(f"it holds {held / frame_bytes:.4g} frames where NumberOfFrames is {frames}")
    if shape.samples == 1 and shape.bits_allocated > 1 and syntax_of(header).is_little_endian:
        whole = np.frombuffer(header.PixelData, f"<u{shape.bits_allocated // 8}", shape.rows * shape.columns * frames)
        return _meant(whole >> _unused_low_bits(header), int(header.BitsStored), header)
    decoded, _ = get_decoder(syntax_of(header)).as_array(header, raw=shape.samples == 1)
    return _meant(decoded, int(header.BitsStored), header) if shape.samples == 1 else decoded


def _unused_low_bits(header: Dataset) -> int:
    """How many bits lie below the lowest one that counts: none, in all but very old files."""
    stored = int(header.BitsStored)
    return max(0, int(header.get("HighBit") or stored - 1) + 1 - stored)


def _compressed(header: Dataset, shape: Shape, frames: int) -> np.ndarray:
    offsets = None
    if "ExtendedOffsetTable" in header and "ExtendedOffsetTableLengths" in header:
        offsets = (header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths)
    coded = list(
        islice(generate_frames(header.PixelData, number_of_frames=frames, extended_offsets=offsets), frames + 1)
    )
    if len(coded) != frames or len(parse_basic_offsets(header.PixelData)) not in (0, frames):
        found = max(len(coded), len(parse_basic_offsets(header.PixelData)))
        raise ValueError(f"it holds {'more' if found > frames else found} frames where NumberOfFrames is {frames}")
    syntax, out = syntax_of(header), None
    for place, data in enumerate(coded):
        frame, bits = decode_frame(data, syntax, shape)
        if shape.samples == 1:
            frame = _meant(frame, min(bits, 8 * frame.dtype.itemsize), header)
        elif shape.colour in _YBR_STORED and "JPEG Baseline" not in syntax.name and "Extended" not in syntax.name:
            frame = convert_color_space(frame, "YBR_FULL", "RGB")  # JPEG's own decoder has done it already
        out = np.empty((frames, *frame.shape), frame.dtype) if out is None else out
        out[place] = frame
    assert out is not None
    return out


def _meant(stored: np.ndarray, bits: int, header: Dataset) -> np.ndarray:
    """The meant bits of each number, with its sign; what lies in the others (old overlays) is dropped."""
    signed = bool(header.get("PixelRepresentation"))
    kind = np.dtype(f"{'i' if signed else 'u'}{stored.dtype.itemsize}")
    shift = 8 * kind.itemsize - bits
    whole = stored.astype(stored.dtype.newbyteorder("="), copy=False).view(kind)
    if shift <= 0 or (bits == 1 and int(header.BitsAllocated) == 1):
        return whole
    return (whole << shift) >> shift


# ---- values ---------------------------------------------------------------------------------------------------------


def _grey(header: Dataset, stored: np.ndarray, *, turned: bool) -> Pixels:
    slope, intercept = modality_slope(header)
    unit = unit_of(header)
    windows = windows_of(header)
    plain = (slope, intercept) == (1.0, 0.0) and "ModalityLUTSequence" not in header
    bits, signed = int(header.BitsStored), bool(header.get("PixelRepresentation"))
    if unit == "stored" and bits == 8 and not signed and plain and _shows_as_it_is(header, windows):
        return Pixels(_BYTE_MAX - stored if turned else stored, "byte", ())
    if "ModalityLUTSequence" in header:
        values = apply_modality_lut(stored, header).astype(np.float32)
    else:
        values = rescaled(stored, slope, intercept)
    if unit == "stored" and not windows and "VOILUTSequence" in header:
        values, windows = _voi_table(header, values)
    if turned:
        # Mirror the whole range of stored numbers; what is white becomes black and windows move along.
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        table = "ModalityLUTSequence" in header or (windows and windows[0].name == _TABLE)
        both = float(values.min() + values.max()) if table else slope * (low + high) + 2 * intercept
        values = np.float32(both) - values
        windows = tuple(Window(both - window.level, window.width, window.name) for window in windows)
    return Pixels(values, unit, windows)


def rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Stored numbers to float32 values; in double precision where float32 would round."""
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float32)
    if stored.dtype.itemsize <= 2 and slope == 1.0 and intercept == round(intercept) and abs(intercept) < 2**22:
        values = stored.astype(np.float32)  # whole numbers below 2 ** 24 are exact
        values += np.float32(intercept)
        return values
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def modality_slope(header: Dataset) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept; (1, 0) where the header states none.

    Raises:
        ValueError: They are no numbers, or the slope is 0.
    """
    dose = "DoseGridScaling" in header  # the slope of dose grids, to gray
    slope = number(header, "DoseGridScaling" if dose else "RescaleSlope")
    intercept = number(header, "RescaleIntercept")
    if slope == 0:
        raise ValueError("its RescaleSlope is 0, so that all values are one")
    return 1.0 if slope is None else slope, intercept or 0.0


def unit_of(header: Dataset, rescale: Dataset | None = None) -> Unit:
    """HU for CT slices that are rescaled to it; `stored` for everything else (also for a CT's scout view).

    Args:
        header: The file's.
        rescale: What states slope and intercept, if it is not the header.
    """
    rescale = header if rescale is None else rescale
    scout = "LOCALIZER" in {str(value).upper() for value in header.get("ImageType") or ()}
    rescaled_to = text(rescale, "RescaleType").upper()
    stated = number(rescale, "RescaleSlope") is not None and number(rescale, "RescaleIntercept") is not None
    is_hu = text(header, "Modality") == "CT" and stated and not scout and rescaled_to in ("", "HU", "HU_MOD", "US")
    return "HU" if is_hu else "stored"


def windows_of(header: Dataset) -> tuple[Window, ...]:
    """The linear windows that the header recommends, as exact ranges.

    DICOM's LINEAR spreads (c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2] (PS3.3, C.11.2.1.2), LINEAR_EXACT c ± w / 2.
    A SIGMOID is no linear window and is left out, as are widths that leave no range.
    """
    function = text(header, "VOILUTFunction").upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT"):
        return ()
    centres, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    said = header.get("WindowCenterWidthExplanation") or ""
    names = [str(one).strip() for one in said] if isinstance(said, (list, MultiValue)) else [str(said).strip()]
    names += [""] * len(centres)
    shift = 0.5 if function == "LINEAR" else 0.0
    return tuple(
        Window(centre - shift, width - 2 * shift, name)
        for centre, width, name in zip(centres, widths, names, strict=False)
        if width > 2 * shift
    )


def _shows_as_it_is(header: Dataset, windows: tuple[Window, ...]) -> bool:
    """Whether the file's own window is the whole range of a byte, as near as it is written, or there is none."""
    if not windows:
        return "VOILUTSequence" not in header
    return abs(windows[0].level - _BYTE_MAX / 2) <= 1 and abs(windows[0].width - _BYTE_MAX) <= 1


def _voi_table(header: Dataset, values: np.ndarray) -> tuple[np.ndarray, tuple[Window, ...]]:
    """Values through the file's table for display; white is the largest number that its entries can hold."""
    bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
    shown = apply_voi_lut(np.rint(values).astype(np.int32), header, prefer_lut=True).astype(np.float32)
    white = float(2**bits - 1)
    return shown, (Window(white / 2, white, _TABLE),)


def _looked_up(header: Dataset, stored: np.ndarray) -> np.ndarray:
    """Palette indices as colours; of 16-bit entries the high byte is what screens show."""
    words = f"{_COLOURS[0]}PaletteColorLookupTableData"
    if not syntax_of(header).is_little_endian and words in header and header[words].VR == "OW":
        header = copy.copy(header)  # pydicom leaves the tables' words in the file's byte order
        for name in (f"{colour}PaletteColorLookupTableData" for colour in _COLOURS):
            table = np.frombuffer(header[name].value, ">u2").astype("<u2").tobytes()
            header[name] = DataElement(header[name].tag, "OW", table)
    colours = apply_color_lut(stored, header)[..., :3]
    return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)


def _eight_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Colours of any depth as bytes."""
    if samples.dtype == np.uint8 and bits == 8:
        return samples
    if samples.dtype.kind != "u":
        raise ValueError("its colours are signed numbers")
    return np.rint(samples.astype(np.float64) * (_BYTE_MAX / (2**bits - 1))).clip(0, _BYTE_MAX).astype(np.uint8)
