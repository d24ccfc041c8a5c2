"""A disk that fills up, and one that is read-only, for real: a small tmpfs in a name space of its own.

    unshare -rm python -m tests.faults.disks FOLDER [--steps 3]

For each verb: an undisturbed run; runs on disks with less and less room; the same command again with room enough. A
run must end with 2 and say that the disk is full, the next must finish with the same bytes. Then the same folder
read-only. Prints one JSON object per fault; ends with 1 if one is not answered.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.faults.kill_and_resume import commands, contents, ended, write_slides

from lamella.cli import main as lamella_main

WIDE = "64m"


def mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def used(disk: Path) -> int:
    state = os.statvfs(disk)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def said(command: list[str]) -> tuple[int, str]:
    """Exit code (negative: the signal) and last line on stderr of a command in a fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(writer, 2)
        os._exit(lamella_main(command))
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as pipe:
        text = pipe.read()
    return ended(child), (text.strip().splitlines() or [""])[-1]


def fill(verb: str, command: list[str], disk: Path, steps: int) -> list[str]:
    """What went wrong when the disk filled up while the verb wrote; empty if every run was answered rightly."""
    out, wrong = disk / verb, []
    wanted_code, _ = said(command)
    wanted = contents(out)
    needs = sum(map(len, wanted.values()))
    for step in range(steps):
        shutil.rmtree(out)
        # Whole pages are counted, and a file of one byte takes one: there is less room than this sounds.
        room = int(needs * (step + 0.5) / steps)
        mount(f"remount,size={used(disk) + room}", disk)
        code, words = said(command)
        if code == 2 and "the disk is full. Make room" in words:
            left = [name for name in contents(out) if ".part" in name] if out.exists() else []
            wrong += [f"room {room}: left {name}" for name in left]
        elif code != wanted_code:
            wrong.append(f"room {room}: exit code {code}: {words}")
        mount(f"remount,size={WIDE}", disk)
        code, words = said(command)
        if code != wanted_code or contents(out) != wanted:
            wrong.append(f"room {room}, then enough: exit code {code}, other bytes: {contents(out) != wanted}, {words}")
    return wrong


def read_only(verb: str, command: list[str], disk: Path) -> list[str]:
    """What went wrong on a read-only disk, in a finished folder and in a new one."""
    before, wrong = contents(disk), []
    mount(f"remount,ro,size={WIDE}", disk)
    other = [text if text != str(disk / verb) else str(disk / "new") for text in command]
    code, words = said(other)
    if code != 2 or "the file system is read-only. Choose a folder" not in words:
        wrong.append(f"a new folder: exit code {code}: {words}")
    mount(f"remount,rw,size={WIDE}", disk)
    return wrong + ([] if contents(disk) == before else ["something was written"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    disk = given.folder / "disk"
    disk.mkdir(parents=True)
    mount(f"size={WIDE}", disk)
    write_slides(disk, 3)
    failed = False
    for verb, command in commands(disk).items():
        for fault, wrong in (
            ("disk full", fill(verb, command, disk, given.steps)),
            ("read-only", read_only(verb, command, disk)),
        ):
            print(json.dumps({"verb": verb, "fault": fault, "wrong": wrong}), flush=True)
            failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
