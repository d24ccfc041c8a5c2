"""Stage `features`: what an encoder makes of each slide at each scale, once; and the way in for the other stages.

A raster's folder is named by all that its numbers depend on, so studies and cells of an ablation share what they have
in common, and nothing is ever taken for another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.data.expression_views import SlideViews, tokens_of_view
from lamella.data.tiles import Readable
from lamella.dense.feature_rasters import RasterWork, backbone_fingerprint, write_feature_raster
from lamella.dense.feature_windows import ViewLevel, level_for, own_mpp
from lamella.engine.world import choose_device
from lamella.errors import LamellaError, SlideError
from lamella.formats.digests import ends_digest, value_digest
from lamella.formats.feature_raster import FACTS_FILE, FeatureRaster
from lamella.formats.tables import write_csv
from lamella.models.expression.contract import ViewShape
from lamella.models.pyramids.backbone import Backbone
from lamella.slides.slide import Slide, open_slide
from lamella.slides.tissue import find_tissue
from lamella.slides.tissue_map import TissueMap
from lamella.verbs.expression_stages.feature_encoder import backbone_at, encoder_name, feature_backbone
from lamella.verbs.expression_stages.feature_settings import FeatureSettings
from lamella.verbs.expression_stages.stage import FEATURES, Stage
from lamella.verbs.progress import Progress, progress

# A change of how rasters are made gets a new number: older ones are made again.
_VERSION = 1
TABLE_FILE, FAILED_FILE = "features.csv", "failed.csv"
# Shown at a spacing so many times coarser or finer than its own, an encoder sees other things than it knows.
_UNUSUAL = 2.0
_ROW = (
    "slide_id", "encoder", "fingerprint", "token_um", "mpp", "level", "rows", "columns", "width", "seen_share",
    "megabytes", "folder",
)  # fmt: skip


def run_features(stage: Stage) -> int:
    """Make the rasters of all slides, or find that they are there.

    Raises:
        LamellaError: The encoder is not to be had or cannot make such tokens, or the disk has no room.
    """
    settings = stage.config.features
    backbone, levels = feature_backbone(settings), view_levels(stage, settings)
    device, reason = choose_device(settings.device)
    print(f"{encoder_name(settings)} ({backbone.licence}) on {device.type} ({reason})")
    _say_levels(backbone, levels, view_shapes(stage, settings))
    claimed = _claim(stage)
    rows, failed = [], []
    with progress(len(stage.study.slides) * len(levels), "features") as bar:
        for slide in stage.study.slides:
            try:
                rasters = _rasters(stage, slide, settings, _Shown(bar))
            except SlideError as error:
                failed.append({"slide_id": slide.slide_id, "error": str(error)})
                continue
            rows += [_row(slide.slide_id, raster) for raster in rasters]
    write_csv(stage.folder(FEATURES) / TABLE_FILE, rows, list(_ROW))
    failed_path = stage.folder(FEATURES) / FAILED_FILE
    failed_path.unlink(missing_ok=True)
    total_gb = sum(float(row["megabytes"]) for row in rows) / 1e3
    print(f"wrote {stage.folder(FEATURES) / TABLE_FILE}: {len(rows)} rasters, {total_gb:.2f} GB of tokens")
    if failed:
        write_csv(failed_path, failed, ["slide_id", "error"])
        print(f"{len(failed)} slides have no features, see {failed_path}")
    del claimed  # its lock lasts until here
    return 1 if failed else 0


def slide_views(stage: Stage, slide: Readable, settings: FeatureSettings | None = None) -> SlideViews:
    """The views of a slide, of the study or a new one; what is not on disk yet is made now.

    Args:
        stage: Whose study says how large bins and samples are, and which level of the encoder all slides get.
        slide: With `slide_id`, `wsi_path`, `frame` and `mpp_stated`.
        settings: The study's own unless given (a cell of the ablation has others).

    Raises:
        SlideError: The slide cannot be read, or has no tissue.
        LamellaError: As for `run_features`.
    """
    settings = settings or stage.config.features
    rasters = _rasters(stage, slide, settings)
    return SlideViews(rasters, view_shapes(stage, settings), settings.standardise)


def view_shapes(stage: Stage, settings: FeatureSettings | None = None) -> tuple[ViewShape, ...]:
    """Widths and sizes of the views, without looking at a slide: what a network is built for.

    Raises:
        LamellaError: As for `view_levels`; or a further view has tokens smaller than the bins.
    """
    settings, study = settings or stage.config.features, stage.study
    finer = [view.token_um for view in settings.views[1:] if view.token_um < study.bin_um]
    if finer:
        raise LamellaError(
            "features.views",
            f"tokens of {finer[0]:g} um are smaller than the bins of {study.bin_um:g} um that are predicted",
            "Put them first (the first view is averaged over each bin), or leave them out.",
        )
    levels = view_levels(stage, settings)
    sample_um = study.tile_bins * study.bin_um
    first = ViewShape(levels[0].width, study.bin_um, study.tile_bins)
    return (
        first,
        *(
            ViewShape(level.width, view.token_um, tokens_of_view(view.token_um, view.fov_um, sample_um))
            for level, view in zip(levels[1:], settings.views[1:], strict=True)
        ),
    )


def view_levels(stage: Stage, settings: FeatureSettings | None = None) -> tuple[ViewLevel, ...]:
    """The encoder's level of each view: the same for all slides, by the coarsest of the study.

    Raises:
        LamellaError: The encoder cannot be loaded, or a view states a spacing at which no level makes its tokens.
    """
    settings = settings or stage.config.features
    backbone = feature_backbone(settings)
    coarsest, trained = max(slide.frame.mpp for slide in stage.study.slides), settings.random_seed is None
    return tuple(level_for(backbone, view.token_um, coarsest, view.mpp, trained=trained) for view in settings.views)


def with_spacings(stage: Stage, settings: FeatureSettings | None = None) -> FeatureSettings:
    """The settings with the spacing of every view stated: what a model keeps of them.

    Another study may have coarser slides, for which the rule would choose another level of the encoder.
    """
    settings = settings or stage.config.features
    levels = view_levels(stage, settings)
    views = tuple(
        view.model_copy(update={"mpp": level.mpp}) for view, level in zip(settings.views, levels, strict=True)
    )
    return settings.model_copy(update={"views": views})


def _rasters(
    stage: Stage, slide: Readable, settings: FeatureSettings, shown: Callable[[int, int], None] | None = None
) -> tuple[FeatureRaster, ...]:
    """The rasters of a slide's views; those that are missing are made."""
    jobs = _jobs(stage, slide, settings)
    missing = [job for job in jobs if not (job.folder / FACTS_FILE).is_file()]
    if missing:
        claimed = _claim(stage)
        with open_slide(slide.wsi_path, mpp=slide.mpp_stated) as opened:
            tissue = _tissue(opened, stage)
            for job in missing:
                _make(job, slide.slide_id, opened, tissue, settings, shown)
        del claimed
    if shown is not None:
        for _ in range(len(jobs) - len(missing)):
            shown(1, 1)
    return tuple(FeatureRaster.open(job.folder) for job in jobs)


@dataclass(frozen=True)
class _Job:
    """One raster: what makes it, and where it lies."""

    backbone: Backbone
    level: ViewLevel
    margin_um: float
    folder: Path
    made: dict[str, Any]


def _jobs(stage: Stage, slide: Readable, settings: FeatureSettings) -> list[_Job]:
    root = settings.cache or stage.folder(FEATURES)
    backbone, digest, sample_um = feature_backbone(settings), ends_digest(slide.wsi_path), _sample_um(stage)
    jobs = []
    for level, shape in zip(view_levels(stage, settings), view_shapes(stage, settings), strict=True):
        shown, margin_um = backbone_at(backbone, level.mpp), _margin_um(max(shape.fov_um, sample_um))
        made = {
            "version": _VERSION,
            "fingerprint": backbone_fingerprint(shown),
            "level": level.level,
            "token_um": level.token_um,
            "mpp": level.mpp,
            "shift_px": level.shift_px,
            "margin_um": margin_um,
            "slide": digest,
            "slide_mpp": [slide.frame.mpp_x, slide.frame.mpp_y],
            "tissue": stage.config.data.tissue.model_dump(mode="json"),
        }
        name = f"{encoder_name(settings)}_{level.token_um:g}um_{value_digest(made)}"
        jobs.append(_Job(shown, level, margin_um, root / slide.slide_id / name, made))
    return jobs


def _make(
    job: _Job,
    slide_id: str,
    slide: Slide,
    tissue: TissueMap,
    settings: FeatureSettings,
    shown: Callable[[int, int], None] | None,
) -> None:
    device, _ = choose_device(settings.device)
    work = RasterWork(
        job.backbone.to(device),
        encoder_name(settings),
        job.level,
        job.margin_um,
        batch_size=settings.batch_size,
        device=device,
        made=job.made,
    )
    noted = shown or (lambda done, of: None)
    write_feature_raster(job.folder, slide, tissue, work, name=slide_id, noted=noted)


def _tissue(slide: Slide, stage: Stage) -> TissueMap:
    mask = find_tissue(slide, stage.config.data.tissue)
    return TissueMap(mask, slide.frame.resized(mask.shape[1], mask.shape[0]))


def _sample_um(stage: Stage) -> float:
    return stage.study.tile_bins * stage.study.bin_um


def _margin_um(side_um: float) -> float:
    """How far a square of this side reaches from its middle, turned by any angle: half its diagonal.

    Rounded up to a power of two, so that rasters of nearly the same field of view are shared.
    """
    return float(2 ** math.ceil(math.log2(side_um / math.sqrt(2))))


def _claim(stage: Stage) -> object:
    """Together with whoever else makes rasters there. Each is named by what it depends on: no settings to compare."""
    return stage.claim(FEATURES, (), {}, shared=True)


class _Shown:
    """A bar that counts rasters; a raster's windows are only counted to know when it is done."""

    def __init__(self, bar: Progress[Any]) -> None:
        self._bar = bar

    def __call__(self, done: int, of: int) -> None:
        if done == of:
            self._bar.advance()


def _row(slide_id: str, raster: FeatureRaster) -> dict[str, Any]:
    facts, share = raster.facts, float(raster.seen.mean())
    return {
        "slide_id": slide_id,
        "encoder": facts.encoder,
        "fingerprint": facts.fingerprint,
        "token_um": f"{facts.token_um:g}",
        "mpp": f"{facts.mpp:g}",
        "level": facts.level,
        "rows": facts.rows,
        "columns": facts.columns,
        "width": facts.width,
        "seen_share": f"{share:.4f}",
        "megabytes": f"{share * raster.nbytes / 1e6:.1f}",
        "folder": raster.folder,
    }


def _say_levels(backbone: Backbone, levels: Sequence[ViewLevel], shapes: Sequence[ViewShape]) -> None:
    for number, (level, shape) in enumerate(zip(levels, shapes, strict=True)):
        at = "at every bin" if number == 0 else f"{shape.tokens} x {shape.tokens} tokens, {shape.fov_um:g} um"
        print(
            f"  view {number}: tokens of {level.token_um:g} um (stride {level.stride:g} at {level.mpp:g} um per pixel),"
            f" {level.width} numbers each, sampled {at}"
        )
        apart = level.mpp / own_mpp(backbone)
        if not 1 / _UNUSUAL <= apart <= _UNUSUAL:
            print(f"    note: its own spacing is {own_mpp(backbone):g} um per pixel")
