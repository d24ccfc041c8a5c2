"""One DICOM image, and the spacing of its pixels."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset

from lamella.errors import ImageError
from lamella.imaging.dicom_header import file_faults, frame_count, number, numbers, read_dataset, text
from lamella.imaging.dicom_pixels import measured_pixels
from lamella.imaging.measured import MedicalImage

_CENTIMETRES, _TISSUE = 3, 1  # PhysicalUnitsXDirection; RegionSpatialFormat "2D"


def read_dicom_image(path: Path) -> MedicalImage:
    """Read a DICOM file with one frame.

    Raises:
        ImageError: It is damaged, has no pixels or several frames.
    """
    header = read_dataset(path)
    with file_faults(path):
        frames = frame_count(header)
        if frames > 1:
            raise ImageError(path, f"it holds {frames} frames, not one image", "Read it as a volume or a video.")
        pixels = measured_pixels(path, header)
        return MedicalImage(
            values=pixels.values[0],
            unit=pixels.unit,
            spacing_mm=pixel_spacing_mm(header),
            modality=text(header, "Modality") or None,
            windows=pixels.windows,
            source=str(path),
        )


def pixel_spacing_mm(header: Dataset) -> tuple[float, float] | None:
    """(row, column) spacing: of the patient where stated, else of the detector, divided by the stated magnification.

    None where no spacing above 0 is stated.
    """
    found = numbers(header, "PixelSpacing")
    if not found:
        magnified = number(header, "EstimatedRadiographicMagnificationFactor") or 1.0
        found = tuple(one / magnified for one in numbers(header, "ImagerPixelSpacing"))
    found = found or numbers(header, "NominalScannedPixelSpacing") or _ultrasound_mm(header)
    if len(found) != 2 or min(found) <= 0:
        return None
    return found[0], found[1]


def _ultrasound_mm(header: Dataset) -> tuple[float, ...]:
    """Spacing of the one tissue region of an ultrasound image (PS3.3, C.8.5.5); () where there are none or several."""
    regions = [
        region
        for region in header.get("SequenceOfUltrasoundRegions") or ()
        if region.get("PhysicalUnitsXDirection") == _CENTIMETRES
        and region.get("PhysicalUnitsYDirection") == _CENTIMETRES
        and region.get("RegionSpatialFormat") == _TISSUE
    ]
    if len(regions) != 1:
        return ()
    return tuple(10 * abs(float(regions[0].get(f"PhysicalDelta{axis}") or 0)) for axis in "YX")
