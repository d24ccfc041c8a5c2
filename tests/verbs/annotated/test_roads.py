"""From drawings on slides to images, masks and a trained model, by `lamella convert` and by `lamella adapt`."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.conftest import textured, write_pyramid

from lamella import cli
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
    rectangle(200, 150, 400, 300, "Region"),
    rectangle(250, 200, 300, 250, "gland"),
    rectangle(350, 250, 450, 290, "gland"),  # reaches out of the region
    rectangle(290, 240, 320, 260, "vessel"),  # overlaps the first by 10 x 10
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


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> dict[str, Path]:
    """Three slides of 512 x 768 px of 1 um."""
    folder = tmp_path_factory.mktemp("slides")
    return {
        name: write_pyramid(folder / f"{name}.tif", textured(512, 768, seed), mpp=1.0, levels=2)
        for seed, name in enumerate(("a", "b", "c"))
    }


@pytest.fixture
def annotations(slides, tmp_path):
    """By one author on two slides."""
    return annotate(tmp_path / "annotations", {name: slides[name] for name in ("a", "b")}, {"ann": DRAWN})


def read_image(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def converted(source: Path, out: Path, *settings: str, dry_run: bool = False, **options) -> int:
    return convert.run(
        Request("convert", (source,), out, overrides=("to=masks", *settings), dry_run=dry_run, options=options)
    )


def expected_mask() -> np.ndarray:
    """Of DRAWN, over the box that holds it with 160 um around, by hand, at level 0."""
    mask = np.full((512, 768), NOT_LABELLED, np.uint8)
    mask[150:300, 200:400] = 0
    mask[200:250, 250:300] = 1
    mask[250:290, 350:450] = 1
    mask[240:260, 290:320] = 2
    mask[240:250, 290:300] = NOT_LABELLED
    return mask[0:460, 40:610]


def test_masks_hold_what_was_drawn_and_images_the_tissue_below(annotations, slides, tmp_path, capsys):
    assert converted(annotations, tmp_path / "data") == 0
    rows = read_csv(tmp_path / "data" / "manifest.csv")
    assert [(row["slide"], row["author"], row["mpp"], row["x_px0"], row["y_px0"]) for row in rows] == [
        ("a", "ann", "1", "40", "0"),
        ("b", "ann", "1", "40", "0"),
    ]
    with Image.open(tmp_path / "data" / rows[0]["mask"]) as mask:
        assert np.array_equal(np.asarray(mask), expected_mask())
    with Image.open(tmp_path / "data" / rows[0]["image"]) as image, open_slide(slides["a"]) as slide:
        assert np.array_equal(np.asarray(image), slide.read(slide.frame.bounds_px, 1).pixels[:460, 40:610])
    said = capsys.readouterr().out
    assert "gland and vessel overlap on 0.0002 mm2: not labelled" in said  # 10 x 10 um on two slides
    assert "no patients are known" in said
    assert "next: lamella adapt" in said


def test_the_data_set_is_read_with_its_classes_and_groups(slides, tmp_path):
    source = annotate(tmp_path / "annotations", slides, {"ann": DRAWN}, {"a": "P1", "b": "P1"}.items())
    converted(source, tmp_path / "data", "mpp=4")
    settings = DatasetSettings(class_map=str(tmp_path / "data" / "classes.yaml"))
    collection = open_collection(tmp_path / "data" / "manifest.csv", settings)
    assert channels_of(collection) == ("background", "gland", "vessel")
    assert [item.group for item in collection.items] == ["P1", "P1", "c"]
    assert (collection.items[0].mpp, collection.read(collection.items[0]).values.shape) == (4.0, (115, 142, 3))
    channels = as_channels(collection.read_mask(collection.items[0]), collection)
    assert set(np.unique(channels)) == {0, 1, 2, NOT_LABELLED}


def test_several_authors_are_chosen_or_kept_apart(slides, tmp_path):
    other = [rectangle(200, 150, 400, 300, "Region"), rectangle(225, 175, 250, 200, "gland")]
    source = annotate(tmp_path / "annotations", {"a": slides["a"]}, {"ann": DRAWN, "bob": other})
    with pytest.raises(LamellaError, match="2 people drew: ann, bob"):
        converted(source, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    converted(source, tmp_path / "bob", "masks.author=bob")
    (row,) = read_csv(tmp_path / "bob" / "manifest.csv")
    assert row["author"] == "bob"
    converted(source, tmp_path / "all", "masks.author=all")
    rows = read_csv(tmp_path / "all" / "manifest.csv")
    assert sorted(row["author"] for row in rows) == ["ann", "bob"]
    masks = {row["author"]: read_image(tmp_path / "all" / row["mask"]) for row in rows}
    assert {author: int((mask == 1).sum()) for author, mask in masks.items()} == {
        "ann": 50 * 50 + 100 * 40 - 10 * 10,
        "bob": 25 * 25,
    }
    with pytest.raises(LamellaError, match="nothing in it is by eve"):
        converted(source, tmp_path / "eve", "masks.author=eve")


def test_objects_alone_teach_their_classes_and_nothing_else(slides, tmp_path, capsys):
    source = annotate(tmp_path / "annotations", {"a": slides["a"]}, {"ann": DRAWN[1:]})
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
    converted(annotations, tmp_path / "data", "masks.most_px=256", "masks.context_um=60")
    rows = [row for row in read_csv(tmp_path / "data" / "manifest.csv") if row["slide"] == "a"]
    assert len(rows) > 3
    seen = np.full((512, 768), NOT_LABELLED, np.uint8)
    for row in rows:
        mask = read_image(tmp_path / "data" / row["mask"])
        assert max(mask.shape) <= 256
        x, y = int(row["x_px0"]), int(row["y_px0"])
        part = seen[y : y + mask.shape[0], x : x + mask.shape[1]]
        part[mask != NOT_LABELLED] = mask[mask != NOT_LABELLED]
    assert np.array_equal(seen[0:460, 40:610], expected_mask())


def test_a_rerun_writes_nothing_and_changed_drawings_are_refused(annotations, tmp_path, capsys):
    converted(annotations, tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.*")}
    converted(annotations, tmp_path / "data")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.*")} == before
    assert "already" in capsys.readouterr().out
    write_geojson(annotations / "a" / "ann.geojson", DRAWN[:3])
    with pytest.raises(OutputConflictError):
        converted(annotations, tmp_path / "data")


def test_slides_that_moved_or_changed(slides, tmp_path):
    here, there = tmp_path / "here.tif", tmp_path / "elsewhere" / "here.tif"
    shutil.copy(slides["a"], here)
    annotations = annotate(tmp_path / "annotations", {"a": here}, {"ann": DRAWN})
    there.parent.mkdir()
    shutil.move(here, there)
    with pytest.raises(LamellaError, match="is not there any more"):
        converted(annotations, tmp_path / "data")
    converted(annotations, tmp_path / "data", f"masks.slides={there.parent}")
    write_pyramid(there, textured(400, 768), mpp=1.0, levels=1)
    with pytest.raises(LamellaError, match="768 x 400 pixels, and the slide that was drawn on had 768 x 512"):
        converted(annotations, tmp_path / "more", f"masks.slides={there.parent}")


@pytest.mark.parametrize(
    ("drawn", "cause"),
    [
        ([], "no area of any class"),
        (DRAWN[:1], "regions without an object"),
        (
            [rectangle(5000, 5000, 5100, 5100, "gland"), rectangle(5000, 5000, 5100, 5100, "Region")],
            "lies on its slide",
        ),
    ],
)
def test_nothing_to_learn_from_is_refused(slides, tmp_path, drawn, cause):
    source = annotate(tmp_path / "annotations", {"a": slides["a"]}, {"ann": drawn})
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
    overrides = (*quick, *settings)
    return adapt.run(Request("adapt", (source,), out, profile="segment_small", overrides=overrides, dry_run=dry_run))


@pytest.mark.slow
def test_adapt_takes_the_annotations_as_they_are(annotations, tmp_path, capsys):
    assert adapted(annotations, None, dry_run=True) == 0
    assert "2 images of 2 groups to train on" in capsys.readouterr().out
    assert adapted(annotations, tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert f"next: lamella evaluate {tmp_path / 'run' / 'model'} {tmp_path / 'run' / 'from_annotations'}" in said
    assert "dataset.class_map=" in said
    from lamella.models.segmenter_hub import load_segmenter

    assert load_segmenter(tmp_path / "run" / "model").contract.channels == ("background", "gland", "vessel")
    adapted(annotations, tmp_path / "run")
    assert "was trained already" in capsys.readouterr().out
    write_geojson(annotations / "a" / "ann.geojson", DRAWN[:3])
    with pytest.raises(OutputConflictError):
        adapted(annotations, tmp_path / "run")


@pytest.mark.parametrize("dry_run", [True, False])
def test_adapt_is_given_a_data_set_which_a_dry_run_leaves_nowhere(annotations, tmp_path, monkeypatch, dry_run):
    found = []

    def train(request, resolved):
        collection = open_collection(request.paths[0], resolved.config.data.dataset)
        found.extend((item.mask, collection.read_mask(item).shape) for item in collection.items)
        return 0

    monkeypatch.setitem(adapt._RUNS, "automatic", train)
    assert adapted(annotations, tmp_path / "run", dry_run=dry_run) == 0
    assert [shape for _, shape in found] == [(115, 142)] * 2  # 460 x 570 px of 1 um, at 4 um
    assert [path.exists() for path, _ in found] == [not dry_run] * 2
    assert (tmp_path / "run").exists() != dry_run


def test_adapt_refuses_annotations_beside_other_data(annotations, tmp_path):
    with pytest.raises(LamellaError, match=r"Make a data set of the annotations first"):
        adapted(annotations, tmp_path / "run", "data.dataset.class_map=bcss5")
    request = Request("adapt", (annotations, tmp_path), tmp_path / "run", profile="segment_small")
    with pytest.raises(LamellaError, match="beside other data"):
        adapt.run(request)


PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "annotate.md"


@pytest.mark.slow
def test_the_commands_of_the_how_to_work_on_generated_slides(slides, tmp_path, monkeypatch, capsys):
    """All of them in their order, with small budgets; the viewer only says what it would show."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(slides["a"].parent, tmp_path / "slides")
    assert cli.main(["index", "slides", "-o", "index"]) == 0
    commands = [shlex.split(line) for line in PAGE.read_text().splitlines() if line.startswith("    lamella ")]
    assert [command[1] for command in commands] == [
        *("view", "adapt", "predict", "view"),
        *("convert", "datasets", "adapt", "convert"),
    ]
    small = ["budget={images: 4}", "data.workers=0", "data.batch_size=2", "data.tile_px=64", "device=cpu"]
    more = {"view": ["--dry-run"], "adapt": [*small, "data.mpp=4"], "predict": ["device=cpu"]}
    for number, (_, verb, *words) in enumerate(commands):
        if number == 1:  # what people do between the first command and the second
            drawn_on = {name: tmp_path / "slides" / f"{name}.tif" for name in ("a", "b")}
            annotate(tmp_path / "annotations", drawn_on, {"ann": DRAWN})
        assert cli.main([verb, *words, *more.get(verb, [])]) == 0, capsys.readouterr()
    assert (tmp_path / "predicted" / "a" / "labels.zarr").is_dir()
    assert len(read_csv(tmp_path / "both" / "manifest.csv")) == 2
