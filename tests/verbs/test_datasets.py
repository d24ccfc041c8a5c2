"""`lamella datasets`: the layouts, what one data set holds, and what of it cannot be read."""

import numpy as np
import pytest
from PIL import Image
from tests.imaging.datasets import miniatures

from lamella.cli import main


def test_without_a_path_every_layout_is_told(capsys):
    assert main(["datasets"]) == 0
    text = capsys.readouterr().out
    names = ("ham10000", "pcam", "aptos2019", "chestxray14", "brats", "bcss", "pannuke", "decathlon", "medmnist")
    for name in (*names, "folder", "csv"):
        assert f"{name}: " in text
    assert text.count("licence ") == 11
    assert "Nothing is downloaded" in text


def test_what_a_data_set_holds(tmp_path, capsys):
    miniatures.make_chestxray14(tmp_path)
    assert main(["datasets", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "chestxray14: 8 images" in text
    assert "multi-label: Atelectasis 0, Cardiomegaly 2, Effusion 2" in text
    assert "none of them 3" in text
    assert "4 patients with 2 to 2 images each" in text
    assert "train 6, test 2" in text
    assert "2 on 2 images" in text
    assert "note: labels were mined from reports" in text


def test_settings_reach_it(tmp_path, capsys):
    path = miniatures.make_brain(tmp_path)
    assert main(["datasets", str(path), "image=[flair]", "mask_classes.tumor=1", "check=true"]) == 0
    text = capsys.readouterr().out
    assert "4 volumes" in text
    assert "4 of 4 (background 0, tumor 1)" in text
    assert "3 patients with 1 to 2 volumes each" in text
    assert "checked 4 volumes: no problems" in text


def test_check_lists_what_cannot_be_read(tmp_path, capsys):
    miniatures.make_chestxray14(tmp_path)
    good = (tmp_path / "images_001/images/00000001_000.png").read_bytes()
    (tmp_path / "images_001/images/00000002_001.png").write_bytes(good[: len(good) // 2])
    boxes = tmp_path / "BBox_List_2017.csv"
    boxes.write_text(boxes.read_text().replace(",30,12,", ",30,120,"))
    assert main(["datasets", str(tmp_path), "check=true"]) == 1
    text = capsys.readouterr().out
    assert "00000002_001.png: it is a damaged image" in text
    assert "00000001_000: 1 box(es) reach beyond its 64 x 64 pixels" in text
    assert "checked 8 images: 2 problems" in text


def test_check_finds_the_same_content_in_two_splits_and_under_two_labels(tmp_path, capsys):
    for number, name in enumerate(("train/cat/a", "train/dog/b", "test/cat/c", "test/dog/d")):
        miniatures.picture(tmp_path / f"{name}.png", number)
    (tmp_path / "test/dog/e.png").write_bytes((tmp_path / "train/dog/b.png").read_bytes())
    (tmp_path / "test/cat/f.png").write_bytes((tmp_path / "test/dog/d.png").read_bytes())
    assert main(["datasets", str(tmp_path), "check=true"]) == 1
    text = capsys.readouterr().out
    assert "problem: the same content in two splits: test/dog/e (test), train/dog/b (train)" in text
    assert "problem: the same content under different labels: test/cat/f (test), test/dog/d (test)" in text
    assert "checked 6 images: 2 problems, 2 a repetition of another" in text


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        (["nam=csv"], "did you mean name?"),
        (["separator=|"], "must be a sign, or one of pipe"),
        (["label=grade"], "label has no effect on this layout"),
    ],
)
def test_settings_that_are_wrong(tmp_path, capsys, settings, cause):
    miniatures.make_ham10000(tmp_path)
    assert main(["datasets", str(tmp_path), *settings]) == 2
    assert cause in capsys.readouterr().err


def test_two_paths(tmp_path, capsys):
    assert main(["datasets", str(tmp_path), str(tmp_path)]) == 2
    assert "it takes one path at most" in capsys.readouterr().err


def test_masks_are_told_with_classes_and_shares(tmp_path, capsys):
    miniatures.make_bcss(tmp_path, regions=("A1-A0SK", "OL-A66I"))
    assert main(["datasets", str(tmp_path), "check=true"]) == 0
    text = capsys.readouterr().out
    assert "2 of 2 (other 0, tumor 1, stroma 2, lymphocytic_infiltrate 3, necrosis_or_debris 4, blood_vessel 5)" in text
    assert "spacing  0.25 um per pixel" in text
    assert "splits   train 1, test 1" in text or "splits   val 1, test 1" in text
    shares = next(line for line in text.splitlines() if line.startswith("masks: "))
    # Each of 8 codes is as frequent: two of them ignored, six seen, one of these (fat) `other`.
    for name in ("other", "tumor", "blood_vessel"):
        assert 13 < float(shares.split(f"{name} ")[1].split("%")[0]) < 20
    assert 22 < float(shares.split("; ")[1].split("%")[0]) < 28
    assert "of all is not labelled" in shares


def test_another_class_map_on_the_command_line(tmp_path, capsys):
    miniatures.make_bcss(tmp_path, regions=("A1-A0SK",))
    assert main(["datasets", str(tmp_path), "class_map=bcss-official"]) == 0
    assert "(other 0, tumor 1, stroma 2, inflammatory 3, necrosis 4)" in capsys.readouterr().out
    assert main(["datasets", str(tmp_path), "class_map=bcss-offical"]) == 2
    assert "there is no such class map or file. Did you mean bcss-official?" in capsys.readouterr().err


def test_check_names_unknown_classes_sizes_and_empty_masks(tmp_path, capsys):
    miniatures.make_bcss(tmp_path, regions=("A1-A0SK", "A2-A0D2", "A2-A0SX"))
    one, two, three = sorted((tmp_path / "masks").glob("*.png"))
    Image.fromarray(np.full((32, 40), 22, np.uint8)).save(one)
    Image.fromarray(np.ones((40, 32), np.uint8)).save(two)
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(three)
    assert main(["datasets", str(tmp_path), "check=true"]) == 1
    text = capsys.readouterr().out
    assert f"{one.name}: it holds the unknown value 22 (class map bcss5 knows 0, 1, 2" in text
    assert f"{two.name}: it has 40 rows of 32 pixels, its image {two.name} 32 of 40" in text
    assert f"{three.name}: every pixel of the mask is ignored" in text
    assert "checked 3 images: 3 problems" in text
