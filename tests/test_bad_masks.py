"""Masks and class maps that cannot be learned from, through the command line: exit code 2, and what to do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.imaging.datasets import miniatures

from lamella.cli import main

HOLE = """
classes:
  tumor: {id: 1, values: [1]}
  blood_vessel: {id: 3, values: [18]}
ignore: [0, 7]
rest: background
rest_name: other
known: [0, 1, 2, 3, 4, 7, 9, 18]
"""
BAD_MASKS = {
    "another size": (np.ones((40, 32), np.uint8), "it has 40 rows of 32 pixels, its image"),
    "unknown class": (np.full((32, 40), 22, np.uint8), "it holds the unknown value 22 (class map bcss5 knows 0, 1,"),
    "all ignored": (np.zeros((32, 40), np.uint8), "every pixel is ignored. Leave these images out"),
}


@pytest.fixture
def data(tmp_path) -> Path:
    return miniatures.make_bcss(tmp_path / "bcss", regions=miniatures.BCSS_REGIONS[:4])


@pytest.mark.parametrize("fault", list(BAD_MASKS))
def test_a_bad_mask_stops_training_before_it_begins(data, tmp_path, capsys, fault):
    mask, told = BAD_MASKS[fault]
    path = sorted((data / "masks").glob("*"))[0]
    Image.fromarray(mask).save(path)
    assert main(["adapt", str(data), "-o", str(tmp_path / "out"), "-p", "segment_small", "data.workers=0"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert path.name in error
    assert not list(tmp_path.glob("out/**/*.safetensors"))


@pytest.mark.parametrize("verb", ["datasets", "adapt"])
def test_a_class_map_with_a_hole(data, tmp_path, capsys, verb):
    (tmp_path / "hole.yaml").write_text(HOLE)
    setting = f"class_map={tmp_path / 'hole.yaml'}"
    training = ["-o", str(tmp_path / "out"), "-p", "segment_small", f"data.dataset.{setting}"]
    more = [setting] if verb == "datasets" else training
    assert main([verb, str(data), *more]) == 2
    assert "hole.yaml: the ids have a hole: 2 is no class" in capsys.readouterr().err


def test_a_mask_of_nothing_but_background_is_nothing_here(data, capsys):
    Image.fromarray(np.full((32, 40), 9, np.uint8)).save(sorted((data / "masks").glob("*"))[0])
    assert main(["datasets", str(data), "check=true"]) == 0
    assert "checked 4 images: no problems" in capsys.readouterr().out
