"""Class maps: what is refused in them, what they do to masks, and that ids belong to names."""

import json
from importlib import resources

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lamella.errors import DatasetError, ImageError
from lamella.imaging.datasets.class_map import class_map_of, open_class_map, present_values, shipped_class_maps

BCSS_CODES = range(22)


def made(**changes):
    tree = {"classes": {"gland": [1, 3], "stroma": [2]}, "ignore": [9], "rest": "background", "rest_name": "other"}
    tree |= {"known": [0, 1, 2, 3, 4, 9]}
    return class_map_of({key: value for key, value in (tree | changes).items() if value is not None}, "map.yaml")


def with_ids(a, b):
    return {"a": {"id": a, "values": [1]}, "b": {"id": b, "values": [2]}}


def test_ids_of_the_shipped_maps_cannot_drift():
    # Mistake of the source: class ids drifted between scripts. Models, tables and label rasters of earlier runs hold
    # these numbers; to change one is to misread them.
    assert {name: open_class_map(name).ids for name in shipped_class_maps()} == {
        "bcss5": {"tumor": 1, "stroma": 2, "lymphocytic_infiltrate": 3, "necrosis_or_debris": 4, "blood_vessel": 5},
        "bcss-official": {"tumor": 1, "stroma": 2, "inflammatory": 3, "necrosis": 4},
    }
    assert {name: open_class_map(name).background for name in shipped_class_maps()} == {
        "bcss5": "other",
        "bcss-official": "other",
    }


def test_prompts_for_naming_speak_of_the_same_classes():
    prompts = json.loads((resources.files("lamella") / "profiles" / "prompts_bcss5.json").read_text(encoding="utf-8"))
    assert {name for name in prompts if not name.startswith("_")} <= set(open_class_map("bcss5").ids) | {"other"}


def test_bcss5_blood_vessel_is_18_and_fat_is_background():
    values = open_class_map("bcss5").ids_of(np.array([[1, 2, 3, 4, 18, 9, 0, 7, 21]]), "mask.png")
    assert values.tolist() == [[1, 2, 3, 4, 5, 0, 255, 255, 0]]


def test_bcss_official_groups_related_codes():
    values = open_class_map("bcss-official").ids_of(np.array([1, 19, 20, 2, 3, 10, 11, 4, 18, 0, 7]), "mask.png")
    assert values.tolist() == [1, 1, 1, 2, 3, 3, 3, 4, 0, 255, 255]


@pytest.mark.parametrize("name", ["bcss5", "bcss-official"])
def test_ignored_area_is_never_background(name):
    found = open_class_map(name)
    ids = {code: int(found.ids_of(np.array([code]), "mask.png")[0]) for code in BCSS_CODES}
    assert {code for code, class_id in ids.items() if class_id == 255} == {0, 7}


def test_ids_stand_for_names_not_for_lines():
    forward = class_map_of({"classes": {"a": {"id": 1, "values": [5]}, "b": {"id": 2, "values": [6]}}}, "x")
    backward = class_map_of({"classes": {"b": {"id": 2, "values": [6]}, "a": {"id": 1, "values": [5]}}}, "x")
    assert forward.ids == backward.ids
    assert forward.ids_of(np.array([5, 6]), "m").tolist() == backward.ids_of(np.array([5, 6]), "m").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"classes": with_ids(1, 3)}, "the ids have a hole: 2 is no class"),
        ({"classes": with_ids(1, 1)}, "two classes share an id: a 1, b 1"),
        ({"classes": {"a": {"id": 1, "values": [1]}, "b": [2]}}, "b: no id, where a has one"),
        ({"classes": with_ids(0, 1)}, "ids are whole numbers from 1, not a 0"),
        ({"classes": {"a": [1], "b": []}}, "class b has no value"),
        ({"classes": {"a": [1], "b": None}}, "class b has no value"),
        ({"classes": {"a": [1], "b": [2, 1]}}, "value 1 is in a and in b"),
        ({"ignore": [2, 9]}, "value 2 is in stroma and in ignore"),
        ({"classes": {"a": [1], "b": ["two"]}}, "class b: 'two' is no value of a mask"),
        ({"classes": {"a": [1], "b": [-1]}}, "class b: -1 is no value of a mask"),
        ({"classes": {"a": [1], "b": [True]}}, "class b: True is no value of a mask"),
        ({"classes": {"a": [1], "b": ["#ff0000"]}}, "some values are numbers and some are colours"),
        ({"classes": {"a": [1], False: [2]}}, "the class False is called by no word"),
        ({"classes": {"a": {"id": 1, "value": [1]}}}, "class a: value is no key of a class"),
        ({"classes": {}}, "classes must name each class"),
        ({"rest": "refuse", "rest_name": None}, "a hole: the known value 0, 4 is in no class and not ignored"),
        ({"known": None}, "`known` must list every value"),
        ({"known": [0, 1, 2, 9]}, "`known` leaves out 3"),
        ({"rest_name": None}, "rest is background, which needs a name"),
        ({"rest_name": "gland"}, "rest_name gland is a class already"),
        ({"rest": "ignore"}, "rest_name says what the background is called, and rest is ignore"),
        ({"rest": "drop"}, "rest is 'drop', not one of"),
        ({"clases": {}}, "clases is no key of a class map"),
        ({"classes": {"a": [1]}, "rest": "ignore", "rest_name": None}, "nothing to tell apart"),
    ],
)  # fmt: skip
def test_a_faulty_map_is_refused(changes, told):
    with pytest.raises(DatasetError) as caught:
        made(**changes)
    assert told in str(caught.value)
    assert str(caught.value).startswith("map.yaml: ")


def test_all_problems_are_told_at_once():
    with pytest.raises(DatasetError) as caught:
        made(classes={"a": [1], "b": [2, 1]}, rest_name="a", known=[1])
    assert len(caught.value.problems) == 3


def test_an_unknown_value_is_refused_with_file_and_value():
    with pytest.raises(ImageError, match=r"masks/a.png: it holds the unknown value 5, 7 .class map map knows 0, 1, 2"):
        made().ids_of(np.array([[1, 7], [5, 2]]), "masks/a.png")


def test_rest_is_refused_ignored_or_background():
    values = np.array([1, 2, 3, 4, 9])
    assert made().ids_of(values, "m").tolist() == [1, 2, 1, 0, 255]
    ignoring = made(rest="ignore", rest_name=None)
    assert (ignoring.ids_of(values, "m").tolist(), ignoring.background) == ([1, 2, 1, 255, 255], None)
    strict = made(rest=None, rest_name=None, known=None)
    with pytest.raises(ImageError, match="unknown value 4"):
        strict.ids_of(values, "m")


def test_colours_are_values():
    found = class_map_of({"classes": {"tumor": ["#ff0000"], "stroma": ["#00FF00"]}, "ignore": ["#000000"]}, "c.yaml")
    assert found.by_colour
    assert found.ids_of(np.array([[0xFF0000, 0x00FF00, 0]]), "m").tolist() == [[1, 2, 255]]
    with pytest.raises(ImageError, match=r"unknown value #0000ff .class map c knows #000000, #00ff00, #ff0000."):
        found.ids_of(np.array([[0x0000FF, 0xFF0000]]), "m")


def test_files_are_found_by_name_or_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("classes:\n  a: [1]\n  b: 2\nignore: [0]\n")
    found = open_class_map(str(path))
    assert (found.name, found.ids, found.values) == ("mine", {"a": 1, "b": 2}, {"a": (1,), "b": (2,)})
    with pytest.raises(DatasetError, match=r"no such class map or file. Did you mean bcss5\?"):
        open_class_map("bcss_5")
    path.write_text("classes:\n  a: [1]\n  a: [2]\n")
    with pytest.raises(DatasetError, match="a stands twice"):
        open_class_map(path)
    path.write_text("- 1\n")
    with pytest.raises(DatasetError, match="must hold keys and values"):
        open_class_map(path)
    path.write_text("classes: {a: [1\n")
    with pytest.raises(DatasetError, match="it is not YAML"):
        open_class_map(path)


def test_both_shipped_maps_know_the_same_codes():
    trees = [yaml.safe_load(path.read_text()) for path in shipped_class_maps().values()]
    assert trees[0]["known"] == trees[1]["known"]
    assert sorted(trees[0]["known"].values()) == list(BCSS_CODES)


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4, 9]), min_size=1, max_size=40))
def test_every_pixel_is_mapped_by_itself(values):
    found = made()
    alone = [int(found.ids_of(np.array([value]), "m")[0]) for value in values]
    assert found.ids_of(np.array(values), "m").tolist() == alone


@given(st.lists(st.integers(-5, 200_000), max_size=30))
def test_present_values_are_those_of_unique(values):
    assert present_values(np.array(values, np.int64)) == sorted(set(values))
