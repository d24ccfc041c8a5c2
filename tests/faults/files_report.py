"""Reads 2,000 seeded mutations of small slides in child processes and prints what happened, as a table.

    python -m tests.faults.files_report [--mutations 2000] [--first 0] [--children 2] [--findings findings.jsonl]

Ends with 1 if there is a finding: a crash, a hang, unbounded memory, a blank, a foreign error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tests.faults.mutations import KINDS, Anatomy, Mutation, anatomy, mutate
from tests.faults.reading import GOOD, Answer, Child
from tests.faults.sources import written

from lamella.slides.slide import open_slide

COLUMNS = (*GOOD, "blank", "foreign error", "unnamed error", "two answers", "crash", "hang", "memory")


def originals(folder: Path, *, real: bool = True) -> dict[str, Anatomy]:
    """Write the sound slides and, beside each, level 0 as .npy."""
    paths = written(folder, real=real)
    for path in paths.values():
        with open_slide(path, mpp=0.5) as slide:
            np.save(path.with_name(path.name + ".npy"), slide.read(slide.frame.bounds_px, slide.mpp).pixels)
    return {name: anatomy(path) for name, path in paths.items()}


def sweep(seeds: range, sources: dict[str, Anatomy], folder: Path) -> list[tuple[Mutation, Answer]]:
    """Read the mutation of every seed in one child process after the other."""
    found = []
    with Child() as child, tempfile.TemporaryDirectory() as place:
        for seed in seeds:
            mutation = mutate(seed, sources)
            path = Path(place) / f"m{seed}_{mutation.source}"
            path.write_bytes(mutation.data)
            found.append((mutation, _stored_black(mutation, child.read(path, folder / f"{mutation.source}.npy"))))
            path.unlink()
    return found


def _stored_black(mutation: Mutation, answer: Answer) -> Answer:
    """Zeros written over uncompressed pixels are black pixels: no reader could tell, so it is no blank of ours."""
    stored = mutation.source.startswith("raw.") and mutation.kind in ("block overwritten", "tile damaged")
    return replace(answer, outcome="other pixels") if stored and answer.outcome == "blank" else answer


def table(found: list[tuple[Mutation, Answer]], key: str) -> str:
    """Outcomes in columns, one row for each `key` of the mutations (`kind` or `source`)."""
    groups = sorted({getattr(mutation, key) for mutation, _ in found})
    lines = [f"| {key} | tried | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * (len(COLUMNS) + 1)]
    for group in (*groups, "all"):
        outcomes = [answer.outcome for mutation, answer in found if group in (getattr(mutation, key), "all")]
        counted = Counter(outcomes)
        lines.append(f"| {group} | {len(outcomes)} | " + " | ".join(str(counted[name]) for name in COLUMNS) + " |")
    return "\n".join(lines)


def report(found: list[tuple[Mutation, Answer]]) -> int:
    """Print the tables and the findings; returns the number of findings."""
    print(table(found, "kind"), table(found, "source"), sep="\n\n")
    other = Counter(answer.openslide.split(":")[0] for _, answer in found if answer.openslide)
    print("\nother pixels: what OpenSlide gives for the same place of the same file:", dict(other))
    print(f"longest read {max(answer.seconds for _, answer in found):.1f} s,", end=" ")
    print(f"largest growth of memory {max(answer.peak_mb for _, answer in found):.0f} MB")
    crashed = [mutation.seed for mutation, answer in found if answer.openslide in ("crash", "hang")]
    if crashed:
        print(f"OpenSlide alone died where the own reader did not: seeds {crashed}")
    findings = [(mutation, answer) for mutation, answer in found if answer.outcome not in GOOD]
    for mutation, answer in findings:
        print(f"FINDING {answer.outcome}: seed {mutation.seed}, {mutation.source}, {mutation.kind},", end=" ")
        print(f"reader {answer.reader or '-'}: {answer.detail}")
    print(f"{len(found)} mutations of {len({mutation.source for mutation, _ in found})} files, seeds from", end=" ")
    print(f"{found[0][0].seed}; {len(findings)} findings")
    return len(findings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--findings", type=Path, help="write every answer here, one JSON object a line")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = originals(folder)
        edges = np.linspace(0, arguments.mutations, arguments.children + 1).astype(int) + arguments.first
        parts = [range(first, stop) for first, stop in itertools.pairwise(edges)]
        with ThreadPoolExecutor(arguments.children) as pool:
            swept = pool.map(lambda seeds: sweep(seeds, sources, folder), parts)
            found = [one for part in swept for one in part]
    if arguments.findings:
        lines = [
            json.dumps({"seed": mutation.seed, "source": mutation.source, "kind": mutation.kind} | asdict(answer))
            for mutation, answer in found
        ]
        arguments.findings.write_text("\n".join(lines) + "\n")
    findings = report(found)
    print(f"{len(KINDS)} kinds of damage, {time.perf_counter() - start:.0f} s")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
