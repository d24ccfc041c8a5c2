"""Views of 256 px per second in two threads: ours against OpenSlide, the raw decoder and other readers.

    python benchmarks/read.py [--peers-python PYTHON] [--rounds 5]

Patterns: `aligned` tiles of the slide's own grid; a `dense` grid with half a tile of overlap; `random` places; `20x`
from a 40x slide that has no such level (512 px read, 256 px out), as the exact area average and with JPEG decoded at
half its size, on a grid that begins anywhere, as grids over tissue do, and on one that begins with a tile. Each way of
reading has its own process (`reading/worker.py`); rounds go through all of them in turn, each with a handle of its own,
so that nothing is decoded before; the file lies in the page cache. Rates are medians of the rounds.

`limit` decodes the tiles that the views touch, each once, from memory into one buffer. A peer with options (one handle
or one a thread; with or without its cache) is tried with each, and the fastest goes on. What a peer hands out is
compared with OpenSlide's pixels. Peers other than OpenSlide need an environment of their own:

    python -m venv peers && peers/bin/pip install tiffslide cucim-cu12 pyvips pyvips-binary fastslide==0.8.1 imagecodecs
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the two threads are the ones that read

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reading.slides import CMU, SIDE_PX, TCGA, texture, write_svs, write_ycbcr

HERE = Path(__file__).parent
OWN = {"lamella": ["lamella"], "limit": ["limit"], "openslide": ["openslide", "openslide, a handle each"]}
HALF = {"lamella dct": ["lamella dct"], "openslide, bilinear": ["openslide, bilinear"]}  # for 20x only
PEERS = {
    "tiffslide": ["tiffslide"],
    "cucim": ["cucim", "cucim, cached"],
    "fastslide": ["fastslide", "fastslide, cached"],
    "pyvips": ["pyvips"],
}
VIEW_PX = 256
# Views a round: the slowest reader then needs about a second, ours more than 20 ms.
VIEWS = {"aligned": 320, "dense": 320, "random": 128, "20x": 48, "20x aligned": 48}
FIRST_PX = {"20x": 100}  # where the grid begins, if not at 0


@dataclass(frozen=True)
class Case:
    """A slide and the views read from it."""

    slide: Path
    pattern: str
    side: int
    shrink: int
    places: list[tuple[int, int]]

    @property
    def name(self) -> str:
        return f"{self.slide.name} {self.pattern}"

    def request(self, **more: object) -> str:
        fields = {"slide": str(self.slide), "side": self.side, "shrink": self.shrink, "places": self.places}
        return json.dumps(fields | more)


class Worker:
    """A process that reads in one way."""

    def __init__(self, python: str, way: str) -> None:
        self.way = way
        self.process = subprocess.Popen(
            [python, str(HERE / "reading" / "worker.py"), way],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, request: str) -> dict[str, float | str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(request, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended ({self.process.wait()})"}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


# ---- what is read ---------------------------------------------------------------------------------------------------


def cases(
    slide: Path, size: tuple[int, int], tile_px: int, patterns: Sequence[str], share: float = 1
) -> Iterator[Case]:
    """The views of each pattern, in the middle of the slide (glass lies at the edges)."""
    rng = np.random.default_rng(3)
    for pattern in patterns:
        n, half = int(VIEWS[pattern] * share), pattern.startswith("20x")
        side = tile_px if pattern == "aligned" else 2 * VIEW_PX if half else VIEW_PX
        stride, first = VIEW_PX // 2 if pattern == "dense" else side, FIRST_PX.get(pattern, 0)
        if pattern == "random":
            places = [(int(x), int(y)) for x, y in rng.integers(0, np.subtract(size, side), (n, 2))]
        else:
            columns, rows = ((length - first - side) // stride + 1 for length in size)
            top = max(0, (rows - -(-n // columns)) // 2)
            places = [(first + x * stride, first + y * stride) for y in range(top, rows) for x in range(columns)][:n]
        yield Case(slide, pattern, side, 2 if half else 1, places)


def generated(folder: Path) -> Iterator[Case]:
    every = ("aligned", "dense", "random", "20x")
    pixels = texture(8400)
    square = np.ascontiguousarray(pixels[:SIDE_PX, :SIDE_PX])
    sides = (SIDE_PX, SIDE_PX)
    yield from cases(write_ycbcr(folder / "q80_256px.tif", square, 80), sides, 256, (*every, "20x aligned"))
    yield from cases(write_ycbcr(folder / "q90_256px.tif", square, 90), sides, 256, every)
    yield from cases(write_svs(folder / "rgb_240px.svs", pixels, 240, "jpeg"), (8400, 8400), 240, every)
    for kind in ("aperio_jp2000_rgb", "aperio_jp2000_ycbc"):  # a tenth of the speed, a sixth of the views
        patterns = every[:3] if kind.endswith("rgb") else every[:1]
        yield from cases(write_svs(folder / f"{kind}.svs", square, 256, kind), sides, 256, patterns, share=1 / 6)


def real() -> Iterator[Case]:
    if TCGA.exists():
        yield from cases(TCGA, (11264, 8448), 256, ("aligned", "dense", "random"))
        yield from cases(CMU, (2220, 2967), 240, ("aligned", "dense", "random"))


# ---- measuring ------------------------------------------------------------------------------------------------------


class Field:
    """All ways of reading, alive at once."""

    def __init__(self, peers_python: str | None) -> None:
        pythons = dict.fromkeys(OWN | HALF, sys.executable)
        pythons |= dict.fromkeys(PEERS, peers_python) if peers_python else {}
        choices = OWN | HALF | PEERS
        self.workers = {name: [Worker(python, way) for way in choices[name]] for name, python in pythons.items()}

    def compare(self, case: Case, rounds: int, folder: Path) -> tuple[dict[str, list[float]], dict[str, str], int]:
        """(seconds of each round by way, what to say of each way's pixels, tiles touched)."""
        chosen: dict[str, Worker] = {}
        notes: dict[str, str] = {}
        tiles = 0
        for name, workers in self.workers.items():
            if name in HALF and case.shrink == 1:
                continue
            answers = [(worker, worker.ask(case.request(save=str(folder / f"{name}.npy")))) for worker in workers]
            sound = [(float(answer["seconds"]), worker) for worker, answer in answers if "seconds" in answer]
            if not sound:
                notes[name] = str(answers[0][1]["error"])
                continue
            tiles = int(answers[0][1].get("tiles", tiles))
            chosen[name] = min(sound, key=lambda one: one[0])[1]
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(rounds):
            for name, worker in chosen.items():
                seconds[name].append(float(worker.ask(case.request())["seconds"]))
        notes |= {name: _pixels(folder, name, worker.way) for name, worker in chosen.items() if name != "limit"}
        return seconds, notes, tiles

    def close(self) -> None:
        for worker in [worker for workers in self.workers.values() for worker in workers]:
            worker.close()


def _pixels(folder: Path, name: str, way: str) -> str:
    """How far the pixels are from OpenSlide's (at 20x: from its pixels averaged over the exact area)."""
    ours, theirs = (np.load(folder / f"{one}.npy").astype(np.int16) for one in (name, "openslide"))
    difference = np.abs(ours - theirs)
    said = (
        "identical to OpenSlide"
        if not difference.any()
        else f"off by {difference.mean():.2f} (at most {difference.max()})"
    )
    return f"{said}{'' if way == name else f' [{way}]'}"


# ---- printing -------------------------------------------------------------------------------------------------------


def line(case: Case, what: str, ours: float, peer: float, target: float | None, note: str = "") -> None:
    ratio = ours / peer
    verdict = "" if target is None else f"target {target:.2f} {'ok' if ratio >= target else 'MISS'}"
    print(f"{case.name}, {what}, {ours:.0f}/s, {peer:.0f}/s, {ratio:.3f}x, {verdict}, {len(case.places)}, {note}")


def show(case: Case, seconds: dict[str, list[float]], notes: dict[str, str], tiles: int) -> None:
    rate = {name: len(case.places) / statistics.median(times) for name, times in seconds.items()}
    exact, dct = rate["lamella"], rate.get("lamella dct")
    over = {"dense": 3.0, "random": 2.5, "20x": 4.0, "20x aligned": 4.0}.get(case.pattern)
    limit_of = f"{tiles} tiles, {tiles / statistics.median(seconds['limit']):.0f} tiles/s"
    line(case, "raw decode limit", exact, rate["limit"], 0.8 if case.pattern == "aligned" else None, limit_of)
    line(case, "OpenSlide" + (" + reduce" if dct else ""), exact, rate["openslide"], over, notes["lamella"])
    if dct:
        line(case, "OpenSlide + bilinear", exact, rate["openslide, bilinear"], over)
        line(case, "DCT: OpenSlide + reduce", dct, rate["openslide"], 6.0, notes["lamella dct"])
        line(case, "DCT: OpenSlide + bilinear", dct, rate["openslide, bilinear"], 6.0)
    others = [name for name in PEERS if name in rate]
    for name in others:
        line(case, name, exact, rate[name], None, notes[name])
    for name in [name for name in notes if name in PEERS and name not in rate]:
        print(f"{case.name}, {name}, , , , , , cannot read it: {notes[name][:100]}")
    if others:
        best = max(others, key=lambda name: rate[name])
        line(case, f"the best other peer ({best})", exact, rate[best], 1.0, notes[best])


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else "unknown processor"


def memory(folder: Path) -> None:
    """Largest growth of memory while a dense grid over the whole slide is read: it must not follow the slide's size."""
    pixels = texture(SIDE_PX)
    for repeat in (1, 2):
        path = write_ycbcr(folder / f"{8 * repeat}k.tif", pixels, 80, repeat)
        ran = subprocess.run(
            [sys.executable, str(HERE / "reading" / "memory.py"), str(path)], capture_output=True, text=True, check=True
        )
        print(f"memory of a dense sweep over {SIDE_PX * repeat} px a side, {ran.stdout.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", help="python of an environment with the other readers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    print(f"{_processor()}, {os.cpu_count()} cores; two threads; median of {arguments.rounds} rounds")
    if not arguments.peers_python:
        print("no --peers-python: compared with OpenSlide only")
    print("case, against, ours, peer, ratio, target, n, note")
    field = Field(arguments.peers_python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in itertools.chain(generated(folder), real()):
            if arguments.only in case.name:
                show(case, *field.compare(case, arguments.rounds, folder))
        field.close()
        memory(folder)


if __name__ == "__main__":
    main()
