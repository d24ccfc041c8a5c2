"""What `explain` draws of finished work: the curves of a run, the scatters and the label curves of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lamella.errors import LamellaError, MissingExtraError
from lamella.verbs.evaluation.report import EMBEDDING, RESULTS
from lamella.view.curves import draw_training
from lamella.view.efficiency import EFFICIENCY_FILE, NSHOT_FILE, draw_efficiency, read_curves
from lamella.view.page import Picture, Section
from lamella.view.scatter import ScatterSettings, draw_places, lay_out

STEPS = "steps.csv"


def is_run(folder: Path) -> bool:
    """Whether it is a folder of `lamella pretrain` that has begun to train."""
    return (folder / STEPS).is_file()


def is_results(folder: Path) -> bool:
    """Whether it is a folder of `lamella evaluate`."""
    return (folder / RESULTS).is_file()


def run_section(run: Path, folder: Path) -> Section:
    """The curves of a run."""
    path = folder / "training.png"
    draw_training(run, path)
    text = (
        "The loss says how well the task is solved, not what was learned. A rank near one, a spread near zero or a "
        "SIGReg far above its expectation say that the encoder has collapsed; healthy ones say only that it has not."
    )
    return Section(f"Training of {run.resolve().name}", (text,), [Picture(path, str(run / STEPS))])


def result_sections(results: Path, folder: Path, scatter: ScatterSettings) -> list[Section]:
    """Scatter of the judged items' features, and what labels are worth; what cannot be drawn is said.

    Raises:
        MissingExtraError: UMAP is asked for and not installed.
    """
    report = json.loads((results / RESULTS).read_text(encoding="utf-8"))
    title, stored = str(report["title"]), _embedding(results)
    judged = f"{len(stored['labels']):,} items" if stored else ""
    return [_scatter_section(stored, folder, scatter, title), _labels_section(results, folder, title, judged)]


def _embedding(results: Path) -> dict[str, np.ndarray]:
    """The features of the judged items; empty where the evaluation wrote none."""
    if not (results / EMBEDDING).is_file():
        return {}
    with np.load(results / EMBEDDING, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _scatter_section(stored: dict[str, np.ndarray], folder: Path, settings: ScatterSettings, title: str) -> Section:
    if not stored:
        return Section(title, (f"The features are not drawn: the evaluation wrote no {EMBEDDING}.",))
    pictures, notes = [], []
    names = {"features": str(stored["encoder"]), "random_init": "the same network with random weights"}
    for key, name in names.items():
        if key not in stored:
            continue
        picture = folder / f"scatter_{key}.png"
        try:
            places = lay_out(stored[key], settings)
        except MissingExtraError:
            raise
        except LamellaError as error:
            notes.append(f"{name}: not drawn, {error.cause}.")
            continue
        labels = [str(label) or None for label in stored["labels"]]
        draw_places(places, labels, picture, title=f"Features of {name}")
        pictures.append(Picture(picture, f"Judged items by the features of {name}"))
    text = (
        "Each dot is a judged item, coloured by its label; the layout does not know the labels. Look at the untrained "
        "network before believing in what the trained one shows."
    )
    return Section(title, (text, *notes), pictures, columns=2)


def _labels_section(results: Path, folder: Path, title: str, judged: str) -> Section:
    pictures, missing = [], []
    tables = ((EFFICIENCY_FILE, "share", "efficiency"), (NSHOT_FILE, "shots", "nshot"))
    for file, column, task in tables:
        if not (results / file).is_file():
            missing.append(f"{file} is not there: it comes with tasks=[{task}].")
            continue
        for measure, curves in read_curves(results / file, column).items():
            picture = folder / f"{task}_{measure}.png"
            draw_efficiency(curves, picture, title=title, measure=measure, share=column == "share", judged=judged)
            pictures.append(Picture(picture, f"{results / file}"))
    text = (
        "A probe with few of the training labels, over several draws of them. Where two ribbons overlap, results.md "
        "says whether the difference is more than chance."
    )
    return Section("What labels are worth", (text, *missing), pictures, columns=2)
