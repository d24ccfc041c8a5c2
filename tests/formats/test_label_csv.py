"""Labels CSV: three ways to write labels, none of them guessed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lamella.errors import DatasetError
from lamella.formats.label_csv import LabelRows, read_labels

CLASSES = ("benign", "tumor")


def read(tmp_path: Path, text: str, label_format: str | None = None, classes: tuple[str, ...] = CLASSES) -> LabelRows:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_labels(path, classes, "background", label_format)


@pytest.mark.parametrize(
    ("label_format", "text"),
    [
        ("class_index", "image_name,label\na,1\nb,0\nc,\n"),
        ("multi_hot", 'image_name,label\na,"0,1"\nb,"[1, 0]"\nc,\n'),
        ("columns", "image_name,benign,tumor\na,0,1\nb,1,0\nc,,\n"),
        (None, "image_name,benign,tumor\na,0,1\nb,1,0\nc,,\n"),
        (None, "filename,label\na,tumor\nb,benign\nc,\n"),
    ],
)
def test_labels_in_every_way(tmp_path: Path, label_format: str | None, text: str) -> None:
    assert read(tmp_path, text, label_format).labels == (("a", (0, 1)), ("b", (1, 0)), ("c", None))


def test_several_names_and_none(tmp_path: Path) -> None:
    rows = read(tmp_path, "image_name,label\na,benign;tumor\nb,background\n")
    assert rows.labels == (("a", (1, 1)), ("b", (0, 0)))


@pytest.mark.parametrize(
    ("text", "classes"), [("1", CLASSES), ('"1,0"', CLASSES), ("1", ("tumor",)), ("1", ("0", "1"))]
)
def test_a_bare_number_needs_label_format(tmp_path: Path, text: str, classes: tuple[str, ...]) -> None:
    """Issue 6, bad input: "1" without label_format. Also where it is a class's name, or there is one class only."""
    with pytest.raises(DatasetError, match="label_format does not say which"):
        read(tmp_path, f"image_name,label\na,{text}\n", None, classes)


@pytest.mark.parametrize(
    ("label_format", "text", "problem"),
    [
        ("class_index", "image_name,label\na,2\n", r"line 2 \(a\): label '2' is no class; numbers are 0 to 1"),
        ("class_index", "image_name,label\na,-1\n", "'-1' is no class"),
        ("class_index", "image_name,label\na,tumor\n", "'tumor' is no class; numbers"),
        (None, "image_name,label\na,tumour\n", "'tumour' is no class; classes are benign, tumor"),
        ("multi_hot", "image_name,label\na,1\n", "'1' is not 2 times 0 or 1"),
        ("multi_hot", 'image_name,label\na,"1,2"\n', "not 2 times 0 or 1"),
        ("columns", "image_name,benign,tumor\na,1,2\n", "tumor is '2', not 0 or 1"),
        ("columns", "image_name,benign,tumor\na,1,\n", "tumor is '', not 0 or 1"),
    ],
)
def test_unknown_classes_are_told_by_line(tmp_path: Path, label_format: str, text: str, problem: str) -> None:
    """Issue 6, bad input: unknown class. The other lines are read, so that all problems are told at once."""
    rows = read(tmp_path, text + text.splitlines()[-1].replace("a", "b", 1) + "\n", label_format)
    assert rows.labels == ()
    assert len(rows.problems) == 2
    assert re.search(problem, rows.problems[0])


@pytest.mark.parametrize(
    ("label_format", "text", "cause"),
    [
        (None, "slide,label\na,tumor\n", "no column image_name"),
        (None, "image_name,benign\na,1\n", "no column for tumor"),
        ("columns", "image_name,label\na,1\n", "no column for benign, tumor"),
        ("class_index", "image_name,benign,tumor\na,1,0\n", "no column label"),
        (None, "image_name,grade\na,1\n", "no column label"),
        (None, "image_name,label,benign,tumor\na,tumor,1,0\n", "column label and one for every class"),
        (None, "image_name,label\n", "labels nothing"),
    ],
)
def test_files_without_the_columns_are_refused(tmp_path: Path, label_format: str | None, text: str, cause: str) -> None:
    with pytest.raises(DatasetError, match=cause):
        read(tmp_path, text, label_format)
