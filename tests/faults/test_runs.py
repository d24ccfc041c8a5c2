"""Whole runs: killed and resumed, on a disk that fills up, two at once. The harnesses take larger numbers by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.kill_and_resume import commands, contents, write_slides

from lamella.cli import main

ROOT = Path(__file__).resolve().parents[2]


def harness(module: str, *arguments: object, before: tuple[str, ...] = (), limit_s: float) -> list[dict]:
    command = [*before, sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow  # tests/engine/test_processes.py kills a run in the default suite
def test_killed_at_random_moments_and_resumed_the_bytes_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    tallies = harness("kill_and_resume", tmp_path, "--kills", 4, "--slides", 4, limit_s=120)
    assert [(tally["verb"], tally["kills"], tally["differences"]) for tally in tallies] == [
        (verb, 4, []) for verb in ("index", "anchors", "embed")
    ]
    assert all(tally["finished"] >= 1 for tally in tallies)


def own_name_space() -> bool:
    command = ["unshare", "-rm", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not own_name_space(), reason="this system lets nobody mount a small disk")
def test_a_full_and_a_read_only_disk_are_named_and_the_run_goes_on_where_there_is_room(tmp_path: Path) -> None:
    told = harness("disks", tmp_path, "--steps", 1, before=("unshare", "-rm"), limit_s=120)
    assert len(told) == 6
    assert [line for line in told if line["wrong"]] == []


HOLDER = """
import sys, time
from pathlib import Path
import lamella.slides.indexing as indexing
real = indexing.index_slide
def slow(*arguments):
    print("at work", flush=True)
    time.sleep(60)
indexing.index_slide = slow
from lamella.cli import main
main(sys.argv[1:])
"""


def test_the_second_of_two_runs_on_one_folder_is_told_and_harms_nothing(tmp_path: Path, capsys) -> None:
    write_slides(tmp_path, 1)
    command = commands(tmp_path)["index"]
    with subprocess.Popen([sys.executable, "-c", HOLDER, *command], stdout=subprocess.PIPE, text=True) as first:
        try:
            assert any("at work" in line for line in first.stdout)
            before = contents(tmp_path / "index")
            assert main(command) == 2
            assert "another `lamella index` is writing there now" in capsys.readouterr().err
            assert contents(tmp_path / "index") == before
        finally:
            first.kill()
    assert main(command) == 1, "one slide cannot be read"


@pytest.mark.slow
def test_shards_as_a_cluster_starts_them_make_the_same_as_one_run(tmp_path: Path) -> None:
    """The commands of docs/how-to/clusters.md; those of the index by a shell with the variables that SLURM sets."""
    write_slides(tmp_path, 4)
    for verb, command in commands(tmp_path).items():
        assert main(command) in (0, 1)
        wanted = contents(tmp_path / verb)
        (tmp_path / verb).rename(tmp_path / f"{verb} alone")
        if verb == "index":
            assert sorted(task.wait() for task in [array_task(command, 1), array_task(command, 2)]) == [0, 1]
            assert (tmp_path / verb / "failed.1of2.csv").exists() != (tmp_path / verb / "failed.2of2.csv").exists()
        else:
            assert [main([*command, "--shard", f"{number}/2"]) for number in (2, 1)] == [0, 0]
        assert main(command) in (0, 1)
        assert contents(tmp_path / verb) == wanted, verb


def array_task(command: list[str], number: int) -> subprocess.Popen[bytes]:
    lamella = f"{sys.executable} -m lamella.cli {' '.join(command)}"
    shell = f'{lamella} --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"'
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "2"}
    return subprocess.Popen(["bash", "-c", shell], env=environment, stdout=subprocess.DEVNULL)
