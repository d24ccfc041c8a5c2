"""A folder with something of everything that the viewer shows, generated: for tests of all its pages at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from tests.conftest import write_pyramid

from lamella import cli
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.ome_zarr import LabelStore, ProbabilityStore, ValueStore

WIDTH, HEIGHT, MPP = 1536, 1024, 0.5
RASTER_PX = (192, 128)  # of predictions: 4 um a pixel
CLASSES = ["background", "gland", "stroma"]
RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def stained() -> np.ndarray:
    """(H, W, 3) uint8: pink tissue with purple discs on white glass."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.full((HEIGHT, WIDTH, 3), 243, np.uint8)
    tissue = (x / WIDTH - 0.5) ** 2 + (y / HEIGHT - 0.5) ** 2 < 0.17
    pixels[tissue] = (222, 150, 190)
    pixels[tissue & (np.hypot(x % 128 - 64, y % 128 - 64) < 30)] = (110, 60, 150)
    return pixels


def make_study(folder: Path) -> Path:
    """Slides (one broken), their index and anchors, predictions of two models, expression, runs, scans."""
    slides = folder / "slides"
    slides.mkdir(parents=True)
    write_pyramid(slides / "first.tif", stained(), mpp=MPP)
    write_pyramid(slides / "second.tif", stained()[:, ::-1].copy(), mpp=MPP)
    data = (slides / "first.tif").read_bytes()
    (slides / "broken.tif").write_bytes(data[: len(data) // 2])
    cli.main(["index", str(slides), "-o", str(folder / "index")])  # 1: one of three slides is broken
    views = ["sampling.context_fov_um=256", "sampling.target_fov_um=64", "sampling.targets_per_context=2"]
    assert cli.main(["anchors", str(folder / "index"), "-o", str(folder / "anchors"), *views]) == 0
    for number, model in enumerate(("model_a", "model_b")):
        predict(folder / model / "first", shift=8 * number)
    express(folder / "expression" / "first")
    learn(folder / "runs" / "one", 0.9)
    learn(folder / "runs" / "two", 0.8)
    shutil.copytree(RESULTS / "glas_segformer", folder / "results")
    _run_facts(folder / "results", "evaluate")
    scan(folder / "scans")
    return folder


def predict(folder: Path, shift: int = 0) -> None:
    """A prediction of `first`: discs are glands, their outlines are objects."""
    folder.mkdir(parents=True)
    width, height = RASTER_PX
    mpp = MPP * WIDTH / width
    y, x = np.mgrid[:height, :width]
    labels = np.where(np.hypot((x + shift) % 16 - 8, y % 16 - 8) < 4, 1, 2).astype(np.uint8)
    labels[:, : width // 8] = 0
    classes = LabelStore(folder / "labels.zarr", CLASSES, height, width, mpp)
    classes.write(0, labels)
    classes.finish()
    shares = ProbabilityStore(folder / "probabilities.zarr", CLASSES, height, width, mpp)
    shares.write(0, np.stack([np.where(labels == value, 200, 27) for value in range(3)]).astype(np.uint8))
    shares.finish()
    square_px0 = np.array([(0, 0), (60, 0), (60, 60), (0, 60)], float)
    discs = [
        GeoObject(
            ((square_px0 + np.array([column, row]),),),
            classification="gland",
            colour=(230, 159, 0),
            object_type="detection",
        )
        for column in range(34, WIDTH - 64, 128)
        for row in range(34, HEIGHT - 64, 128)
    ]
    write_geojson(folder / "objects.geojson.gz", discs)
    facts = {
        "slide": "first.tif",
        "slide_px0": [WIDTH, HEIGHT],
        "slide_mpp": [MPP, MPP],
        "model": folder.parent.name,
        "kind": "classes",
        "classes": CLASSES,
        "background": "background",
        "mpp": mpp,
        "colours": {"background": [190, 190, 190], "gland": [230, 159, 0], "stroma": [0, 158, 115]},
    }
    (folder / "prediction.json").write_text(json.dumps(facts))
    _run_facts(folder.parent, "predict")


def express(folder: Path) -> None:
    """Predicted expression of `first`: 300 genes, each with a bright square of its own."""
    folder.mkdir(parents=True)
    width, height = RASTER_PX
    names = [f"GENE{number}" for number in range(299)] + ["EPCAM"]
    values = np.zeros((len(names), height, width), np.float16)
    for number in range(len(names)):
        values[number, (number // 12) % 8 * 16 :, number % 12 * 16 : number % 12 * 16 + 16] = 1 + number / 300
    store = ValueStore(folder / "genes.zarr", names, height, width, MPP * WIDTH / width)
    store.write(0, values)
    store.finish()
    facts = {"slide": "first.tif", "slide_px0": [WIDTH, HEIGHT], "slide_mpp": [MPP, MPP], "model": "ridge", "mpp": 4.0}
    (folder / "prediction.json").write_text(json.dumps(facts))
    _run_facts(folder.parent, "expression")


def learn(folder: Path, decay: float) -> None:
    """A training run with its log and monitors."""
    _run_facts(folder, "pretrain")
    (folder / "config.yaml").write_text(f"seed: 0\noptimizer:\n  lr: {1 - decay:.2f}\n")
    (folder / "origins.json").write_text(json.dumps({"seed": "default", "optimizer.lr": "command line"}))
    with (folder / "log.jsonl").open("w") as log:
        for step in range(1, 40):
            log.write(json.dumps({"step": step, "loss": decay**step, "lr": 0.001, "step_s": 0.1}) + "\n")
    Image.fromarray(stained()[::8, ::8]).save(folder / "reconstruction.png")


def scan(folder: Path) -> None:
    """A volume with its mask, and a film."""
    folder.mkdir()
    values = np.random.default_rng(0).uniform(0, 50, (40, 50, 20)).astype(np.float32)
    mask = np.zeros(values.shape, np.int16)
    mask[10:20, 20:30, 5:9] = 1
    affine = np.diag([1.0, 2.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values + 100 * mask, affine), folder / "case_t1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "case_mask.nii.gz")
    shades = [Image.new("RGB", (60, 40), (40 * number, 60, 200)) for number in range(6)]
    shades[0].save(folder / "beat.gif", save_all=True, append_images=shades[1:], duration=40)


def _run_facts(folder: Path, verb: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"verb": verb, "lamella": "0.1.0", "settings_hash": "0", "inputs": {}}
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "origins.json").write_text(json.dumps({"seed": "default"}))
