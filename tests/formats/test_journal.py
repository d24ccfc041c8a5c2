"""Notes of an unfinished job."""

from lamella.formats.journal import Journal


def test_a_killed_run_leaves_its_notes_and_a_torn_line_is_passed_over(tmp_path):
    first = Journal(tmp_path / "out" / ".notes.jsonl")
    assert first.entries == []
    first.add({"slide_id": "a"})
    with open(first.path, "a") as file:
        file.write('\n{"slide_id": "b", "anch')  # killed here
    second = Journal(first.path)
    assert second.entries == [{"slide_id": "a"}]
    second.add({"slide_id": "c"})
    third = Journal(first.path)
    assert third.entries == [{"slide_id": "a"}, {"slide_id": "c"}]
    third.end()
    assert not first.path.exists()
    third.end()  # a job that found nothing to do has no notes
