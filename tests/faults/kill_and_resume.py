"""Kill `lamella` with SIGKILL at random moments, run it again each time, and compare with an undisturbed run.

    python -m tests.faults.kill_and_resume FOLDER [--kills 10] [--slides 8] [--seed 0] [key=value ...]

Everything is imported once and each run is a fork of this process, so that the kills fall into the work and not into
the start of Python. A folder that is finished before it was killed often enough is removed and begun again; every
finished folder must hold the same bytes. Prints one JSON object per verb; ends with 1 if a folder differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.conftest import textured, write_pyramid

import lamella.verbs.anchors
import lamella.verbs.embed
import lamella.verbs.index  # noqa: F401 - loaded before the forks
from lamella.cli import main as lamella_main

PX = ("sampling.context_fov_um=256", "sampling.target_fov_um=64")


@dataclass
class Tally:
    """What became of one verb."""

    verb: str
    kills: int = 0
    finished: int = 0
    """Folders that were killed at least once and then finished."""
    differences: list[str] = field(default_factory=list)


def commands(folder: Path, *settings: str) -> dict[str, list[str]]:
    index = str(folder / "index")
    return {
        "index": ["index", str(folder / "slides"), "-o", index, *settings],
        "anchors": ["anchors", index, "-o", str(folder / "anchors"), *PX, *settings],
        "embed": ["embed", "colour-stats", index, "-o", str(folder / "embed"), "tile_px=64", "mpp=1.0", *settings],
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too: nothing may be left over."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def start(command: list[str]) -> int:
    """Run a command in a fork; its process number."""
    child = os.fork()
    if child == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os._exit(lamella_main(command))
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def torture(verb: str, command: list[str], folder: Path, kills: int, chance: random.Random) -> Tally:
    """Kill a verb `kills` times; its folder stays, finished."""
    out, tally = folder / verb, Tally(verb)
    started = time.monotonic()
    wanted_code = ended(start(command))
    takes_s = time.monotonic() - started
    wanted = contents(out)
    shutil.rmtree(out)
    hurt = False
    while tally.kills < kills or hurt:
        child = start(command)
        if tally.kills < kills:
            time.sleep(chance.uniform(0, 0.6 * takes_s))  # short enough that one folder is killed several times
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        if code == -signal.SIGKILL:
            tally.kills += 1
            hurt = True
            continue
        if code != wanted_code:
            tally.differences.append(f"exit code {code}, not {wanted_code}")
        found = contents(out)
        tally.differences += sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        tally.finished += hurt
        hurt = False
        if tally.kills < kills:
            shutil.rmtree(out)
    return tally


def write_slides(folder: Path, slides: int) -> None:
    """Small slides, and one that cannot be read: failed.csv is part of the output."""
    (folder / "slides").mkdir(parents=True)
    for number in range(slides):
        pixels = textured(512, 640, number)
        write_pyramid(folder / "slides" / f"s{number}.tif", pixels, mpp=1.0, levels=2)
    (folder / "slides" / "torn.tif").write_bytes(b"II*\0torn")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--slides", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", nargs="*")
    given = parser.parse_intermixed_args()
    chance = random.Random(given.seed)
    write_slides(given.folder, given.slides)
    tallies = []
    for verb, command in commands(given.folder, *given.settings).items():
        tallies.append(torture(verb, command, given.folder, given.kills, chance))
        print(json.dumps(asdict(tallies[-1])), flush=True)
    return int(any(tally.differences for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
