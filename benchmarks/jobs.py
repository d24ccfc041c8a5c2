"""What the job runner costs: overhead per slide in this process, and 200 tiny slides on two workers against one.

Overhead: 500 jobs that do nothing, and `lamella index` of 500 small slides beside the same work in a bare loop.
Workers: jobs of 0.2 s of work each (matrix products on one thread), with and without the start of the workers, which a
night's run pays once.
"""

from __future__ import annotations

import os
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: one slide, one thread; workers inherit it

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import tifffile

EMPTY_JOBS = 500
SLIDES = 200
WORK_S = 0.2


def nothing(item: int) -> int:
    return item


def work(item: int) -> float:
    """The same number of products whatever the machine does; about WORK_S on one core."""
    products, seed = item
    rng = np.random.default_rng(seed)
    matrix = rng.random((256, 256))
    for _ in range(products):
        matrix = np.tanh(matrix @ matrix / 256)
    return float(matrix.sum())


def main() -> None:
    overhead_of_the_runner()
    overhead_of_a_verb()
    workers()


def overhead_of_the_runner() -> None:
    from lamella.engine.jobs import JobSettings, run_jobs

    ours_s = timed(lambda: sum(1 for _ in run_jobs(nothing, range(EMPTY_JOBS), JobSettings(), label="bench")))
    peer_s = timed(lambda: [nothing(item) for item in range(EMPTY_JOBS)])
    per_ms, bare_ms = 1e3 * ours_s / EMPTY_JOBS, 1e3 * peer_s / EMPTY_JOBS
    print(
        f"jobs that do nothing, in process, ours {per_ms:.4f} ms each, peer (a bare loop) {bare_ms:.5f} ms each, "
        f"ratio {bare_ms / per_ms:.2g}, n {EMPTY_JOBS} jobs",
        flush=True,
    )


def overhead_of_a_verb() -> None:
    """What `lamella index` adds to opening each slide and finding its tissue: runner, notes, progress, index."""
    from lamella.cli import main as lamella
    from lamella.slides.indexing import index_slide
    from lamella.slides.manifest import find_slides
    from lamella.slides.tissue import TissueSettings

    with tempfile.TemporaryDirectory() as text, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(text)
        make_slides(folder / "slides", EMPTY_JOBS)
        rows = find_slides([folder / "slides"])
        index_slide(rows[0], folder / "warm", TissueSettings())
        (folder / "bare").mkdir()
        bare_s = timed(lambda: [index_slide(row, folder / "bare", TissueSettings()) for row in rows])
        verb_s = timed(lambda: lamella(["index", str(folder / "slides"), "-o", str(folder / "index")]))
        again_s = timed(lambda: lamella(["index", str(folder / "slides"), "-o", str(folder / "index")]))
    added_ms, bare_ms = 1e3 * (verb_s - bare_s) / EMPTY_JOBS, 1e3 * bare_s / EMPTY_JOBS
    print(
        f"index, overhead per slide, ours {added_ms:.2f} ms, peer (the work itself, bare loop) {bare_ms:.2f} ms, "
        f"ratio {bare_ms / added_ms:.1f}, n {EMPTY_JOBS} slides"
    )
    print(
        f"index run again, nothing to do, ours {1e3 * again_s / EMPTY_JOBS:.2f} ms per slide, peer (first run) "
        f"{1e3 * verb_s / EMPTY_JOBS:.2f} ms per slide, ratio {verb_s / again_s:.1f}, n {EMPTY_JOBS} slides",
        flush=True,
    )


def workers() -> None:
    products = calibrated()
    items = [(products, seed) for seed in range(SLIDES)]
    one, two = (with_workers(items, count) for count in (1, 2))
    for name, kind in (("working", 0), ("and starting the workers", 1)):
        print(
            f"tiny slides on two workers, {name}, ours {two[kind]:.1f} s, peer (one worker) {one[kind]:.1f} s, "
            f"ratio {one[kind] / two[kind]:.2f}, n {SLIDES} slides of {WORK_S} s",
            flush=True,
        )
    alone_s = timed(lambda: [work(item) for item in items])
    print(
        f"tiny slides on one worker, ours {one[0]:.1f} s, peer (bare loop) {alone_s:.1f} s, "
        f"ratio {alone_s / one[0]:.2f}, n {SLIDES} slides of {WORK_S} s"
    )


def with_workers(items: list[tuple[int, int]], count: int) -> tuple[float, float]:
    """Seconds from the first outcome's start to the last outcome, and with the start of the workers."""
    from lamella.engine.jobs import JobSettings, run_jobs

    started = time.perf_counter()
    first = None
    for done in run_jobs(work, items, JobSettings(workers=count), label="bench"):
        assert done.ok, done.error
        first = first or time.perf_counter()
    ended = time.perf_counter()
    # The first outcomes, one of each worker, took about as long as all others: scale by what came after the first.
    return (ended - first) * len(items) / (len(items) - 1), ended - started


def calibrated() -> int:
    """How many products take WORK_S."""
    work((20, 0))
    return max(1, round(200 * WORK_S / min(timed(lambda: work((200, 0))) for _ in range(3))))


def make_slides(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(240, 247, (256, 256, 3), dtype=np.uint8)
        pixels[40:200, 40:200] = rng.integers(90, 160, (160, 160, 3), dtype=np.uint8) - (0, 50, 0)
        tifffile.imwrite(
            folder / f"s{number:03d}.tif",
            pixels,
            tile=(256, 256),
            photometric="rgb",
            resolution=(10_000, 10_000),
            resolutionunit="CENTIMETER",
        )


def timed(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
