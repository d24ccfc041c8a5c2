"""One way to read a slide, in a process of its own: what `read.py` measures against each other.

    python worker.py WAY      a JSON request a line in, the seconds out

Imports nothing but numpy, PIL and what the way needs, so that each peer can live in its own environment. The slide is
opened anew for each request, before the clock starts: no decoded tile is left from the last one. Everything is read
into memory that was there before, by two threads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

THREADS = 2
BATCH = 64
# Places that a thread takes at once, neighbours after neighbours as in ours.
_CHUNK = 16

Places = list[tuple[int, int]]
"""(x, y) of the top left corners in level-0 pixels."""
ReadOne = Callable[[int, int, int], np.ndarray]
"""(x, y, side) -> (side, side, 3) uint8 of level 0."""


def in_threads(opened: Callable[[], ReadOne], places: Places, side: int, shrink: int, out: np.ndarray) -> None:
    """Read every place with a function that takes one; `opened` is called once in each thread."""

    def work(start: int, step: int) -> None:
        read = opened()
        for first in range(start * _CHUNK, len(places), step * _CHUNK):
            for index in range(first, min(first + _CHUNK, len(places))):
                pixels = read(*places[index], side)
                out[index] = pixels if shrink == 1 else np.asarray(Image.fromarray(pixels).reduce(shrink))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS), [THREADS] * THREADS))


# ---- ours and the limit ---------------------------------------------------------------------------------------------


class Lamella:
    """`read_many` in batches of 64."""

    dct = False

    def __init__(self, path: str) -> None:
        from lamella.geometry import Box
        from lamella.slides.slide import open_slide

        self.slide, self.box = open_slide(path, dct_scaling=self.dct), Box

    def read(self, places: Places, side: int, shrink: int, out: np.ndarray) -> None:
        mpp = self.slide.mpp * shrink
        for start in range(0, len(places), BATCH):
            boxes = [self.box(x, y, x + side, y + side) for x, y in places[start : start + BATCH]]
            self.slide.read_many(boxes, mpp, threads=THREADS, out=out[start : start + len(boxes)])

    def close(self) -> None:
        self.slide.close()


class LamellaDct(Lamella):
    dct = True


class Limit:
    """The fastest decoders over the tiles that the places touch, each once, from memory, and nothing else."""

    def __init__(self, path: str) -> None:
        import imagecodecs
        import simplejpeg
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            self.tile, self.columns = page.tilewidth, -(-page.imagewidth // page.tilewidth)
            with open(path, "rb") as file:
                self.streams = [
                    (file.seek(offset), file.read(count))[1]
                    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
                ]
            jpeg = int(page.compression) == 7
            if jpeg:
                self.streams = [_complete(data, page.jpegtables, int(page.photometric) == 2) for data in self.streams]
        self.decode = simplejpeg.decode_jpeg if jpeg else imagecodecs.jpeg2k_decode
        self.buffer = "buffer" if jpeg else "out"

    def prepare(self, places: Places, side: int) -> int:
        """Choose the tiles that the places touch, before the clock starts; returns their number."""
        found = set()
        for x, y in places:
            for row in range(y // self.tile, -(-(y + side) // self.tile)):
                found |= {row * self.columns + c for c in range(x // self.tile, -(-(x + side) // self.tile))}
        self.streams = [self.streams[index] for index in sorted(found)]
        return len(found)

    def read(self, places: Places, side: int, shrink: int, out: np.ndarray) -> None:
        def work(start: int) -> None:
            kept = {self.buffer: np.ones((self.tile, self.tile, 3), np.uint8)}
            for data in self.streams[start::THREADS]:
                self.decode(data, **kept)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))

    def close(self) -> None: ...


def _complete(data: bytes, tables: bytes | None, rgb: bool) -> bytes:
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00" if rgb else b""  # the channels are what they are
    return data[:2] + adobe + (tables[2:-2] if tables else b"") + data[2:]


# ---- peers, each as its documentation has it for speed --------------------------------------------------------------


class OpenSlide:
    """One handle for both threads."""

    def __init__(self, path: str) -> None:
        import openslide

        self.path, self.open = path, openslide.OpenSlide
        self.slide = self.open(path)

    def opened(self) -> ReadOne:
        slide = self.slide
        return lambda x, y, side: np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))

    def read(self, places: Places, side: int, shrink: int, out: np.ndarray) -> None:
        in_threads(self.opened, places, side, shrink, out)

    def close(self) -> None:
        self.slide.close()


class OpenSlideEach(OpenSlide):
    """A handle for each thread."""

    def opened(self) -> ReadOne:
        slide = self.open(self.path)
        return lambda x, y, side: np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))


class OpenSlideBilinear(OpenSlide):
    """Views that shrink are resized by PIL's bilinear filter, not by `reduce`."""

    def read(self, places: Places, side: int, shrink: int, out: np.ndarray) -> None:
        def opened() -> ReadOne:
            slide, size = self.slide, (side // shrink, side // shrink)

            def one(x: int, y: int, side: int) -> np.ndarray:
                image = slide.read_region((x, y), 0, (side, side)).convert("RGB")
                return np.asarray(image.resize(size, Image.Resampling.BILINEAR))

            return one

        in_threads(opened, places, side, 1, out)


class TiffSlide(OpenSlide):
    def __init__(self, path: str) -> None:
        import tiffslide

        self.slide = tiffslide.TiffSlide(path)

    def opened(self) -> ReadOne:
        return lambda x, y, side: self.slide.read_region((x, y), 0, (side, side), as_array=True)


class CuCim:
    """Batches of places with two workers of its own."""

    cache = "nocache"

    def __init__(self, path: str) -> None:
        from cucim import CuImage

        CuImage.cache(self.cache, **({} if self.cache == "nocache" else {"memory_capacity": 256}))  # MB
        self.slide = CuImage(path)

    def read(self, places: Places, side: int, shrink: int, out: np.ndarray) -> None:
        size, workers = (side, side), {"batch_size": BATCH, "num_workers": THREADS}
        at = 0
        for batch in self.slide.read_region([list(place) for place in places], size, 0, **workers):
            pixels = np.asarray(batch)
            if shrink > 1:
                pixels = np.stack([np.asarray(Image.fromarray(one).reduce(shrink)) for one in pixels])
            out[at : at + len(pixels)] = pixels
            at += len(pixels)

    def close(self) -> None:
        self.slide.close()


class CuCimCached(CuCim):
    cache = "per_process"


class FastSlide(OpenSlide):
    cache: int | None = None

    def __init__(self, path: str) -> None:
        import fastslide

        self.slide = fastslide.FastSlide.from_file_path(path, cache=self.cache)

    def opened(self) -> ReadOne:
        return lambda x, y, side: self.slide.read_region((x, y), 0, (side, side)).numpy()[..., :3]


class FastSlideCached(FastSlide):
    cache = 256 * 2**20


class PyVips(OpenSlide):
    """libtiff behind libvips, a region for each thread. Its wheel has no OpenSlide."""

    def __init__(self, path: str) -> None:
        import os

        os.environ["VIPS_CONCURRENCY"] = "1"  # the two threads are ours: it releases Python's lock
        import pyvips

        self.vips = pyvips
        self.image = pyvips.Image.tiffload(path, page=0, access="random")

    def opened(self) -> ReadOne:
        region = self.vips.Region.new(self.image)

        def one(x: int, y: int, side: int) -> np.ndarray:
            return np.frombuffer(region.fetch(x, y, side, side), np.uint8).reshape(side, side, -1)[..., :3]

        return one

    def close(self) -> None: ...


WAYS: dict[str, Any] = {
    "lamella": Lamella,
    "lamella dct": LamellaDct,
    "limit": Limit,
    "openslide": OpenSlide,
    "openslide, a handle each": OpenSlideEach,
    "openslide, bilinear": OpenSlideBilinear,
    "tiffslide": TiffSlide,
    "cucim": CuCim,
    "cucim, cached": CuCimCached,
    "fastslide": FastSlide,
    "fastslide, cached": FastSlideCached,
    "pyvips": PyVips,
}


def main() -> None:
    way = WAYS[sys.argv[1]]
    out = np.zeros(1, np.uint8)
    for line in sys.stdin:
        request = json.loads(line)
        places, side, shrink = [tuple(place) for place in request["places"]], request["side"], request["shrink"]
        shape = (len(places), side // shrink, side // shrink, 3)
        if out.size < np.prod(shape):
            out = np.ones(int(np.prod(shape)), np.uint8)
        views = out[: int(np.prod(shape))].reshape(shape)
        try:
            handle = way(request["slide"])
            answer = {"tiles": handle.prepare(places, side)} if way is Limit else {}
            start = time.perf_counter()
            handle.read(places, side, shrink, views)
            answer["seconds"] = time.perf_counter() - start
            handle.close()
        except Exception as error:  # noqa: BLE001 (a peer that cannot read this slide says so in the table)
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        if request.get("save"):
            np.save(request["save"], views[:BATCH])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
