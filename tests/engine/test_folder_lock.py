"""Two processes on one folder; a lock that no dead process keeps."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamella.engine import folder_lock
from lamella.engine.rundir import claim
from lamella.errors import OutputConflictError

OTHER = """
import sys, time
from pathlib import Path
from lamella.engine.folder_lock import lock_folder
folder = Path(sys.argv[1])
lock = lock_folder(folder / "run.json", shared=sys.argv[2] == "shared", settled=folder / "config.yaml", who="x")
print("mine", flush=True)
time.sleep(60)
"""


@contextmanager
def another_process(folder: Path, how: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder."""
    with subprocess.Popen([sys.executable, "-c", OTHER, folder, how], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "mine\n"
            yield other
        finally:
            other.kill()


def settled(folder: Path) -> Path:
    """A folder that an earlier run claimed."""
    claim(folder, {"a": 1}, {}, verb="embed")
    return folder


def test_a_second_run_is_told_plainly_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    settled(tmp_path)
    with another_process(tmp_path) as other:
        with pytest.raises(OutputConflictError, match="another `lamella embed` is writing there now"):
            claim(tmp_path, {"a": 1}, {}, verb="embed")
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert claim(tmp_path, {"a": 1}, {}, verb="embed").resumed


def test_shards_share_and_keep_the_whole_run_out(tmp_path: Path) -> None:
    settled(tmp_path)
    with another_process(tmp_path, "shared"):
        shard = claim(tmp_path, {"a": 1}, {}, verb="embed", shared=True)
        assert shard.resumed
        del shard
        with pytest.raises(OutputConflictError, match="is writing there now"):
            claim(tmp_path, {"a": 1}, {}, verb="embed")


def test_a_shard_waits_for_the_first_one_to_write_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "_SHARDS_WAIT_S", 0.2)
    with another_process(tmp_path, "shared"), pytest.raises(OutputConflictError):  # it holds it alone: none written yet
        claim(tmp_path, {"a": 1}, {}, verb="embed", shared=True)
    first = claim(tmp_path, {"a": 1}, {}, verb="embed", shared=True)
    assert not first.resumed
    assert not first.lock.alone
    with another_process(tmp_path, "shared"):  # and it has given way by now
        pass


def test_one_process_does_not_stand_in_its_own_way_and_lets_go_at_the_end(tmp_path: Path) -> None:
    first = claim(tmp_path, {"a": 1}, {}, verb="embed")
    assert claim(tmp_path, {"a": 1}, {}, verb="embed").lock is first.lock
    del first
    with another_process(tmp_path):
        pass


def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path) -> None:
    held = claim(tmp_path, {"a": 1}, {}, verb="embed")
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        assert held.lock is not None
        del held
        with another_process(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_told_once_and_used(tmp_path: Path, monkeypatch, capsys) -> None:
    def none(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "flock", none)
    monkeypatch.setattr(folder_lock, "_told", set())
    for name in "ab":
        taken = claim(tmp_path / name, {"a": 1}, {}, verb="embed")
        assert not taken.lock.alone, "what nobody guards is not cleared away"
    assert capsys.readouterr().err.count("folders cannot be locked there (No locks available)") == 1


def test_what_a_killed_run_left_half_written_is_cleared_away_by_the_next_whole_run(tmp_path: Path) -> None:
    settled(tmp_path)
    left = [tmp_path / ".s1.node7-31-0123abcd.part.h5", tmp_path / "maps" / ".s1.node7-31-0123abcd.part.png"]
    foreign = [tmp_path / ".s1.part.h5", tmp_path / "other" / ".x.node7-31-0123abcd.part.h5"]
    for path in (*left, *foreign):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "other" / "run.json").touch()  # another run's folder, perhaps at work
    claim(tmp_path, {"a": 1}, {}, verb="embed", shared=True)
    assert all(path.exists() for path in left), "other shards may be writing them"
    claim(tmp_path, {"a": 1}, {}, verb="embed")
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in foreign)


def test_a_read_only_folder_can_still_be_claimed_by_its_own_run(tmp_path: Path, monkeypatch) -> None:
    settled(tmp_path)
    real = os.open

    def read_only(path, flags, *mode):
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *mode)

    monkeypatch.setattr(folder_lock.os, "open", read_only)
    assert claim(tmp_path, {"a": 1}, {}, verb="embed").resumed
