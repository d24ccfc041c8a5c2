"""The viewer beside OpenSlide's Deep Zoom generator; twenty people at once; a slide with half a million objects.

python benchmarks/view.py [--part tiles|viewers|objects] [--rounds 3]

tiles: latency of single tiles over loopback, each asked once of a fresh server (cold) and once more (warm), against
openslide-python's DeepZoomGenerator on the same slide with the same tiles and JPEG quality, behind the same server; and
both called in this process, where they pay for no server. All ways take turns window by window, as a browser asks: in
turns tile by tile each would wake a process whose caches the others had emptied. viewers: twenty connections
that pan and zoom, a bounded number of tiles each; errors, tiles a second, and how memory grows beside the caches that
are stated. objects: seconds until a slide's page has its facts, the tiles of its first view and the first answer about
its objects, of a fresh server and again; with the outlines that `predict` writes beside its GeoJSON (the answer is then
about all objects), and with the GeoJSON alone (about those that were read so far).
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.outline_file import write_objects
from lamella.slides.slide import open_slide
from lamella.view.server.tile_pixels import tile_jpeg
from predicting import write_repeating_slide
from reading.slides import CMU, SIDE_PX, TCGA, texture, write_svs, write_ycbcr
from viewing.serving import Server, deepzoom_jpeg, tile_px

VIEWERS, TILES_EACH = 20, 400
OBJECTS, OBJECTS_SIDE_PX = 500_000, 60_000
STATED_MB = 64 + 160  # coded tiles and decoded tiles: the defaults of TileMemory and SlidePool
# Beside the caches: what four readings at once hold, and the interpreter's own.
ALLOWED_MB = STATED_MB + 200
OURS, THEIRS = ("viewer, served", "viewer, called"), ("deepzoom, served", "deepzoom, called")
FASTER = 2.0
VIEW_TILES = 6, 4  # a window of 1,500 x 1,000 px
WINDOW = VIEW_TILES[0] * VIEW_TILES[1]
OPEN_S = 2.0

Tile = tuple[int, int, int]


class Asking:
    """One connection, kept open as browsers do."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port)

    def get(self, address: str) -> bytes:
        self.connection.request("GET", address)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{address}: {answer.status} {body[:200]!r}")
        return body

    def tile(self, slide: str, at: Tile) -> bytes:
        return self.get(f"/api/slides/{slide}/tiles/{at[0]}/{at[1]}_{at[2]}.jpg")


# ---- tiles ----------------------------------------------------------------------------------------------------------


def compare_tiles(path: Path, rounds: int) -> None:
    cold: dict[str, list[float]] = {}
    warm: dict[str, list[float]] = {}
    difference: list[float] = []
    for number in range(rounds):
        servers = {OURS[0]: Server("viewer", path), THEIRS[0]: Server("deepzoom", path)}
        generator = DeepZoomGenerator(openslide.OpenSlide(str(path)), tile_px(path), 0)
        asking = {name: Asking(server.port) for name, server in servers.items()}
        ways = {name: (lambda at, one=one: one.tile(path.stem, at)) for name, one in asking.items()}
        slide = open_slide(path, dct_scaling=True)
        ways[OURS[1]] = lambda at, slide=slide: tile_jpeg(slide, *at)
        ways[THEIRS[1]] = lambda at, slide=generator: deepzoom_jpeg(slide, *at)
        tiles = sample(generator, number)
        for way in ways.values():  # the slide is open, and this tile is not measured
            way(tiles[-1])
        for times in (cold, warm):
            for begin in range(0, len(tiles) - 1, WINDOW):
                window = tiles[begin : min(begin + WINDOW, len(tiles) - 1)]
                seen = {}
                for name, way in ways.items():
                    for at in window:
                        start = time.perf_counter()
                        seen[name, at] = way(at)
                        times.setdefault(name, []).append(time.perf_counter() - start)
                if times is cold and number == 0:
                    difference += [d for at in window for d in grey_levels(seen[OURS[0], at], seen[THEIRS[1], at])]
        slide.close()
        for server in servers.values():
            server.close()
    said = (
        f"{len(cold[OURS[0]])} tiles, pixels off from OpenSlide's by {np.mean(difference):.1f} grey levels on average"
    )
    print(f"{path.name}: {said}")
    for when, times in (("cold", cold), ("warm", warm)):
        for name, seconds in times.items():
            print(f"  {when}, {name}: p50 {1e3 * statistics.median(seconds):.2f} ms, "
                  f"p95 {1e3 * np.percentile(seconds, 95):.2f} ms")  # fmt: skip
        for ours, theirs in (*zip(OURS, THEIRS, strict=True), (OURS[0], THEIRS[1])):
            ratio = statistics.median(times[theirs]) / statistics.median(times[ours])
            like = when == "cold" and OURS.index(ours) == THEIRS.index(theirs)
            verdict = f", target {FASTER:.0f} {'ok' if ratio >= FASTER else 'MISS'}" if like else ""
            print(f"  {when}, p50 of {theirs} / {ours}: {ratio:.2f}x{verdict}")


def sample(generator: DeepZoomGenerator, seed: int, most: int = 60) -> list[Tile]:
    """Up to `most` tiles of each level that fills a window, in any order."""
    rng = np.random.default_rng(seed)
    tiles: list[Tile] = []
    for level, (columns, rows) in enumerate(generator.level_tiles):
        if columns * rows > 1:
            every = [(level, column, row) for row in range(rows) for column in range(columns)]
            tiles += [every[i] for i in rng.permutation(len(every))[:most]]
    return [tiles[i] for i in rng.permutation(len(tiles))]


def grey_levels(ours: bytes, theirs: bytes) -> list[float]:
    """Mean difference of two tiles; none where OpenSlide's thumbnails at the edge lose a column of pixels."""
    first, second = (np.asarray(Image.open(io.BytesIO(one)).convert("RGB")).astype(int) for one in (ours, theirs))
    return [float(np.abs(first - second).mean())] if first.shape == second.shape else []


# ---- viewers --------------------------------------------------------------------------------------------------------


def pan(paths: list[Path]) -> None:
    server = Server("viewer", *paths)
    facts = [json.loads(Asking(server.port).get(f"/api/slides/{path.stem}")) for path in paths]
    for one in facts:
        Asking(server.port).tile(one["id"], (one["max_level"], 0, 0))
    before, _ = server.memory_mb()
    seconds: list[float] = []
    faults: list[str] = []
    largest = [before]

    def walk(number: int) -> None:
        asking, rng = Asking(server.port), np.random.default_rng(number)
        one = facts[number % len(facts)]
        for at in walked(one, rng):
            start = time.perf_counter()
            try:
                if not asking.tile(one["id"], at).startswith(b"\xff\xd8"):
                    faults.append(f"{at}: no JPEG")
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                faults.append(str(error))
                asking = Asking(server.port)
            seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=walk, args=(number,)) for number in range(VIEWERS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        largest.append(server.memory_mb()[0])
    took = time.perf_counter() - start
    after, peak = server.memory_mb()
    server.close()
    growth = peak - before
    print(f"{VIEWERS} viewers, {len(seconds)} tiles in {took:.1f} s: {len(seconds) / took:.0f} tiles/s, "
          f"p50 {1e3 * statistics.median(seconds):.1f} ms, p95 {1e3 * np.percentile(seconds, 95):.1f} ms")  # fmt: skip
    print(f"  errors: {len(faults)} {'ok' if not faults else 'MISS ' + faults[0]}")
    print(f"  memory: {before:.0f} MB before, {after:.0f} after, {peak:.0f} at most: {growth:.0f} MB more beside "
          f"{STATED_MB} MB of caches as stated, {growth / STATED_MB:.2f}x; allowed {ALLOWED_MB} MB "
          f"{'ok' if growth <= ALLOWED_MB else 'MISS'}; by quarters of the time "
          f"{[round(one) for one in largest[:: max(1, len(largest) // 4)]]}")  # fmt: skip


def walked(facts: dict, rng: np.random.Generator) -> Iterator[Tile]:
    """A window that moves by tiles, and changes level now and then; only the tiles that come into view."""
    seen: set[Tile] = set()
    level = facts["max_level"] - 2
    x, y = rng.random(2)
    asked = 0
    while asked < TILES_EACH:
        down = facts["tile_px"] * 2 ** (facts["max_level"] - level)
        columns, rows = math.ceil(facts["width_px0"] / down), math.ceil(facts["height_px0"] / down)
        left, top = int(x * max(1, columns - VIEW_TILES[0])), int(y * max(1, rows - VIEW_TILES[1]))
        window = {
            (level, column, row)
            for column in range(left, min(columns, left + VIEW_TILES[0]))
            for row in range(top, min(rows, top + VIEW_TILES[1]))
        }
        for at in sorted(window - seen):
            asked += 1
            yield at
            if asked == TILES_EACH:
                return
        seen = window
        if rng.random() < 0.15:
            level = int(np.clip(level + rng.choice([-1, 1]), facts["max_level"] - 5, facts["max_level"]))
            seen = set()
        # The browser would keep more; coming back later asks the server's memory.
        x, y = (float(np.clip(v + rng.normal() * 2 / max(columns, rows), 0, 0.999)) for v in (x, y))
        if rng.random() < 0.02:
            x, y = rng.random(2)


# ---- objects --------------------------------------------------------------------------------------------------------


def made_objects() -> Iterator[GeoObject]:
    """Polygons of 14 corners, 16 to 32 px across, of three classes, with what `predict` measures of each."""
    rng = np.random.default_rng(0)
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    colours = {"tumour": (230, 159, 0), "lymphocyte": (0, 158, 115), "stroma": (86, 180, 233)}
    for number in range(OBJECTS):
        ring = rng.uniform(20, OBJECTS_SIDE_PX - 20, 2) + rng.uniform(8, 16) * circle
        name = list(colours)[number % 3]
        yield GeoObject(
            polygons=((ring,),),
            classification=name,
            colour=colours[name],
            object_type="detection",
            measurements={"Mean probability": 0.75},
        )


def open_with_objects(folder: Path) -> None:
    """With the outlines that `predict` writes beside its GeoJSON, and with the GeoJSON alone."""
    write_repeating_slide(folder / "objects.tif", OBJECTS_SIDE_PX, OBJECTS_SIDE_PX)
    start = time.perf_counter()
    write_geojson(folder / "objects.geojson.gz", made_objects())
    alone = time.perf_counter() - start
    files = write_objects(folder / "objects.geojson.gz", made_objects())
    sizes = " + ".join(f"{file.name} {file.stat().st_size / 1e6:.0f} MB" for file in files)
    print(f"{OBJECTS} objects written: GeoJSON alone {alone:.0f} s, both {time.perf_counter() - start - alone:.0f} s; "
          f"{sizes}")  # fmt: skip
    open_page(folder, "outlines and GeoJSON", whole=True)
    files[1].unlink()
    open_page(folder, "GeoJSON alone", whole=False)


def open_page(folder: Path, files: str, *, whole: bool) -> None:
    """Seconds until a page has all that it asks for first.

    Args:
        folder: The slide and its objects.
        files: What is measured.
        whole: The target holds for all objects, not for the first answer about them.
    """
    server = Server("viewer", folder)
    for when in ("fresh server", "again"):
        start = time.perf_counter()
        asking = Asking(server.port)
        asking.get("/slide/objects")
        facts = json.loads(asking.get("/api/slides/objects"))
        (layer,) = [one for one in facts["layers"] if one["objects"]]
        had_facts = time.perf_counter() - start
        level = facts["max_level"] - 1
        first = 2 ** (level - 8) // 2
        for column in range(VIEW_TILES[0]):
            for row in range(VIEW_TILES[1]):
                asking.tile("objects", (level, first + column, first + row))
        had_tiles = time.perf_counter() - start
        x0 = first * facts["tile_px"] * 2
        view = f"x0={x0}&y0={x0}&x1={x0 + 3072}&y1={x0 + 2048}"
        asked = f"/api/slides/objects/layers/{layer['id']}/objects?{view}&limit=5000"
        objects = json.loads(asking.get(asked))
        took = time.perf_counter() - start
        ok = took < OPEN_S and (not whole or objects["ready"] == 1)
        print(f"{files}, {when}: facts {had_facts:.2f} s, tiles of the view {had_tiles:.2f} s, first answer "
              f"{took:.2f} s ({objects['total']} in view, {objects['ready']:.0%} read), target {OPEN_S:.0f} s "
              f"{'ok' if ok else 'MISS'}")  # fmt: skip
        while objects["ready"] < 1:
            time.sleep(0.2)
            objects = json.loads(asking.get(asked))
        all_there = time.perf_counter() - start
        tile = f"/api/slides/objects/layers/{layer['id']}/tiles"
        asking.get(f"{tile}/{level}/{first}_{first}.png")
        asking.get(f"{tile}/{level - 7}/0_0.png")
        drawn = time.perf_counter() - start - all_there
        print(f"  all of them after {all_there:.1f} s: {objects['total']} in view, a tile of outlines and one of "
              f"density {drawn:.2f} s later, {server.memory_mb()[0]:.0f} MB")  # fmt: skip
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("tiles", "viewers", "objects"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores; the clients of this benchmark use them, too")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.part in (None, "tiles", "viewers"):
            pixels = texture(8400)
            made = [
                write_ycbcr(folder / "generated_256px.tif", np.ascontiguousarray(pixels[:SIDE_PX, :SIDE_PX]), 80, 3),
                write_svs(folder / "generated_240px.svs", pixels, 240, "jpeg"),
            ]
            del pixels
        if arguments.part in (None, "tiles"):
            for path in (*(path for path in (TCGA, CMU) if path.exists()), *made):
                compare_tiles(path, arguments.rounds)
        if arguments.part in (None, "viewers"):
            pan(made)
        if arguments.part in (None, "objects"):
            (folder / "objects").mkdir()
            open_with_objects(folder / "objects")


if __name__ == "__main__":
    main()
