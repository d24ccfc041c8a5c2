from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamella.errors import LamellaError
from lamella.models.text_prompts import read_text_prompts, same_text, shipped_text_prompts

GOOD = {"gland": ["a gland", "a crypt"], "background": ["stroma"]}


def written(folder: Path, tree: object) -> Path:
    path = folder / "wording.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return path


def test_classes_and_texts_stay_in_their_order_and_remarks_are_no_classes(tmp_path: Path) -> None:
    found = read_text_prompts(written(tmp_path, {"_about": "a remark", **GOOD}))
    assert found.name == "wording"
    assert found.classes == ("gland", "background")
    assert found.texts["gland"] == ("a gland", "a crypt")
    turned = found.in_order(("background", "gland"))
    assert turned.classes == ("background", "gland")
    assert turned.texts["gland"] == ("a gland", "a crypt")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({**GOOD, "background": []}, "background has no texts"),
        ({**GOOD, "background": "stroma"}, "background has no texts"),
        ({**GOOD, "background": ["stroma", " "]}, "background has ' ', which is no text"),
        ({**GOOD, "background": [3]}, "background has 3, which is no text"),
        ({**GOOD, "background": ["A  Gland"]}, "'a gland' stands in gland and in background"),
        ({**GOOD, "gland": ["a gland", "a gland "]}, "'a gland' stands in gland 2 times"),
        ({"gland": ["a gland"]}, "1 class"),
        ('{"gland": ["a"], "gland": ["b"], "other": ["c"]}', "gland stands 2 times"),
        ("[1]", "holds no classes"),
        ("{", "no JSON"),
    ],
    ids=["no texts", "a text", "blank", "number", "in two", "twice", "one class", "key twice", "list", "broken"],
)
def test_files_that_do_not_say_what_they_must_are_refused(tmp_path: Path, tree: object, said: str) -> None:
    with pytest.raises(LamellaError, match=said):
        read_text_prompts(written(tmp_path, tree))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(LamellaError, match=r"a has no texts; b has no texts"):
        read_text_prompts(written(tmp_path, {"a": [], "b": []}))


def test_the_shipped_examples_can_be_read_and_say_that_they_were_not_tuned() -> None:
    shipped = shipped_text_prompts()
    assert set(shipped) == {"bcss5", "glands"}
    for name, path in shipped.items():
        prompts = read_text_prompts(name)
        assert prompts.name == name
        assert all(len(texts) == 3 for texts in prompts.texts.values())
        assert "tuned on no data" in json.loads(path.read_text())["_about"]
    with pytest.raises(LamellaError, match=r"no such prompts file.*bcss5, glands"):
        read_text_prompts("colon")


def test_case_and_blanks_make_no_other_text() -> None:
    assert same_text(" A\tGland ") == "a gland"
