"""Pretraining on slides: cross-resolution JEPA over an anchor catalogue."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lamella.config import Request
from lamella.data.cross import CrossDataSettings, CrossSamples
from lamella.data.strata import training_slides
from lamella.errors import LamellaError
from lamella.methods.cross_jepa import CrossJepa, CrossJepaSettings
from lamella.models.hub import save_pretrained
from lamella.slides.anchors.catalogue import CATALOGUE_FILE, Catalogue
from lamella.verbs.pretraining.course import Course, RunSettings
from lamella.verbs.pretraining.monitors import held_views


class CrossConfig(RunSettings):
    """Settings of `lamella pretrain ANCHORS`."""

    method: CrossJepaSettings = CrossJepaSettings()
    data: CrossDataSettings = CrossDataSettings()


def is_catalogue(paths: tuple[Path, ...]) -> bool:
    """Whether the verb was given an anchors folder."""
    return len(paths) == 1 and (paths[0] / CATALOGUE_FILE).is_file()


def slides_course(request: Request, config: CrossConfig) -> Course:
    """The run over an anchor catalogue.

    Raises:
        LamellaError: Not one anchors folder was given, or it cannot be learned from.
    """
    if len(request.paths) != 1:
        raise LamellaError(
            "lamella pretrain",
            f"it takes one anchors folder, {len(request.paths)} paths were given",
            "Example: `lamella pretrain anchors -p small -o runs/first`; other data needs method.name=...",
        )
    catalogue = Catalogue.load(request.paths[0])
    samples = CrossSamples(catalogue, config.data, config.seed)
    method = CrossJepa(config.method, catalogue.sampling)
    slides = training_slides(catalogue.index, config.data.exclude_split)
    sampling, settings = catalogue.sampling, config.method
    split = config.data.exclude_split
    left_out = f" (split `{split}` and its patients left out)" if split is not None else ""

    def save(folder: Path, card: str) -> None:
        save_pretrained(method.encoder(), folder, card, pretraining_slides=slides)

    return Course(
        config=config,
        samples=samples,
        method=method,
        batch_size=config.data.batch_size,
        workers=config.data.workers,
        inputs={"anchors": catalogue.hash},
        sources=(
            ("slides", f"{len(slides)} of {len(catalogue.index)}{left_out}"),
            ("anchors", f"{len(samples):,} of {len(catalogue):,}"),
        ),
        card={
            "data": (
                f"{len(samples):,} anchors on {len(slides)} slides{left_out}; no labels. Contexts of "
                f"{sampling.context_fov_um:g} um at {sampling.context_output_mpp:g} um per pixel, "
                f"{sampling.targets_per_context} targets of {sampling.target_fov_um:g} um at "
                f"{sampling.target_output_mpp:g} (profile {sampling.profile_id}, catalogue {catalogue.hash})."
            ),
            "method": (
                f"{settings.name}, target {settings.target}, teacher {settings.teacher}, "
                f"regulariser {settings.regulariser.name}"
            ),
            "limits": "Not tested on stains, scanners, organs or species other than those of the data above.",
        },
        held=partial(held_views, samples),
        save=save,
        next_command=f"lamella embed {{model}} {catalogue.index.folder} -o features",
    )
