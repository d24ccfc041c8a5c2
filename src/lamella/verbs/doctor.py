"""`lamella doctor`: is everything here that Lamella needs? One line each: status, name, what was found, what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lamella.config import Request
from lamella.errors import LamellaError, first_line

if TYPE_CHECKING:
    import numpy as np

Status = Literal["ok", "note", "missing"]

# A small run keeps two checkpoints (encoder, teacher and optimiser: about 0.3 GB) and features beside them.
NEEDED_GB = 1.0
# Features of a hundred slides (10,000 tiles x 384 x 4 bytes each) and previews want about this much.
COMFORTABLE_GB = 10.0


@dataclass(frozen=True)
class Check:
    """One line of the answer. `missing` means that Lamella cannot work here; `note` that it can, with less."""

    status: Status
    name: str
    found: str
    fix: str = ""


def run(request: Request) -> int:
    """Print every check; 0 if nothing needed is missing, else 1."""
    checks = list(examine(request.out or Path.cwd()))
    names = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:<8}{check.name:<{names}}  {check.found}")
        if check.fix:
            print(f"{'':<{8 + names}}  -> {check.fix}")
    missing = sum(check.status == "missing" for check in checks)
    print()
    if missing:
        print(f"{missing} needed thing(s) missing. Mend them and run `lamella doctor` again.")
        return 1
    print("Everything needed is here. Next: `lamella demo -o demo_out`, or `lamella index SLIDES -o index`.")
    return 0


def examine(folder: Path) -> Iterator[Check]:
    """Every check, the ground first.

    Args:
        folder: Where output would go; its disk is measured.
    """
    yield from _packages()
    yield from _readers()
    yield from _device()
    yield _threads()
    yield _disk(folder)
    yield from _extras()


def _packages() -> Iterator[Check]:
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("ok", "python", python)
    if _version("lamella") is None:
        yield Check(
            "note", "packages", "lamella runs from a folder, not installed: its needs are unknown", "pip install ."
        )
        return
    absent = [name for name, extra in _requirements() if extra is None and _version(name) is None]
    if absent:
        yield Check("missing", "packages", f"not installed: {', '.join(absent)}", f"pip install {' '.join(absent)}")
    else:
        yield Check("ok", "packages", "all required packages are installed")


def _readers() -> Iterator[Check]:
    """Each reader reads a small picture written for it; for DICOM, which nothing here writes, its parts are named."""
    try:
        import numpy as np
        import tifffile
        from PIL import Image

        from lamella.slides.readers.registry import READERS
    except (ImportError, OSError) as error:  # OSError: the OpenSlide library itself cannot be loaded
        yield Check(
            "missing", "readers", f"they cannot be loaded ({first_line(error)})", "pip install --upgrade lamella"
        )
        return
    made_of = {
        "tiff": ("tifffile", "simplejpeg", "imagecodecs"),
        "openslide": ("openslide-python", "openslide-bin"),
        "dicom": ("pydicom", "openslide-bin"),
        "image": ("pillow",),
    }
    pixels = np.full((64, 64, 3), (180, 90, 160), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        slide, picture = Path(folder) / "slide.tif", Path(folder) / "picture.png"
        tifffile.imwrite(slide, pixels, tile=(32, 32), photometric="rgb", compression="lzw", metadata=None)
        Image.fromarray(pixels).save(picture)
        for name, open_reader in READERS.items():
            parts = ", ".join(f"{part} {_version(part) or 'of unknown version'}" for part in made_of[name])
            if name == "dicom":
                yield Check("ok", "reader dicom", parts)
                continue
            fault = _fault(open_reader, picture if name == "image" else slide, pixels)
            if fault:
                again = f"pip install --force-reinstall {' '.join(made_of[name])}"
                yield Check("missing", f"reader {name}", f"{parts}; {fault}", again)
            else:
                yield Check("ok", f"reader {name}", f"{parts}; read a test picture exactly")


def _fault(open_reader: Callable[[Path], Any], path: Path, expected: np.ndarray) -> str:
    """What is wrong with a reader, by its reading of a known (H, W, 3) picture; empty if nothing is."""
    try:
        reader = open_reader(path)
        pixels = reader.read_level(0, 0, 0, expected.shape[1], expected.shape[0])
        reader.close()
    except LamellaError as error:
        return f"it refuses a test picture ({error.cause})"
    return "" if (pixels == expected).all() else "a test picture came back changed"


def _device() -> Iterator[Check]:
    try:
        import torch

        from lamella.engine.world import choose_device, choose_precision
    except (ImportError, OSError) as error:
        yield Check("missing", "device", f"PyTorch cannot be loaded ({first_line(error)})", "pip install torch")
        return
    device, reason = choose_device()
    precision, precision_reason = choose_precision(device)
    slow = "" if device.type != "cpu" else "Training works, slowly; with an NVIDIA GPU, install PyTorch's CUDA build."
    yield Check("note" if slow else "ok", "device", f"{device.type}: {reason} (torch {torch.__version__})", slow)
    yield Check("ok", "precision", f"{precision}: {precision_reason}")


def _threads() -> Check:
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > here:
        return Check(
            "note",
            "cpu",
            f"{here} core(s), but OMP_NUM_THREADS={asked}: threads will wait for each other",
            f"export OMP_NUM_THREADS={here}",
        )
    return Check("ok", "cpu", f"{here} core(s) for this process" + (f", OMP_NUM_THREADS={asked}" if asked else ""))


def _disk(folder: Path) -> Check:
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free_gb = shutil.disk_usage(place).free / 1e9
    found = f"{free_gb:.1f} GB free at {place}"
    if free_gb < NEEDED_GB:
        return Check("missing", "disk", found, f"Make room: a small run needs {NEEDED_GB:g} GB, or choose another -o.")
    if free_gb < COMFORTABLE_GB:
        return Check("note", "disk", found, f"A hundred slides want about {COMFORTABLE_GB:g} GB.")
    return Check("ok", "disk", found)


def _extras() -> Iterator[Check]:
    for name, extra in _requirements():
        if extra is None or extra == "test":  # for those who work on Lamella itself
            continue
        version = _version(name)
        if version:
            yield Check("ok", f"extra {extra}", f"{name} {version}")
        else:
            yield Check(
                "note", f"extra {extra}", f"{name} is not installed; optional", f"pip install 'lamella[{extra}]'"
            )


def _requirements() -> Iterator[tuple[str, str | None]]:
    """(package, extra or None) of everything that Lamella's own metadata asks for."""
    for line in (importlib.metadata.requires("lamella") if _version("lamella") else None) or []:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if name:
            yield name[0], extra[1] if extra else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
