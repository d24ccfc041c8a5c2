"""`lamella segment` on a generated slide, with a model whose answer is known: what is dark, inside the box."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tests.models.tiny_sam2 import tiny_sam2

from lamella.cli import main
from lamella.formats.geojson import GeoObject, read_geojson, write_geojson
from lamella.models.promptable import save_promptable
from lamella.models.promptable_model import PromptableModel
from lamella.slides.polygons import fill_polygon

WIDTH, HEIGHT, MPP = 640, 480, 0.5
SQUARE, DISC = (300, 200, 360, 240), (120, 330, 40)  # x0, y0, x1, y1; x, y, radius


def truth(thing: str) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    if thing == "disc":
        return np.hypot(x - DISC[0], y - DISC[1]) < DISC[2]
    x0, y0, x1, y1 = SQUARE
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


class Dark(PromptableModel):
    """Dark pixels: inside the box, or within 50 canvas pixels of a click, never within 15 of a negative one."""

    image_px = mask_px = 256
    architecture, fingerprint, encoder_fingerprint, encoder_trained, pyramid_dim = {}, "dark", "dark", False, 1
    passes = 0
    absent_parts = ("It says no object score.",)

    def __init__(self) -> None:
        super().__init__(None, "dark", "none", absent=self.absent_parts)
        self.register_parameter("place", torch.nn.Parameter(torch.zeros(1), requires_grad=False))
        self.multimasks: list[bool] = []
        self.masks: torch.Tensor | None = None

    def pyramid(self, images):
        return []

    def _features(self, canvases):
        self.passes += 1
        return (canvases[:, :1],)

    def _answer(self, features, clicks, boxes, masks, multimask):
        self.multimasks.append(multimask)
        self.masks = masks
        middle = torch.arange(self.mask_px) + 0.5
        x, y = middle[None, :], middle[:, None]
        chosen = features[0][:, 0] < -1
        if boxes is not None:
            x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
            chosen = chosen & (x > x0) & (x < x1) & (y > y0) & (y < y1)
        if clicks is not None:
            distance = torch.hypot(x - clicks[0][:, :, :1, None], y - clicks[0][:, :, 1:, None])
            on = clicks[1][:, :, None, None] == 1
            if boxes is None:
                chosen = chosen & (distance.where(on, torch.inf).amin(1) < 50)
            chosen = chosen & (distance.where(~on, torch.inf).amin(1) > 15)
        return torch.where(chosen, 4.0, -4.0)[:, None], torch.full((len(chosen), 1), 0.75), None


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pixels = np.full((HEIGHT, WIDTH, 3), 230, np.uint8)
    pixels[truth("square") | truth("disc")] = 30
    path = tmp_path / "slide.tif"
    per_cm = 1e4 / MPP
    tifffile.imwrite(
        path, pixels, tile=(64, 64), photometric="rgb", resolution=(per_cm, per_cm), resolutionunit="CENTIMETER"
    )
    return path


@pytest.fixture
def dark(monkeypatch) -> Dark:
    model = Dark()
    monkeypatch.setattr("lamella.verbs.segment.load_promptable", lambda spec, squash: model)
    return model


def segment(slide: Path, out: Path, *more: str) -> int:
    return main(["segment", str(slide), "-o", str(out), *more])


def answers(out: Path) -> list[dict]:
    return json.loads((out / "answers.json").read_text())["answers"]


def filled(out: Path, number: int = 0) -> np.ndarray:
    """The outlines of an object, filled in level-0 pixels."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for polygon in list(read_geojson(out / "objects.geojson"))[number].polygons:
        fill_polygon(mask, polygon)
    return mask


BOX = ("--box", "290,190,370,250")


def test_a_box_becomes_a_mask_an_outline_and_a_picture(slide, dark, tmp_path, capsys):
    out = tmp_path / "out"
    assert segment(slide, out, *BOX, f"mpp={MPP}") == 0
    assert np.array_equal(filled(out), truth("square"))
    (row,) = answers(out)
    assert row["view_px0"] == [202, 92, 458, 348]  # 256 px around the box, where pixels are copied
    assert (row["mask_px"], row["mpp_x"], row["believed_iou"], row["object_probability"]) == (
        [256, 256],
        0.5,
        0.75,
        None,
    )
    assert row["area_um2"] == 60 * 40 * MPP**2
    with Image.open(out / row["mask"]) as image:
        mask = np.asarray(image)
        assert (image.text["mpp_x"], image.text["x_px0"], image.text["y_px0"]) == ("0.5", "202", "92")
    assert np.array_equal(mask, truth("square")[92:348, 202:458] * 255)
    (item,) = read_geojson(out / "objects.geojson")
    assert (item.classification, item.name) == ("object", "--box 1")
    assert item.measurements["believed IoU"] == 0.75
    with Image.open(out / "overlay.png") as picture:
        assert picture.width > 500
    said = capsys.readouterr().out
    assert "It says no object score." in said
    assert "600 um2" in said


def test_the_same_command_again_does_nothing_and_another_is_refused(slide, dark, tmp_path, capsys):
    out = tmp_path / "out"
    assert segment(slide, out, *BOX) == 0
    assert segment(slide, out, *BOX) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert dark.passes == 1
    assert segment(slide, out, "--box", "1,2,30,40") == 2
    assert segment(slide, out, *BOX, "context=1") == 2


def test_micrometres(slide, dark, tmp_path):
    assert segment(slide, tmp_path / "out", "--box", "145,95,185,125", "--um", f"mpp={MPP}") == 0
    assert np.array_equal(filled(tmp_path / "out"), truth("square"))


def test_clicks_and_negatives(slide, dark, tmp_path):
    out = tmp_path / "out"
    code = segment(
        slide,
        out,
        "--points",
        "120,330",
        "--points",
        "330,220;340,230",
        "--negatives",
        "120,300",
        f"mpp={MPP}",
        "tidy=0",
    )
    assert code == 0
    first, second = filled(out, 0), filled(out, 1)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    assert np.array_equal(first, truth("disc") & (np.hypot(x - 120, y - 300) > 15))
    assert np.array_equal(second, truth("square"))
    # A single click may mean several things; with a negative one in view it does not.
    assert dark.multimasks == [False, False]
    assert segment(slide, tmp_path / "one", "--points", "120,330", f"mpp={MPP}") == 0
    assert dark.multimasks[-1]


def test_objects_of_a_region_share_a_pass(slide, dark, tmp_path):
    out = tmp_path / "out"
    code = segment(
        slide, out, "--box", "290,190,370,250", "--box", "70,280,170,380", "--region", "60,150,400,480", f"mpp={MPP}"
    )
    assert code == 0
    assert dark.passes == 1
    # 340 x 330 px on a canvas of 256 px: outlines are as good as its pixels.
    for number, thing in enumerate(("square", "disc")):
        both = (filled(out, number) & truth(thing)).sum()
        assert 2 * both / (filled(out, number).sum() + truth(thing).sum()) > 0.97
    assert {row["mask"] for row in answers(out)} == {"mask_1.png", "mask_2.png"}
    assert answers(out)[0]["view_px0"] == [60, 150, 400, 480]
    assert (out / "overlay.png").exists()


def test_objects_of_a_region_do_not_change_each_other(slide, dark, tmp_path):
    """A single click gets three masks to choose from, also beside an object that is surer."""
    region = ("--region", "60,150,400,480", f"mpp={MPP}")
    assert segment(slide, tmp_path / "both", "--points", "120,330", "--box", "290,190,370,250", *region) == 0
    assert sorted(dark.multimasks) == [False, True]
    assert dark.passes == 1
    assert segment(slide, tmp_path / "one", "--points", "120,330", *region) == 0
    by_name = {item.name: number for number, item in enumerate(read_geojson(tmp_path / "both" / "objects.geojson"))}
    assert np.array_equal(filled(tmp_path / "one"), filled(tmp_path / "both", by_name["--points 1"]))


def test_prompts_of_qupath(slide, dark, tmp_path):
    square = np.array([[290.0, 190], [370, 190], [370, 250], [290, 250]])
    objects = [
        GeoObject(polygons=((square,),), classification="gland", name="my gland"),
        GeoObject(points=np.array([[120.0, 330.0]]), classification="tumour"),
        GeoObject(points=np.array([[120.0, 300.0]]), classification="Negative"),
    ]
    write_geojson(tmp_path / "prompts.geojson", objects)
    out = tmp_path / "out"
    assert segment(slide, out, "--prompts", str(tmp_path / "prompts.geojson"), f"mpp={MPP}") == 0
    found = list(read_geojson(out / "objects.geojson"))
    assert [(item.name, item.classification) for item in found] == [
        ("my gland", "gland"),
        ("object 2 of prompts.geojson", "tumour"),
    ]
    assert np.array_equal(filled(out, 0), truth("square"))
    assert not filled(out, 1)[300, 120]
    assert dark.masks is None


def test_outlines_as_mask_prompts(slide, dark, tmp_path):
    square = np.array([[290.0, 190], [370, 190], [370, 250], [290, 250]])
    hole = np.array([[300.0, 200], [310, 200], [310, 210], [300, 210]])
    write_geojson(tmp_path / "prompts.geojson", [GeoObject(polygons=((square, hole),))])
    out = tmp_path / "out"
    prompts = ("--prompts", str(tmp_path / "prompts.geojson"), f"mpp={MPP}")
    assert segment(slide, out, *prompts, "polygons=mask") == 0
    expected = np.full((256, 256), -10.0, np.float32)
    expected[190 - 92 : 250 - 92, 290 - 202 : 370 - 202] = 10
    expected[200 - 92 : 210 - 92, 300 - 202 : 310 - 202] = -10
    assert np.array_equal(dark.masks[0, 0].numpy(), expected)
    assert segment(slide, tmp_path / "turned", *prompts, "polygons=mask", "tta=d4") == 2


def test_the_view_fits_the_object_with_its_surroundings(slide, dark, tmp_path, capsys):
    assert main(["segment", str(slide), "--dry-run", "--box", "100,100,500,200"]) == 0
    # 200 um and half of it on each side on 256 px: 1.5625 um per pixel; the slide is only 240 um high.
    assert "x 0 to 640, y 0 to 480 as 205 x 154 px at 1.56 um per pixel" in capsys.readouterr().out
    assert main(["segment", str(slide), "--dry-run", "--box", "600,0,640,30"]) == 0
    # 20 um, enlarged at most four times (64 px), moved onto the slide.
    assert "x 560 to 640, y 0 to 80 as 80 x 80 px at 0.5 um per pixel" in capsys.readouterr().out
    assert main(["segment", str(slide), "--dry-run", "--points", "320,240", "click_fov_um=100"]) == 0
    assert "x 220 to 420, y 140 to 340 as 200 x 200 px at 0.5 um per pixel" in capsys.readouterr().out
    assert not any(tmp_path.glob("*/answers.json"))


def test_ome_tiff_masks_say_where_they_are(slide, dark, tmp_path):
    assert segment(slide, tmp_path / "out", *BOX, f"mpp={MPP}", "mask_format=ome.tif") == 0
    with tifffile.TiffFile(tmp_path / "out" / "mask.ome.tif") as file:
        assert np.array_equal(file.asarray(), truth("square")[92:348, 202:458])
        assert file.is_ome
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata
        assert '<M K="x_px0">202</M>' in file.ome_metadata


def test_turned_views_agree(slide, dark, tmp_path):
    # Not in the middle of its view: turned views of a symmetric picture would be known already.
    assert segment(slide, tmp_path / "out", "--box", "280,190,370,243", f"mpp={MPP}", "tta=d4") == 0
    assert dark.passes == 8
    assert np.array_equal(filled(tmp_path / "out"), truth("square"))


def test_where_the_model_sees_nothing(slide, dark, tmp_path, capsys):
    out = tmp_path / "out"
    assert segment(slide, out, "--box", "500,10,560,60", *BOX, f"mpp={MPP}") == 1
    assert len(list(read_geojson(out / "objects.geojson"))) == 1
    assert answers(out)[0]["area_um2"] == 0
    assert "the model saw nothing at: --box 1" in capsys.readouterr().out


def test_everything_in_a_region(slide, dark, tmp_path, capsys):
    out = tmp_path / "out"
    region = ("--region", "60,150,400,480", "--everything")
    settings = ("everything.points_per_side=8", "everything.least_iou=0.5", f"mpp={MPP}")
    assert segment(slide, out, *region, *settings) == 0
    found = list(read_geojson(out / "objects.geojson"))
    assert [item.name for item in found] == [f"found {number}" for number in range(1, len(found) + 1)]
    union = np.any([filled(out, number) for number in range(len(found))], axis=0)
    assert (
        2 * (union & (truth("square") | truth("disc"))).sum() / (union.sum() + (truth("square") | truth("disc")).sum())
        > 0.95
    )
    assert dark.passes == 1
    assert segment(slide, tmp_path / "none", *region, "everything.least_iou=0.8") == 0
    assert "nothing that it believes in" in capsys.readouterr().out
    assert list(read_geojson(tmp_path / "none" / "objects.geojson")) == []
    for wrong in (("--everything",), (*region, *BOX), (*region, "tta=d4")):
        assert segment(slide, tmp_path / "wrong", *wrong) == 2


def test_an_image_with_a_stated_spacing(dark, tmp_path, capsys):
    pixels = np.full((HEIGHT, WIDTH, 3), 230, np.uint8)
    pixels[truth("square")] = 30
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert segment(tmp_path / "image.png", tmp_path / "out", *BOX) == 2
    assert "--mpp" in capsys.readouterr().err
    assert segment(tmp_path / "image.png", tmp_path / "out", *BOX, "--mpp", "0.5", "mpp=0.5") == 0
    assert np.array_equal(filled(tmp_path / "out"), truth("square"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no box and no click is given"),
        (("--box", "1,2,3"), "it has 3 numbers, not 4"),
        (("--box", "1,2,3,four"), "is not numbers"),
        (("--box", "1,2,3,nan"), "not finite"),
        (("--box", "10,10,10,40"), "--box 1: its box (10, 10, 10, 40) has no area"),
        (("--box", "40,10,10,40"), "corners exchanged"),
        (("--box", "700,10,740,40"), "outside the image of 640 x 480 px"),
        (("--box", "1,1,9,9", "--points", "10,500"), "--points 1, click 1: it is at (10, 500), outside"),
        (("--box", "1,1,9,9", "--negatives=-1,5"), "--negatives, click 1"),
        (("--points", "10"), "not pairs of numbers"),
        ((*BOX, "mpp=0.1"), "a view of 256 px at mpp=0.1 shows 26 um"),
        ((*BOX, "--region", "700,0,800,10"), "holds nothing of the slide"),
        ((*BOX, "--region", "0,0,100,100"), "--box 1: it lies outside --region"),
        ((*BOX, "mmp=0.5"), "mpp"),
    ],
)
def test_bad_input(slide, dark, tmp_path, capsys, arguments, words):
    assert segment(slide, tmp_path / "out", *arguments) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "answers.json").exists()


def test_lines_are_no_prompts(slide, dark, tmp_path, capsys):
    write_geojson(tmp_path / "prompts.geojson", [GeoObject(lines=(np.array([[1.0, 1], [5, 5]]),))])
    assert segment(slide, tmp_path / "out", "--prompts", str(tmp_path / "prompts.geojson")) == 2
    assert "object 1 is a line" in capsys.readouterr().err


def test_no_slide_and_several(slide, tmp_path, capsys):
    assert main(["segment", str(slide), str(slide), *BOX, "-o", str(tmp_path / "out")]) == 2
    assert segment(tmp_path / "absent.svs", tmp_path / "out", *BOX) == 2
    assert segment(slide, tmp_path / "out", *BOX, "model=sam9") == 2
    assert "neither the name nor the folder of a promptable model" in capsys.readouterr().err


def test_a_model_folder_end_to_end(slide, tmp_path):
    save_promptable(tiny_sam2(), tmp_path / "model", "card")
    code = segment(slide, tmp_path / "out", *BOX, "--points", "120,330", f"model={tmp_path / 'model'}")
    rows = answers(tmp_path / "out")
    assert code == int(any(row["area_um2"] == 0 for row in rows))
    assert all(0 <= row["object_probability"] <= 1 for row in rows)
