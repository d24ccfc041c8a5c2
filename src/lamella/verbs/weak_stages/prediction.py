"""Stage 5 of `lamella weak`: masks of whole slides, in the source's files, by the dense engine.

Slides are new ones, or the study's test slides. Each has a folder of its own and is resumed on its own; one that fails
is listed in failed.csv and the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.data.bag_coordinates import Place, TileSize, read_coordinates
from lamella.data.bag_slides import Listed, OpenedSlide, SlideNames, listed_slides, opened
from lamella.engine.world import choose_device
from lamella.errors import DatasetError, SlideError
from lamella.imaging.datasets.problems import named, refuse
from lamella.models.dense_contract import DenseModel
from lamella.slides.index import IndexedSlide
from lamella.verbs.prediction import load_dense
from lamella.verbs.slide_jobs import (
    Selection,
    SlideRunner,
    failure,
    record_failures,
    refuse_unseen,
    say_failed,
    say_shard,
)
from lamella.verbs.weak_stages.prediction_files import BATCH, METADATA, PICTURE, read_all, write_batch
from lamella.verbs.weak_stages.prediction_job import GivenTiles, SegmentSlide, ToSegment
from lamella.verbs.weak_stages.prediction_settings import NOT_DECIDING, PredictionSettings
from lamella.verbs.weak_stages.prediction_uncertain import UNCERTAIN, write_uncertain
from lamella.verbs.weak_stages.stage import PREDICTIONS, TRAINING, Stage


@dataclass(frozen=True)
class Given:
    """Slides, and what was said of them.

    Attributes:
        slides: As listed.
        mpp0: Stated where the files do not say.
        coordinates: Of their tiles.
        place: What bare coordinates are.
        everywhere: All of them counts as tissue.
    """

    slides: tuple[Listed, ...]
    mpp0: float | None
    coordinates: Path | None
    place: Place | None
    everywhere: bool


def run_prediction(stage: Stage) -> int:
    """Segment every slide; 1 if some failed and are listed in failed.csv.

    Raises:
        LamellaError: There is no model or no such slide, the coordinates are of other slides, or the folder holds
            other predictions.
    """
    settings = stage.config.predict
    given = given_slides(stage)
    if not given.slides:
        print("no new slides are given and the study has no test slides: nothing to predict")
        return 0
    spec = settings.model or str(stage.folder(TRAINING))
    model = checked_model(spec, load_dense(spec), stage)
    items = to_segment(given, stage)
    selection = Selection.of(stage.request)
    todo = set(selection.take([item.slide_id for item in items], stage.folder(PREDICTIONS)))
    mine = [item for item in items if item.slide_id in todo]
    device, reason = choose_device(settings.device)
    if part := selection.describe(len(mine), len(items)):
        print(part)
    print(f"predict {len(mine)} slides with {model.name} on {device.type} ({reason})")
    claimed = stage.claim(
        PREDICTIONS,
        ("class_order", "background", "predict"),
        {"model_fingerprint": model.fingerprint, "labels_are": stage.study.labels_are},
        ignore=tuple(f"predict.{name}" for name in NOT_DECIDING),
        shared=selection.shard is not None,
    )
    work = SegmentSlide(
        spec=str(Path(spec).absolute()) if Path(spec).exists() else spec,  # workers stand elsewhere
        fingerprint=model.fingerprint,
        folder=claimed.folder.absolute(),
        classes=stage.study.classes,
        labels_are=stage.study.labels_are,
        settings=settings,
        everywhere=given.everywhere,
        model=model,
    )
    return _segment_all(work, mine, claimed.folder, selection, gpus=device.type == "cuda")


def given_slides(stage: Stage) -> Given:
    """The slides behind the configuration, or of the settings, or else the test slides of the study.

    Raises:
        LamellaError: A path is missing, or two slides have one name.
    """
    settings, data = stage.config.predict, stage.config.data
    everywhere = data.everywhere if settings.everywhere is None else settings.everywhere
    if paths := stage.more or settings.slides:
        new = tuple(listed_slides(paths))
        return Given(new, settings.mpp0, settings.coordinates, settings.place, everywhere)
    test = {bag.slide_id for bag in stage.study.of("test")}
    own = tuple(slide for slide in listed_slides(data.slides) if slide.slide_id in test) if test else ()
    return Given(own, data.mpp0, data.coordinates, data.place, everywhere)


def checked_model(spec: str, model: DenseModel, stage: Stage) -> DenseModel:
    """The model, if it speaks of the study's classes.

    Raises:
        DatasetError: It has other channels.
    """
    if model.contract.channels != stage.study.channels:
        raise DatasetError(
            f"model {spec}",
            f"its channels are {', '.join(model.contract.channels)}, the study's {', '.join(stage.study.channels)}",
            "Give the model that was trained with these classes, or write class_order and background as it has them.",
        )
    return model


def to_segment(given: Given, stage: Stage) -> list[ToSegment]:
    """The slides with their tiles, where coordinates are given.

    Raises:
        DatasetProblems: A file of coordinates cannot be used, or a slide has none.
    """
    slides = [(slide, _stated(slide, given.mpp0)) for slide in given.slides]
    if given.coordinates is None:
        return [ToSegment(slide, mpp) for slide, mpp in slides]
    size = TileSize(stage.study.mpp, stage.study.tile_px, given.place)
    ready = {slide.slide_id: slide for slide in (_opened(one, given) for one in given.slides) if slide}
    found = read_coordinates(
        given.coordinates, list(ready.values()), SlideNames(given.slides), stage.study.classes, size
    )
    problems = list(found.problems)
    missing = [slide_id for slide_id in ready if slide_id not in found.tiles]
    if missing and not problems:
        strange = f"; {named(found.strange, 3)} are of none of the slides" if found.strange else ""
        problems.append(f"{given.coordinates}: there are no coordinates of {named(missing)}{strange}")
    refuse("coordinates", problems, "Correct the files; no slide is predicted with those of another.")
    items = []
    for slide, mpp in slides:
        tiles = found.tiles.get(slide.slide_id)
        own = None if tiles is None else GivenTiles(given.coordinates, tiles.corners_px0, stage.study.fov_um)
        items.append(ToSegment(slide, mpp, own))
    return items


def _opened(slide: Listed, given: Given) -> OpenedSlide | None:
    """The slide's size; None of one that cannot be read: it fails in its turn, with its reason."""
    try:
        return opened(slide, given.mpp0, everywhere=given.everywhere)
    except SlideError:
        return None


def _stated(slide: Listed, mpp0: float | None) -> tuple[float, float] | None:
    if isinstance(slide, IndexedSlide):
        return slide.mpp_stated
    return slide.mpp or (None if mpp0 is None else (mpp0, mpp0))


def _segment_all(
    work: SegmentSlide, items: Sequence[ToSegment], folder: Path, selection: Selection, *, gpus: bool
) -> int:
    settings = work.settings
    runner = SlideRunner(settings.jobs, "weak predict", gpus=gpus)
    done: dict[int, dict[str, Any]] = {}
    errors: dict[int, str] = {}
    for number, facts, error in runner(work, items):
        if error:
            errors[number] = error
            print(f"{items[number].slide_id} failed: {error}")
        else:
            done[number] = facts
    refuse_unseen([folder / items[number].slide_id / METADATA for number in done], settings.jobs)
    failed = [failure(items[number], errors[number]) for number in sorted(errors)]
    record_failures(folder, failed, selection.mark)
    log = runner.write_traces(folder, selection.mark)
    for number in sorted(done):
        _say(items[number].slide_id, done[number])
    if selection.shard:
        say_shard(selection)
    else:
        _write_lists(folder, settings)
    print(f"wrote {len(done)} slides to {folder}/<slide_id>/; slides: {len(done)} ok, {len(failed)} failed")
    if done:
        print(f"look at {folder / items[min(done)].slide_id / PICTURE}: the slide beside its mask")
    if failed:
        say_failed(folder, selection.mark, log)
    return 1 if failed else 0


def _write_lists(folder: Path, settings: PredictionSettings) -> None:
    """What is told of all finished slides of the folder together, those of earlier runs included."""
    slides = write_batch(folder)
    listed = write_uncertain(folder, read_all(folder), settings.uncertain)
    print(f"wrote {folder / BATCH}: {slides} slides")
    if listed:
        print(f"wrote {folder / UNCERTAIN}: the {listed} tiles whose labels would help most")


def _say(slide_id: str, facts: dict[str, Any]) -> None:
    if not facts["num_patches"]:
        print(f"{slide_id}: no tissue was found, nothing was looked at; its mask says so (255 everywhere)")
        return
    areas = ", ".join(f"{name} {area:.3g} mm2" for name, area in facts["areas_mm2"].items())
    print(f"{slide_id}: {areas}")
