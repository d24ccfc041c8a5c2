"""Reads files that may kill their reader, in child processes with bounded memory and time, and judges what came out.

    python -m tests.faults.reading      a child: one JSON request a line in, one JSON answer a line out

An answer is one of
    error            a LamellaError that names the file; no pixel was handed out wrongly
    right pixels     every pixel is the original's
    other pixels     decoded without an error, but not the original: the damaged bytes carry no checksum
and these are findings:
    foreign error    an exception that is no LamellaError
    unnamed error    a LamellaError without the file's name
    blank            a place all white, black or of one grey where the original has texture
    two answers      `read_many` and `read`, or the exact and the DCT way, disagree about the same place
    crash, hang, memory
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GOOD = ("error", "right pixels", "other pixels")
# Import of the readers alone maps about 1 GB of address space; a decoder that asks for a declared 65,500 x 65,500 px
# (12.9 GB) must meet the limit.
ADDRESS_LIMIT_BYTES = 4 * 2**30
# Above what these small slides need: decoded they are 0.1 to 20 MB, and are read several times.
RESIDENT_LIMIT_MB = 400
TIME_LIMIT_S = 20.0
_BLOCK_PX = 64  # side of the places read one by one; the tile of the generated slides
_WHOLE_PX = 16e6  # a larger picture (a damaged size tag) is read at its corners and as a thumbnail


@dataclass(frozen=True, slots=True)
class Answer:
    outcome: str
    detail: str = ""
    reader: str = ""
    place: tuple[int, int, int, int] | None = None
    """For other pixels: x, y, width, height of the first place that has them."""
    openslide: str = ""
    """What OpenSlide gives for that place: `same as ours`, `other pixels than ours`, or its error."""
    changed: float = 0.0
    """Share of the pixels that differ from the original, where the sizes agree."""
    peak_mb: float = 0.0
    seconds: float = 0.0


# ---- the child ------------------------------------------------------------------------------------------------------


def answer(path: Path, original: Path, readers: tuple[str, ...] | None) -> Answer:
    """Open and read a file every way there is; the worst that happened is the answer."""
    from lamella.errors import LamellaError
    from lamella.slides.slide import open_slide

    found: list[Answer] = []
    reader = ""
    try:
        with open_slide(path, mpp=0.5, readers=readers) as slide:
            reader = slide.reader.name
            found += _read_every_way(slide, original)
    except LamellaError as error:
        found.append(_of_error(error, path))
    except Exception as error:  # noqa: BLE001 (that nothing else comes out is what is tested)
        found.append(Answer("foreign error", f"{type(error).__name__}: {error}"[:300]))
    order = ("foreign error", "unnamed error", "two answers", "blank", "other pixels", "error", "right pixels")
    worst = min(found, key=lambda one: order.index(one.outcome))
    return Answer(**(asdict(worst) | {"reader": reader}))


def _read_every_way(slide: Any, original: Path) -> list[Answer]:
    import numpy as np

    from lamella.errors import LamellaError

    expected = np.load(original)
    width, height = slide.frame.width_px, slide.frame.height_px
    expected = expected if expected.shape[:2] == (height, width) else None
    whole = width * height <= _WHOLE_PX
    found = [_judged(slide, box, expected, crop) for box, crop in _blocks(width, height, whole)]
    try:
        slide.thumbnail(50)
        if whole:
            slide.read(slide.frame.bounds_px, slide.mpp)
    except LamellaError as error:
        found.append(_of_error(error, slide.path))
    found += _batch(slide, [box for box, _ in _blocks(width, height, whole)][:32])
    if whole:
        found += _shrunk(slide)
    return found


def _blocks(width: int, height: int, whole: bool) -> list[tuple[Any, tuple[slice, slice]]]:
    """Boxes over the slide, and the slices that they are of its array; the corners only, if it is too large."""
    from lamella.geometry import Box

    step = _BLOCK_PX * max(1, max(width, height) // 1000)
    xs, ys = (range(0, length, step) if whole else (0, max(0, length - step)) for length in (width, height))
    found = []
    for y in ys:
        for x in xs:
            x1, y1 = min(x + step, width), min(y + step, height)
            found.append((Box(x, y, x1, y1), (slice(y, y1), slice(x, x1))))
    return found


def _judged(slide: Any, box: Any, expected: Any, crop: tuple[slice, slice]) -> Answer:
    """One place of a slide, against the original where the sizes agree."""
    from lamella.errors import LamellaError

    try:
        pixels = slide.read(box, slide.mpp).pixels
    except LamellaError as error:
        return _of_error(error, slide.path)
    if expected is None:
        blank = "blank" if min(pixels.shape[:2]) > 1 and _is_blank(pixels) else "other pixels"
        return Answer(blank, f"another size: {slide.frame.width_px} x {slide.frame.height_px} px", changed=1.0)
    wanted = expected[crop]
    if (pixels == wanted).all():
        return Answer("right pixels")
    changed = float((pixels != wanted).any(axis=-1).mean())
    place = (int(box.x0), int(box.y0), int(box.width), int(box.height))
    if _is_blank(pixels) and not _is_blank(wanted):
        return Answer("blank", f"all {pixels[0, 0].tolist()}", place=place, changed=changed)
    return Answer("other pixels", place=place, changed=changed)


def _batch(slide: Any, boxes: list[Any]) -> list[Answer]:
    """read_many in two threads must say what read says: the same pixels, or an error where there is one."""
    import numpy as np

    from lamella.errors import LamellaError

    alike = [box for box in boxes if (box.width, box.height) == (boxes[0].width, boxes[0].height)]
    try:
        singly = [slide.read(box, slide.mpp).pixels for box in alike]
    except LamellaError:
        singly = None
    try:
        batch = slide.read_many(alike, slide.mpp, threads=2)
    except LamellaError as error:
        return [_of_error(error, slide.path)] if singly is None else [Answer("two answers", f"read_many: {error}")]
    if singly is None:
        return [Answer("two answers", "read_many gave pixels where read gave an error")]
    same = np.array_equal(np.asarray(batch), np.stack(singly))
    return [] if same else [Answer("two answers", "the pixels differ")]


def _shrunk(slide: Any) -> list[Answer]:
    """At a quarter of the size: what is an error to the exact way is one to the way through the DCT domain."""
    from lamella.errors import LamellaError
    from lamella.slides.slide import open_slide

    said = []
    for dct in (False, True):
        try:
            with open_slide(slide.path, mpp=0.5, readers=(slide.reader.name,), dct_scaling=dct) as again:
                said.append(_is_blank(again.read(again.frame.bounds_px, 4 * again.mpp).pixels))
        except LamellaError as error:
            said.append(_of_error(error, slide.path).outcome)
    return [] if said[0] == said[1] else [Answer("two answers", f"exactly: {said[0]}, in the DCT domain: {said[1]}")]


def _is_blank(pixels: Any) -> bool:
    """One grey for all: black and white stand for nothing, and libjpeg fills what it lost with 128."""
    return bool((pixels == pixels[:1, :1, :1]).all())


def _of_error(error: Exception, path: Path) -> Answer:
    named = path.name in str(error)
    return Answer("error" if named else "unnamed error", str(error)[:300])


def openslide_says(path: Path, place: tuple[int, int, int, int]) -> str:
    """What OpenSlide alone makes of a place of level 0, beside our pixels of the same file."""
    import numpy as np
    import openslide

    from lamella.geometry import Box
    from lamella.slides.readers.openslide import on_white
    from lamella.slides.slide import open_slide

    x, y, width, height = place
    try:
        with openslide.OpenSlide(path) as slide:
            theirs = on_white(slide.read_region((x, y), 0, (width, height)))
    except openslide.OpenSlideError as error:
        return f"error: {error}"[:120]
    with open_slide(path, mpp=0.5) as slide:
        ours = slide.read(Box(x, y, x + width, y + height), slide.mpp).pixels
    return "same as ours" if np.array_equal(ours, theirs) else "other pixels than ours"


def serve() -> None:
    """Answer requests until the input ends."""
    import numpy  # noqa: F401 (loaded before the limit is set and before the first clock starts)

    import lamella.slides.slide  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_LIMIT_BYTES, ADDRESS_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        path, readers = Path(request["path"]), request.get("readers")
        if request["original"] is None:
            print(json.dumps(openslide_says(path, request["place"])), flush=True)
            continue
        before_mb, start = _peak_mb(reset=True), time.perf_counter()
        found = asdict(answer(path, Path(request["original"]), tuple(readers) if readers else None))
        found["seconds"] = time.perf_counter() - start
        found["peak_mb"] = _peak_mb() - before_mb
        print(json.dumps(found), flush=True)


def _peak_mb(*, reset: bool = False) -> float:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # 5: the kernel forgets the largest resident size
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


# ---- the parent -----------------------------------------------------------------------------------------------------


class Child:
    """A process that reads one file after the other; a new one is started when it dies. Use as a context manager."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self.time_limit_s = time_limit_s
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path, original: Path, readers: tuple[str, ...] | None = None) -> Answer:
        """What reading `path` gives, `original` being the .npy of level 0 of the sound file."""
        line = self._asked({"path": str(path), "original": str(original), "readers": readers})
        if line in ("crash", "hang"):
            return Answer(line, self._last_words(), reader=self._guilty(path, original, readers, line))
        found = Answer(**json.loads(line))
        if found.peak_mb > RESIDENT_LIMIT_MB:
            return Answer(**(asdict(found) | {"outcome": "memory", "detail": f"{found.outcome}; {found.detail}"}))
        if found.outcome == "other pixels" and found.place:
            said = self._asked({"path": str(path), "original": None, "place": found.place})
            said = said if said in ("crash", "hang") else json.loads(said)
            return Answer(**(asdict(found) | {"openslide": said}))
        return found

    def _guilty(self, path: Path, original: Path, readers: tuple[str, ...] | None, outcome: str) -> str:
        """Which reader alone does it too: the crash may be OpenSlide's, which is tried after the own one refuses."""
        if readers is not None:
            return readers[0]
        from lamella.slides.readers.registry import READERS

        guilty = [name for name in READERS if self.read(path, original, (name,)).outcome == outcome]
        return "+".join(guilty) or "only all in turn"

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.reading"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        return self._process

    def _asked(self, request: dict[str, Any]) -> str:
        """The child's one line in return, or `crash` or `hang`."""
        process = self._running()
        assert process.stdout is not None
        print(json.dumps(request), file=process.stdin, flush=True)
        ready, _, _ = select.select([process.stdout], [], [], self.time_limit_s)
        if not ready:
            self.close()
            return "hang"
        line = process.stdout.readline()
        if not line:
            process.wait()
            return "crash"
        return line

    def _last_words(self) -> str:
        code = self._process.returncode if self._process else None
        return f"exit {code}" if code is not None else f"no answer in {self.time_limit_s:.0f} s"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


if __name__ == "__main__":
    serve()
