"""What the per-slide verbs share."""

from __future__ import annotations

import pytest

from lamella.config import Request
from lamella.engine.jobs import JobSettings
from lamella.errors import LamellaError
from lamella.formats.tables import read_csv, write_csv
from lamella.verbs.slide_jobs import Selection, SlideRunner, listed_as_failed, record_failures, refuse_unseen

IDS = [f"s{number}" for number in range(10)]


def selection(**options: object) -> Selection:
    return Selection.of(Request("embed", options=options))


@pytest.mark.parametrize("count", [1, 3, 10, 12])
def test_shards_cover_every_slide_once_and_differ_by_one_at_most(count: int) -> None:
    parts = [selection(shard=f"{number}/{count}").take(IDS, None) for number in range(1, count + 1)]
    assert sorted(slide_id for part in parts for slide_id in part) == IDS
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_flags_a_run_takes_all_and_says_nothing() -> None:
    assert selection().take(IDS, None) == IDS
    assert (selection().mark, selection().describe(10, 10)) == ("", "")


def test_those_that_failed_are_found_in_the_lists_of_all_shards(tmp_path) -> None:
    for name, slide_id in (("failed.csv", "s1"), ("failed.2of3.csv", "s4")):
        write_csv(tmp_path / name, [{"slide_id": slide_id, "error": "x"}], ["slide_id", "error"])
    assert listed_as_failed(tmp_path) == {"s1", "s4"}
    assert selection(retry_failed=True).take(IDS, tmp_path) == ["s1", "s4"]
    assert selection(retry_failed=True, shard="2/3").take(IDS, tmp_path) == ["s1", "s4"]  # s1, s4, s7
    assert selection(retry_failed=True, shard="1/3").take(IDS, tmp_path) == []
    assert selection(retry_failed=True).take(IDS, tmp_path / "none") == []


def test_a_list_of_the_whole_replaces_those_of_the_shards(tmp_path) -> None:
    row = {"slide_id": "s1", "path": "p", "error": "x"}
    record_failures(tmp_path, [row], ".1of2")
    record_failures(tmp_path, [], ".2of2")
    assert [path.name for path in tmp_path.iterdir()] == ["failed.1of2.csv"]
    record_failures(tmp_path, [row])
    assert [path.name for path in tmp_path.iterdir()] == ["failed.csv"]
    assert read_csv(tmp_path / "failed.csv") == [row]
    record_failures(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_files_that_a_clusters_workers_wrote_elsewhere_are_missed(tmp_path) -> None:
    (tmp_path / "a").touch()
    refuse_unseen([tmp_path / "b"], JobSettings())
    refuse_unseen([tmp_path / "a"], JobSettings(scheduler="tcp://a:1"))
    with pytest.raises(LamellaError, match="the workers wrote 1 files that cannot be seen from here"):
        refuse_unseen([tmp_path / "a", tmp_path / "b"], JobSettings(scheduler="tcp://a:1"))


def test_the_runner_keeps_traces_beside_the_list_and_forgets_old_ones(tmp_path) -> None:
    class Slide:
        slide_id = "s7"

    def buggy(item: object) -> None:
        raise ZeroDivisionError

    runner = SlideRunner(JobSettings(), "test")
    ((number, result, error),) = runner(buggy, [(Slide(), None)])
    assert (number, result) == (0, None)
    assert error.startswith("ZeroDivisionError (test_slide_jobs.py:")
    log = runner.write_traces(tmp_path, ".1of2")
    assert log == tmp_path / "failed.1of2.log"
    assert log.read_text().startswith("==== s7: ZeroDivisionError")
    assert SlideRunner(JobSettings(), "test").write_traces(tmp_path, ".1of2") is None
    assert not log.exists()
