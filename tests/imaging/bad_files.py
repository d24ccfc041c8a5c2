"""One generated file or folder of every kind that cannot be read, as it is met in archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from tests.imaging.datasets.miniatures import grey_volume, nifti, picture
from tests.imaging.dicoms import AXIAL, ct_slice, functional_groups, header, save
from tests.imaging.test_films import film

CT_PX, SLICES = (24, 24), 6
# Places in a NIfTI-1 header, in bytes: the second of the spacings.
_SPACING_Y = 84


def ct_image(path: Path, seed: int = 0) -> Path:
    """A sound DICOM image."""
    stored = np.random.default_rng(seed).integers(0, 2000, CT_PX).astype(np.int16)
    return ct_slice(path, stored, (0, 0, 0), SOPInstanceUID=f"1.2.3.9.{seed}")


def ct_series(folder: Path, seed: int = 0) -> Path:
    """A sound DICOM series of six slices."""
    stored = np.random.default_rng(seed).integers(0, 2000, (SLICES, *CT_PX)).astype(np.int16)
    for place in range(SLICES):
        ct_slice(folder / f"s{place}.dcm", stored[place], (0, 0, 2 * place), SeriesInstanceUID=f"1.2.3.{seed + 1}")
    return folder


def rewritten(path: Path, **elements: object) -> None:
    data = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path)


# ---- images ---------------------------------------------------------------------------------------------------------


def truncated_dicom(folder: Path) -> Path:
    path = ct_image(folder / "bad.dcm")
    path.write_bytes(path.read_bytes()[:-400])
    return path


def without_pixels(folder: Path) -> Path:
    data = header(np.zeros(CT_PX, np.int16))
    del data.PixelData
    return save(folder / "bad.dcm", data)


def unsupported_syntax(folder: Path) -> Path:
    data = pydicom.dcmread(ct_image(folder / "bad.dcm"))
    data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    data["PixelData"].is_undefined_length = True
    data.PixelData = pydicom.encaps.encapsulate([b"\x00\x00\x01\xb3" * 4])
    return save(folder / "bad.dcm", data)


def constant_image(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(CT_PX, 700, np.uint16)).save(folder / "bad.png")
    return folder / "bad.png"


# ---- volumes --------------------------------------------------------------------------------------------------------


def two_orientations(folder: Path) -> Path:
    rewritten(ct_series(folder / "bad") / "s2.dcm", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    return folder / "bad"


def missing_slice(folder: Path) -> Path:
    (ct_series(folder / "bad") / "s3.dcm").unlink()
    return folder / "bad"


def mixed_sizes(folder: Path) -> Path:
    ct_slice(ct_series(folder / "bad") / "s2.dcm", np.zeros((8, 8), np.int16), (0, 0, 4), SeriesInstanceUID="1.2.3.1")
    return folder / "bad"


def wrong_frame_count(folder: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 2000, (3, *CT_PX)).astype(np.int16)
    data = functional_groups(header(frames, ImageOrientationPatient=list(AXIAL)), [(0, 0, 2 * z) for z in range(3)])
    data.NumberOfFrames = 5
    return save(folder / "bad.dcm", data)


def _with(folder: Path, value: float) -> Path:
    values = grey_volume(0, (16, 16, 8)).astype(np.float32)
    values[1, 2, 3] = value
    return nifti(folder / "bad.nii.gz", values)


def with_nan(folder: Path) -> Path:
    return _with(folder, np.nan)


def with_infinity(folder: Path) -> Path:
    return _with(folder, np.inf)


def zero_spacing(folder: Path) -> Path:
    path = nifti(folder / "bad.nii", grey_volume(0, (16, 16, 8)))
    content = bytearray(path.read_bytes())
    content[_SPACING_Y : _SPACING_Y + 4] = bytes(4)
    path.write_bytes(content)
    return path


def flat_nifti(folder: Path) -> Path:
    return nifti(folder / "bad.nii.gz", grey_volume(0, (16, 16, 1)))


def constant_volume(folder: Path) -> Path:
    return nifti(folder / "bad.nii.gz", np.full((16, 16, 8), 7, np.int16))


# ---- films ----------------------------------------------------------------------------------------------------------


def noise_film(path: Path, seed: int = 0) -> Path:
    """A sound film of 12 frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return film(path, "mpeg4", np.random.default_rng(seed).integers(0, 256, (12, 64, 64, 3), np.uint8))


def corrupt_film(folder: Path) -> Path:
    content = bytearray(noise_film(folder / "bad.avi").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    (folder / "bad.avi").write_bytes(content)
    return folder / "bad.avi"


def cut_film(folder: Path) -> Path:
    path = noise_film(folder / "bad.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


# ---- sound neighbours, by kind --------------------------------------------------------------------------------------


def sound_images(folder: Path) -> None:
    for number in range(1, 5):
        picture(folder / f"good{number}.png", number)


def sound_volumes(folder: Path) -> None:
    for number in range(1, 4):
        nifti(folder / f"good{number}.nii.gz", grey_volume(number, (16, 16, 8)))


def sound_series(folder: Path) -> None:
    for number in range(1, 4):
        ct_series(folder / f"good{number}", number)


def sound_films(folder: Path) -> None:
    for number in range(1, 4):
        noise_film(folder / f"good{number}.avi", number)


Maker = Callable[[Path], Path]
