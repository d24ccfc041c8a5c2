"""Prints what jobs and runs survive, as a table: what was tried, how often, what happened. Takes some minutes.

    python -m tests.faults.jobs_report [--times 10]

Ends with 1 if something was not answered as it should be. `files_report` does the same for damaged files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.deadly import FAULTS, deadly

from lamella.engine.jobs import JobSettings, run_jobs

ROOT = Path(__file__).resolve().parents[2]
_BOUND_S = 1800  # for one harness; none is allowed to hang


def dead_workers(times: int) -> Iterator[tuple[str, int, int, str]]:
    """(what, how often, how often right, what happened) for each way to end a worker, between good slides."""
    for fault, words in FAULTS.items():
        items = [item for number in range(times) for item in (f"good {number}", fault)]
        limits = JobSettings(workers=2, retries=1, time_limit_s=3, memory_limit_gb=0.6)
        done = list(run_jobs(deadly, items, limits, label="report"))
        bad = [one for one in done if one.item == fault]
        right = sum(words in one.error and one.attempts == 2 for one in bad)
        good = sum(one.ok for one in done if one.item != fault)
        yield (
            f"worker: {fault}",
            times,
            right if good == times else 0,
            f"only its slide failed ({good} of {times} others done), after 2 tries: {bad[0].error}",
        )


def killed_runs(times: int, *settings: str) -> Iterator[tuple[str, int, int, str]]:
    where = ", ".join(settings) or "in process"
    for tally in harness("kill_and_resume", "--kills", times, *settings):
        wrong = tally["differences"]
        yield (
            f"{tally['verb']} killed -9 and resumed, {where}",
            tally["kills"],
            0 if wrong else tally["kills"],
            f"other bytes: {wrong}" if wrong else f"{tally['finished']} folders, all byte-identical to undisturbed",
        )


def disks(times: int) -> Iterator[tuple[str, int, int, str]]:
    for line in harness("disks", "--steps", times, before=("unshare", "-rm")):
        full, wrong = line["fault"] == "disk full", line["wrong"]
        tried = times if full else 1
        said = "exit 2, named; with room again: byte-identical" if full else "exit 2, named; nothing written"
        yield f"{line['verb']}, {line['fault']}", tried, tried - len(wrong), "; ".join(wrong) or said


def two_runs(times: int) -> tuple[str, int, int, str]:
    test = "tests/faults/test_runs.py::test_the_second_of_two_runs_on_one_folder_is_told_and_harms_nothing"
    command = [sys.executable, "-m", "pytest", "-q", test]
    right = sum(subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0 for _ in range(times))
    return "two runs on one folder", times, right, "the second: exit 2, told; the first unharmed"


def harness(module: str, *arguments: object, before: tuple[str, ...] = ()) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        command = [*before, sys.executable, "-m", f"tests.faults.{module}", f"{folder}/work", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_BOUND_S)
    if not done.stdout:
        print(done.stderr, file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    times = parser.parse_args().times
    failed = False
    started = time.monotonic()
    print("| what was tried | times | right | what happened |\n|---|---|---|---|")
    for row in rows(times):
        failed |= row[1] != row[2]
        print("| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in row) + " |", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s")
    return int(failed)


def rows(times: int) -> Iterator[tuple[str, int, int, str]]:
    yield from dead_workers(times)
    yield from killed_runs(times)
    yield from killed_runs(times, "jobs.workers=2")
    yield from disks(times)
    yield two_runs(times)


if __name__ == "__main__":
    sys.exit(main())
