"""From drawings on slides to images, masks and a trained model, by `lamella convert` and by `lamella adapt`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lamella.config import Request
from lamella.errors import LamellaError, OutputConflictError
from lamella.formats.annotation_folder import AnnotatedSlide, write_annotated_slides
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.tables import read_csv
from lamella.imaging.datasets.mask_channels import as_channels, channels_of
from lamella.imaging.datasets.opening import open_collection
from lamella.imaging.datasets.settings import DatasetSettings
from lamella.slides.slide import open_slide
from lamella.verbs import adapt, convert


def rectangle(x0, y0, x1, y1, name):
    ring = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)
    return GeoObject(polygons=((ring,),), classification=name)


DRAWN = [
    rectangle(400, 300, 800, 600, "Region"),
    rectangle(500, 400, 600, 500, "gland"),
    rectangle(700, 500, 900, 580, "gland"),  # reaches out of the region
    rectangle(580, 480, 640, 520, "vessel"),  # overlaps the first by 20 x 20
]


def annotate(folder: Path, slides: dict[str, Path], drawn: dict[str, list[GeoObject]], patients=()) -> Path:
    """Annotations as the viewer saves them: author -> objects, the same on each slide."""
    records = {}
    for name, path in slides.items():
        with open_slide(path) as slide:
            records[name] = AnnotatedSlide(name, path, slide.frame, dict(patients).get(name, ""))
        for author, objects in drawn.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_geojson(folder / name / f"{author}.geojson", objects)
    write_annotated_slides(folder, records)
    return folder


@pytest.fixture
def annotations(make_slide, tmp_path):
    slides = {name: make_slide(f"{name}.tif", seed=number) for number, name in enumerate(("a", "b"))}
    return annotate(tmp_path / "annotations", slides, {"ann": DRAWN})


def converted(source: Path, out: Path, *settings: str, dry_run: bool = False, **options) -> int:
    return convert.run(
        Request("convert", (source,), out, overrides=("to=masks", *settings), dry_run=dry_run, options=options)
    )


def expected_mask() -> np.ndarray:
    """Of DRAWN, over the box that holds it with 160 um (320 px) around, by hand, at level 0."""
    mask = np.full((1024, 1536), NOT_LABELLED, np.uint8)
    mask[300:600, 400:800] = 0
    mask[400:500, 500:600] = 1
    mask[500:580, 700:900] = 1
    mask[480:520, 580:640] = 2
    mask[480:500, 580:600] = NOT_LABELLED
    return mask[0:920, 80:1220]


def test_masks_hold_what_was_drawn_and_images_the_tissue_below(annotations, tmp_path, capsys):
    assert converted(annotations, tmp_path / "data") == 0
    rows = read_csv(tmp_path / "data" / "manifest.csv")
    assert [(row["slide"], row["author"], row["mpp"], row["x_px0"], row["y_px0"]) for row in rows] == [
        ("a", "ann", "0.5", "80", "0"),
        ("b", "ann", "0.5", "80", "0"),
    ]
    with Image.open(tmp_path / "data" / rows[0]["mask"]) as mask:
        assert np.array_equal(np.asarray(mask), expected_mask())
    with Image.open(tmp_path / "data" / rows[0]["image"]) as image, open_slide(annotations.parent / "a.tif") as slide:
        assert np.array_equal(np.asarray(image), slide.read(slide.frame.bounds_px, 0.5).pixels[:920, 80:1220])
    said = capsys.readouterr().out
    assert "gland and vessel overlap on 0.0002 mm2: not labelled" in said  # 20 x 20 px on two slides
    assert "no patients are known" in said
    assert "next: lamella adapt" in said


def test_the_data_set_is_read_with_its_classes_and_groups(make_slide, tmp_path):
    slides = {name: make_slide(f"{name}.tif") for name in ("a", "b", "c")}
    source = annotate(tmp_path / "annotations", slides, {"ann": DRAWN}, {"a": "P1", "b": "P1"}.items())
    converted(source, tmp_path / "data", "mpp=2")
    settings = DatasetSettings(class_map=str(tmp_path / "data" / "classes.yaml"))
    collection = open_collection(tmp_path / "data" / "manifest.csv", settings)
    assert channels_of(collection) == ("background", "gland", "vessel")
    assert [item.group for item in collection.items] == ["P1", "P1", "c"]
    assert (collection.items[0].mpp, collection.read(collection.items[0]).values.shape) == (2.0, (230, 285, 3))
    channels = as_channels(collection.read_mask(collection.items[0]), collection)
    assert set(np.unique(channels)) == {0, 1, 2, NOT_LABELLED}


def test_several_authors_are_chosen_or_kept_apart(make_slide, tmp_path):
    other = [rectangle(400, 300, 800, 600, "Region"), rectangle(450, 350, 500, 400, "gland")]
    source = annotate(tmp_path / "annotations", {"a": make_slide("a.tif")}, {"ann": DRAWN, "bob": other})
    with pytest.raises(LamellaError, match="2 people drew: ann, bob"):
        converted(source, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    converted(source, tmp_path / "bob", "masks.author=bob")
    (row,) = read_csv(tmp_path / "bob" / "manifest.csv")
    assert row["author"] == "bob"
    converted(source, tmp_path / "all", "masks.author=all")
    rows = read_csv(tmp_path / "all" / "manifest.csv")
    assert sorted(row["author"] for row in rows) == ["ann", "bob"]
    masks = [np.asarray(Image.open(tmp_path / "all" / row["mask"])) for row in rows]
    assert [int((mask == 1).sum()) for mask in sorted(masks, key=np.size)] == [2500, 100 * 100 + 200 * 80 - 400]
    with pytest.raises(LamellaError, match="nothing in it is by eve"):
        converted(source, tmp_path / "eve", "masks.author=eve")


def test_objects_alone_teach_their_classes_and_nothing_else(make_slide, tmp_path, capsys):
    source = annotate(tmp_path / "annotations", {"a": make_slide("a.tif")}, {"ann": DRAWN[1:]})
    converted(source, tmp_path / "data")
    tree = yaml.safe_load((tmp_path / "data" / "classes.yaml").read_text())
    assert tree == {
        "name": "annotations",
        "classes": {"gland": {"id": 1, "values": [1]}, "vessel": {"id": 2, "values": [2]}},
        "ignore": [NOT_LABELLED],
    }
    assert "no Region was drawn" in capsys.readouterr().out
    collection = open_collection(
        tmp_path / "data" / "manifest.csv", DatasetSettings(class_map=str(tmp_path / "data" / "classes.yaml"))
    )
    assert channels_of(collection) == ("gland", "vessel")


def test_a_large_region_becomes_several_images(annotations, tmp_path):
    converted(annotations, tmp_path / "data", "masks.most_px=256", "masks.context_um=10")
    rows = [row for row in read_csv(tmp_path / "data" / "manifest.csv") if row["slide"] == "a"]
    assert len(rows) > 3
    seen = np.full((1024, 1536), NOT_LABELLED, np.uint8)
    for row in rows:
        mask = np.asarray(Image.open(tmp_path / "data" / row["mask"]))
        assert max(mask.shape) <= 256
        x, y = int(row["x_px0"]), int(row["y_px0"])
        part = seen[y : y + mask.shape[0], x : x + mask.shape[1]]
        part[mask != NOT_LABELLED] = mask[mask != NOT_LABELLED]
    assert np.array_equal(seen[0:920, 80:1220], expected_mask())


def test_a_rerun_writes_nothing_and_changed_drawings_are_refused(annotations, tmp_path, capsys):
    converted(annotations, tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.*")}
    converted(annotations, tmp_path / "data")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.*")} == before
    assert "already" in capsys.readouterr().out
    write_geojson(annotations / "a" / "ann.geojson", DRAWN[:3])
    with pytest.raises(OutputConflictError):
        converted(annotations, tmp_path / "data")


def test_slides_that_moved_or_changed(annotations, make_slide, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in ("a", "b"):
        shutil.move(tmp_path / f"{name}.tif", tmp_path / "elsewhere" / f"{name}.tif")
    with pytest.raises(LamellaError, match="is not there any more"):
        converted(annotations, tmp_path / "data")
    converted(annotations, tmp_path / "data", f"masks.slides={tmp_path / 'elsewhere'}")
    make_slide("a.tif", height=900, folder=tmp_path / "elsewhere")
    with pytest.raises(LamellaError, match="1536 x 900 pixels, and the slide that was drawn on had 1536 x 1024"):
        converted(annotations, tmp_path / "more", f"masks.slides={tmp_path / 'elsewhere'}")


@pytest.mark.parametrize(
    ("drawn", "cause"),
    [
        ([], "no area of any class"),
        (DRAWN[:1], "regions without an object"),
        ([rectangle(5000, 5000, 5100, 5100, "gland"), rectangle(5000, 5000, 5100, 5100, "Region")], "lies on its slide"),
    ],
)
def test_nothing_to_learn_from_is_refused(make_slide, tmp_path, drawn, cause):
    source = annotate(tmp_path / "annotations", {"a": make_slide("a.tif")}, {"ann": drawn})
    with pytest.raises(LamellaError, match=cause):
        converted(source, tmp_path / "data")


def test_other_folders_are_no_annotations(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LamellaError, match="no folder of annotations"):
        converted(tmp_path / "empty", tmp_path / "data")
    write_annotated_slides(tmp_path / "empty", {})
    with pytest.raises(LamellaError, match="no annotations"):
        converted(tmp_path / "empty", tmp_path / "data")


def test_a_dry_run_says_what_would_be_written(annotations, tmp_path, capsys):
    assert converted(annotations, tmp_path / "data", dry_run=True) == 0
    assert "up to 2 images with masks of background, gland, vessel" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


def adapted(source: Path, out: Path | None, *settings: str, dry_run: bool = False) -> int:
    quick = ("data.workers=0", "data.batch_size=2", "data.tile_px=64", "data.mpp=4", "budget={images: 4}", "device=cpu")
    request = Request(
        "adapt", (source,), out, profile="segment_small", overrides=(*quick, *settings), dry_run=dry_run
    )
    return adapt.run(request)


def test_adapt_takes_the_annotations_as_they_are(annotations, tmp_path, capsys):
    assert adapted(annotations, None, dry_run=True) == 0
    assert "2 images of 2 groups to train on" in capsys.readouterr().out
    assert adapted(annotations, tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert f"next: lamella evaluate {tmp_path / 'run' / 'model'} {tmp_path / 'run' / 'from_annotations'}" in said
    assert "dataset.class_map=" in said
    from lamella.models.segmenter_hub import load_segmenter

    assert load_segmenter(tmp_path / "run" / "model").contract.channels == ("background", "gland", "vessel")
    (mask,) = {Image.open(path).size for path in (tmp_path / "run" / "from_annotations" / "masks").iterdir()}
    assert mask == (142, 115)  # 1140 x 920 px of 0.5 um, at 4 um
    adapted(annotations, tmp_path / "run")
    assert "was trained already" in capsys.readouterr().out
    write_geojson(annotations / "a" / "ann.geojson", DRAWN[:3])
    with pytest.raises(OutputConflictError):
        adapted(annotations, tmp_path / "run")


def test_adapt_refuses_annotations_beside_other_data(annotations, tmp_path):
    with pytest.raises(LamellaError, match=r"Make a data set of the annotations first"):
        adapted(annotations, tmp_path / "run", "data.dataset.class_map=bcss5")
    request = Request("adapt", (annotations, tmp_path), tmp_path / "run", profile="segment_small")
    with pytest.raises(LamellaError, match="beside other data"):
        adapt.run(request)
