"""Damaged DICOM files read in a child process: an error of ours or a successful read; no crash, hang or other error.

`python -m tests.faults.dicom_fuzz 0 1000` runs 1,000 mutations and prints what came of them.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.mutations import Anatomy, anatomy, mutate

ROOT = Path(__file__).resolve().parents[2]
ADDRESS_LIMIT_BYTES = 8 * 2**30
TIME_LIMIT_S = 20.0
# Small files of pydicom in as many ways of encoding as it has, and one series of two frames in space.
NAMES = (
    "CT_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "JPEG-lossy.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_jls_lossy_line.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "image_dfl.dcm",
    "examples_palette.dcm", "rtdose.dcm", "SC_ybr_full_422_uncompressed.dcm",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of one mutation."""

    seed: int
    source: str
    kind: str
    outcome: str
    """read, error, unnamed error, foreign: TYPE, crash, hang."""
    detail: str = ""


def sources() -> dict[str, Anatomy]:
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return {name: _anatomy(folder / name) for name in NAMES}


def _anatomy(path: Path) -> Anatomy:
    found = anatomy(path)
    long = tuple(tile for tile in found.tiles if tile[1] > 64)
    # A deflated data set has no places in the file, so that only its bytes as a whole can be aimed at.
    inside = tuple(field for field in found.fields if field.at + field.size <= len(found.data) and field.at >= 0)
    size = len(found.data)
    return Anatomy(found.data, inside, tuple(tile for tile in long if sum(tile) <= size) or ((400, size - 400),))


def sweep(start: int, stop: int) -> list[Outcome]:
    """Outcomes of the mutations of these seeds; a child that dies is replaced and goes on with the next one."""
    found: list[Outcome] = []
    while start + len(found) < stop:
        found += _child(start + len(found), stop)
    return found


def _child(start: int, stop: int) -> list[Outcome]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.faults.dicom_fuzz", str(start), str(stop), "--child"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    found: list[Outcome] = []
    try:
        while start + len(found) < stop:
            ready, _, _ = select.select([process.stdout], [], [], TIME_LIMIT_S)
            line = process.stdout.readline() if ready else ""
            if not line:
                made = mutate(start + len(found), sources())
                said = "hang" if not ready else "crash"
                found.append(Outcome(made.seed, made.source, made.kind, said, f"exit {process.poll()}"))
                break
            found.append(Outcome(**json.loads(line)))
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    return found


def _serve(start: int, stop: int) -> None:
    originals = sources()
    _read(ROOT / "README.md")  # loads what is needed before memory is limited
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_LIMIT_BYTES, ADDRESS_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(start, stop):
            made = mutate(seed, originals)
            path = Path(folder) / f"damaged_{seed}.dcm"
            path.write_bytes(made.data)
            outcome, detail = _read(path)
            path.unlink()
            print(json.dumps({"seed": seed, "source": made.source, "kind": made.kind, "outcome": outcome,
                              "detail": detail}), flush=True)  # fmt: skip


def _read(path: Path) -> tuple[str, str]:
    import numpy as np

    from lamella.errors import LamellaError
    from lamella.imaging.deidentify import Rules, deidentify
    from lamella.imaging.dicom_header import file_faults, read_dataset
    from lamella.imaging.pseudonyms import Pseudonyms
    from lamella.imaging.reading import kind_of, read_image, read_video, read_volume

    try:
        measured = {"image": read_image, "volume": read_volume, "video": read_video}[kind_of(path)](path)
        values = next(value for value in vars(measured).values() if isinstance(value, np.ndarray))
        assert values.size
        outcome, detail = "read", str(values.shape)
    except LamellaError as error:
        outcome, detail = "error" if path.name in str(error) else "unnamed error", str(error)[:200]
    except Exception as error:  # noqa: BLE001 (what this looks for)
        return f"foreign: {type(error).__name__}", str(error)[:200]
    try:
        header = read_dataset(path)
        with file_faults(path):
            deidentify(path, header, Rules(Pseudonyms(bytes(32))))
    except LamellaError:
        pass
    except Exception as error:  # noqa: BLE001 (what this looks for)
        return f"foreign: {type(error).__name__}", f"deidentify: {error}"[:200]
    return outcome, detail


if __name__ == "__main__":
    first, last = int(sys.argv[1]), int(sys.argv[2])
    if "--child" in sys.argv:
        _serve(first, last)
    else:
        outcomes = sweep(first, last)
        print(Counter(one.outcome for one in outcomes))
        print(*[one for one in outcomes if one.outcome not in ("read", "error")], sep="\n")
