"""`lamella predict MODEL SLIDES... -o out`: any dense model on whole slides, one folder per slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lamella.config import Request, Resolved
from lamella.dense.engine import DenseSettings, model_mpp, plan_slide
from lamella.dense.exports import OBJECTS, ExportSettings
from lamella.dense.progress import PREDICTION_FILE
from lamella.dense.runtime import tile_side
from lamella.engine.jobs import JobSettings
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, PrecisionName, choose_device
from lamella.errors import LamellaError, ManifestError
from lamella.models.dense_contract import DenseModel
from lamella.slides.index import INDEX_FILE, SlideIndex
from lamella.slides.manifest import find_slides
from lamella.slides.slide import open_slide
from lamella.verbs.prediction import OVERLAY_FILE, PredictSlide, ToPredict, load_dense
from lamella.verbs.slide_jobs import (
    Selection,
    SlideRunner,
    failure,
    record_failures,
    refuse_unseen,
    say_failed,
    say_shard,
)
from lamella.view.class_colours import class_colours

# They change speed, memory, pictures and files made of the rasters, not the rasters.
_IGNORED = ("batch_size", "threads", "device", "exports", "overlay", "jobs")


class Config(DenseSettings):
    """Settings of `lamella predict`."""

    exports: ExportSettings = ExportSettings()
    """Which files are made of the label map and the probabilities, beside the zarr arrays themselves."""
    overlay: bool = True
    """Also draw each slide beside its prediction: overlay.png."""
    dct_scaling: bool = False
    """Decode JPEG at 1/2 or 1/4 where the model sees that much less than the slide: faster, not the exact average."""
    precision: PrecisionName = "fp32"
    """Arithmetic of the model. bf16 is faster on a GPU and rounds; auto takes it where it is native."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Tiles shown to the model at once."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Tiles read at once."""
    device: DeviceName = "auto"
    """Where the model runs."""
    jobs: JobSettings = JobSettings()
    """Where the slides are done."""

    def dense(self) -> DenseSettings:
        """What decides the pixels."""
        return DenseSettings(**{name: getattr(self, name) for name in DenseSettings.model_fields})


@dataclass(frozen=True)
class _Work:
    """What is predicted with what."""

    spec: str
    model: DenseModel
    slides: tuple[ToPredict, ...]
    config: Config

    def job(self, folder: Path) -> PredictSlide:
        config = self.config
        return PredictSlide(
            spec=str(Path(self.spec).absolute()) if Path(self.spec).exists() else self.spec,  # workers stand elsewhere
            fingerprint=self.model.fingerprint,
            folder=folder.absolute(),
            settings=config.dense(),
            exports=config.exports,
            colours=class_colours(self.model.contract.channels, self.model.contract.background),
            overlay=config.overlay,
            dct_scaling=config.dct_scaling,
            batch_size=config.batch_size,
            threads=config.threads,
            device=config.device,
            precision=config.precision,
            model=self.model,
        )


def run(request: Request) -> int:
    """Predict every slide; what fails is listed in failed.csv and the others go on."""
    resolved = request.resolve(Config)
    config = resolved.config
    spec, slides = _model_and_slides(request)
    selection = Selection.of(request)
    todo = selection.take([slide.slide_id for slide in slides], request.out)
    work = _Work(spec, load_dense(spec), tuple(slide for slide in slides if slide.slide_id in set(todo)), config)
    mpp, side = model_mpp(work.model, config), tile_side(work.model, config.tile_px)
    device, reason = choose_device(config.device)
    if part := selection.describe(len(todo), len(slides)):
        print(part)
    print(f"predict with {work.model.name} on {device.type} ({reason}): {side} px at {mpp:g} um per pixel")
    if request.dry_run:
        return _dry_run(work, resolved)
    out = request.folder()
    claimed = claim(
        out,
        resolved.tree(),
        resolved.origins,
        verb="predict",
        ignore=_IGNORED,
        inputs={"model_fingerprint": work.model.fingerprint},
        shared=selection.shard is not None,
    )
    runner = SlideRunner(config.jobs, "predict", gpus=device.type == "cuda")
    done, failed = _predict_all(work, claimed.folder, runner)
    refuse_unseen([claimed.folder / slide_id / PREDICTION_FILE for slide_id in done], config.jobs)
    record_failures(out, failed, selection.mark)
    _say(out, done, failed, runner, selection)
    return 1 if failed else 0


def _model_and_slides(request: Request) -> tuple[str, list[ToPredict]]:
    """The first path is the model, every other a slide file, a folder, a manifest or the folder of an index.

    Raises:
        LamellaError: There is no slide.
        ManifestError: Two slides have one name, or a manifest gives masks.
    """
    if len(request.paths) < 2:
        raise LamellaError(
            "lamella predict",
            f"it takes a model and slides, {len(request.paths)} path(s) given",
            "For example: lamella predict runs/glands/model slides/ -o predicted.",
        )
    mpp = request.options.get("mpp")
    slides: list[ToPredict] = []
    for path in request.paths[1:]:
        if (path / INDEX_FILE).is_file():
            if mpp is not None:
                raise LamellaError(path, "an index knows the mpp of its slides", "Leave --mpp out, or index again.")
            slides += [ToPredict(one.slide_id, one.wsi_path, one.mpp_stated, one) for one in SlideIndex.load(path)]
            continue
        for row in find_slides([path], mpp):
            if row.mask_path is not None:
                raise ManifestError(
                    path, "it gives masks, which only an index lays over slides", "Predict on its index: lamella index."
                )
            slides.append(ToPredict(row.slide_id, row.wsi_path, row.mpp))
    names = [slide.slide_id for slide in slides]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ManifestError(
            f"slide {twice[0]}", "two of the slides have this name", "Name them in a manifest: slide_id,wsi_path."
        )
    return str(request.paths[0]), slides


def _predict_all(
    work: _Work, folder: Path, runner: SlideRunner
) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    """prediction.json of each finished slide, and the rows of failed.csv, both in the order of the slides."""
    done: dict[int, dict[str, Any]] = {}
    errors: dict[int, str] = {}
    for number, facts, error in runner(work.job(folder), work.slides):
        if error:
            errors[number] = error
            print(f"{work.slides[number].slide_id} failed: {error}")
        else:
            done[number] = facts
    predicted = {work.slides[number].slide_id: done[number] for number in sorted(done)}
    return predicted, [failure(work.slides[number], errors[number]) for number in sorted(errors)]


def _dry_run(work: _Work, resolved: Resolved[Config]) -> int:
    print(resolved.text())
    for item in work.slides:
        with open_slide(item.wsi_path, mpp=item.mpp) as slide:
            plan = plan_slide(work.model, slide, work.config.dense(), item.tissue())
        frame = plan.frame
        print(
            f"{item.slide_id}: {len(plan.tiling)} of {plan.tiling.kept.size} tiles, "
            f"{frame.width_px} x {frame.height_px} px at {frame.mpp:g} um"
        )
    print(f"would predict {len(work.slides)} slides: {', '.join(work.model.contract.channels)}")
    return 0


def _say(
    out: Path,
    done: dict[str, dict[str, Any]],
    failed: Sequence[dict[str, str]],
    runner: SlideRunner,
    selection: Selection,
) -> None:
    for slide_id, facts in done.items():
        areas = ", ".join(f"{name} {area:.3g} mm2" for name, area in facts.get("areas_mm2", {}).items())
        print(f"{slide_id}: {areas or ', '.join(facts.get('channels', ()))}")
    print(f"wrote {len(done)} slides to {out}/<slide_id>/; slides: {len(done)} ok, {len(failed)} failed")
    log = runner.write_traces(out, selection.mark)
    if done and not selection.shard:
        _say_next(out / next(iter(done)))
    if failed:
        say_failed(out, selection.mark, log)
    if selection.shard:
        say_shard(selection)


def _say_next(folder: Path) -> None:
    """What to do with the files of a slide, of those that were asked for."""
    if (folder / OVERLAY_FILE).is_file():
        print(f"look at {folder / OVERLAY_FILE}: the slide beside its prediction")
    if (folder / OBJECTS).is_file():
        print(f"next: drag {folder / OBJECTS} onto the slide in QuPath")
