"""Index of 1,000 small slides: seconds and peak memory; catalogue memory at 10,000 and at a million anchors.

Peak memory is measured in a fresh process each. The peer of the index is opening every slide with OpenSlide and finding
tissue on its thumbnail with Otsu's threshold alone.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

SLIDES = 1000
STRIDES = {10_000: 0.5, 1_000_000: 0.05}  # anchors, about -> anchor_stride_fraction


def main() -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        make_slides(folder / "slides")
        few = measured("index", str(folder / "slides"), str(folder / "few"), "100")
        many = measured("index", str(folder / "slides"), str(folder / "many"), str(SLIDES))
        peer = measured("peer", str(folder / "slides"), str(SLIDES))
        print(
            f"index, ours {many['seconds']:.1f} s, peer (OpenSlide thumbnail + Otsu) {peer['seconds']:.1f} s, "
            f"ratio {peer['seconds'] / many['seconds']:.2f}, n {SLIDES} slides"
        )
        print(
            f"index peak memory, {SLIDES} slides {many['peak_mb']:.0f} MB, 100 slides {few['peak_mb']:.0f} MB, "
            f"ratio {many['peak_mb'] / few['peak_mb']:.2f}, n {SLIDES} slides",
            flush=True,
        )
        small, large = (measured("anchors", str(folder / f"{stride}"), str(stride)) for stride in STRIDES.values())
        print(
            f"catalogue peak memory, {large['n']} anchors {large['peak_mb']:.0f} MB, {small['n']} anchors "
            f"{small['peak_mb']:.0f} MB, ratio {large['peak_mb'] / small['peak_mb']:.2f}, n {large['n']} anchors "
            f"({large['seconds']:.0f} s)"
        )


def make_slides(folder: Path) -> None:
    """512 x 512 px tiled TIFFs: a purple square that differs in size, on glass."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(SLIDES):
        pixels = rng.integers(240, 247, (512, 512, 3), dtype=np.uint8)
        side = int(rng.integers(200, 460))
        pixels[20 : 20 + side, 20 : 20 + side] = rng.integers(90, 160, (side, side, 3), dtype=np.uint8) - (0, 50, 0)
        tifffile.imwrite(
            folder / f"s{number:04d}.tif",
            pixels,
            tile=(256, 256),
            photometric="rgb",
            resolution=(10_000, 10_000),
            resolutionunit="CENTIMETER",
        )


def measured(*arguments: str) -> dict[str, float]:
    """What one part prints when it runs in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def index_part(slides: str, out: str, number: str) -> int:
    from lamella.slides.indexing import build_index
    from lamella.slides.manifest import find_slides
    from lamella.slides.tissue import TissueSettings

    rows = find_slides([Path(slides)])[: int(number)]
    fates = build_index(rows, Path(out), TissueSettings(), {})
    assert all(fate.status == "ok" for fate in fates)
    return len(fates)


def peer_part(slides: str, number: str) -> int:
    import openslide
    from skimage.color import rgb2hsv
    from skimage.filters import threshold_otsu

    paths = sorted(Path(slides).iterdir())[: int(number)]
    for path in paths:
        with openslide.OpenSlide(path) as slide:
            saturation = rgb2hsv(np.asarray(slide.get_thumbnail((64, 64)).convert("RGB")))[..., 1]
        assert (saturation > threshold_otsu(saturation)).any()
    return len(paths)


def anchors_part(out: str, stride: str) -> int:
    from lamella.geometry import Frame
    from lamella.slides.anchors.cataloguing import build_catalogue
    from lamella.slides.anchors.sampling import CrossSampling
    from lamella.slides.index import IndexedSlide, SlideIndex, write_slides
    from lamella.slides.masks import write_mask

    folder = Path(out)
    write_mask(folder / "mask.png", np.ones((3300, 3300), bool))
    frame = Frame(105_600, 105_600, 0.25, 0.25)
    slide = IndexedSlide("big", folder / "big.tif", folder / "mask.png", frame, frame.resized(3300, 3300))
    write_slides(folder, [slide], {})
    sampling = CrossSampling(anchor_stride_fraction=float(stride), target_fov_um=256, targets_per_context=2)
    fates = build_catalogue(SlideIndex.load(folder), sampling, folder / "anchors")
    return fates[0].anchors


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        parts = {"index": index_part, "peer": peer_part, "anchors": anchors_part}
        started = time.perf_counter()
        n = parts[sys.argv[1]](*sys.argv[2:])
        seconds = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"n": n, "seconds": seconds, "peak_mb": peak_mb}))
