"""`lamella evaluate MODEL INDEX -o results`: did the encoder learn morphology, or the stain?

Four questions on tiles of held-out slides (see metrics/questions.py), each beside the same network with random weights,
colour statistics, the majority class and exchanged labels. A question that cannot be asked is answered by the reason.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from lamella import __version__
from lamella.config import Request, Settings
from lamella.data.labels import LabelSettings, numbered
from lamella.data.splits import group_folds, groups_of, refuse_shared_groups
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, choose_device
from lamella.errors import LamellaError
from lamella.metrics.probes import ProbeSettings
from lamella.metrics.questions import (
    DROP,
    INDEX,
    MEANINGS,
    SHORTCUT,
    TISSUE,
    ask_drop,
    ask_index,
    ask_shortcut,
    ask_tissue,
)
from lamella.metrics.report import Report, Unasked
from lamella.metrics.representation import per_dimension_std, rankme
from lamella.metrics.robustness import RobustnessSettings
from lamella.metrics.study import Answer, CannotAsk, Study
from lamella.models.encoders import COLOUR_STATS, ColourStatistics, Encoder, Twinned, random_twin
from lamella.models.hub import CONFIG_FILE, load_encoder
from lamella.slides.each_slide import failed_file
from lamella.slides.grid import GridSettings
from lamella.slides.index import IndexedSlide, SlideIndex
from lamella.verbs.embed import model_and_index
from lamella.verbs.evaluation.judged_tiles import JudgedSlide, TileChoice, choose_tiles, embed_judged
from lamella.verbs.progress import progress
from lamella.verbs.slide_jobs import record_failures
from lamella.verbs.tile_features import tile_size
from lamella.view.markdown_page import write_report_page

_IGNORED = ("batch_size", "threads", "device")
RESULTS = "results.json"
FEW_GROUPS = 10  # below, no bootstrap of groups is trustworthy to the second digit
RANDOM, COLOUR = "random init", "colour statistics"
QUESTIONS: dict[str, Callable[[Study], Answer]] = {
    TISSUE: ask_tissue,
    SHORTCUT: ask_shortcut,
    INDEX: ask_index,
    DROP: ask_drop,
}


class Config(Settings):
    """Settings of `lamella evaluate`."""

    labels: LabelSettings = LabelSettings()
    """Where the tissue classes of the tiles come from."""
    site_column: str = "site"
    """Manifest column with the site or scanner, for the shortcut questions."""
    group_column: str = "patient"
    """Manifest column of what is held out together; the slide is, where a slide has no value in it."""
    grid: GridSettings = GridSettings()
    """Where the tiles are, unless labels.table gives them."""
    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of the tiles; the model's own unless given."""
    tile_px: Annotated[int, Field(ge=1)] | None = None
    """Side of a tile in pixels; the model's own unless given."""
    max_tiles_per_slide: Annotated[int, Field(ge=1)] = 200
    """Tiles drawn from a slide, the classes evenly; more tiles of the same slide add little."""
    allow_seen: bool = True
    """Judge slides whose pixels the model saw in pretraining; the table then says so in every row. false refuses."""
    leave_out_seen: bool = False
    """Judge only slides that the model did not see in pretraining."""
    random_inits: Annotated[int, Field(ge=1)] = 3
    """Networks with random weights that the model is compared with; one alone may be lucky or unlucky."""
    probes: ProbeSettings = ProbeSettings()
    """How probes are fitted."""
    robustness: RobustnessSettings = RobustnessSettings()
    """How robustness to the site is measured."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of draws, folds, controls and intervals."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Tiles encoded at once."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Tiles read at once."""
    device: DeviceName = "auto"
    """Where the encoders run."""


def run(request: Request) -> int:
    """Judge an encoder on the slides of an index and write results.md and results.json."""
    resolved = request.resolve(Config)
    config = resolved.config
    model, index_folder = model_and_index(request)
    encoder = load_encoder(model)
    scope = _scope(SlideIndex.load(index_folder), pretraining_slides(model), config)
    mpp, tile_px = tile_size(encoder.contract, config.mpp, config.tile_px)
    choice = TileChoice(config.labels, config.grid, mpp, tile_px, config.max_tiles_per_slide, config.seed)
    judged, failed, source = choose_tiles(scope.slides, choice)
    if request.dry_run:
        print(resolved.text())
        print("\n".join([*scope.warnings, *_counts(judged, source)]))
        return 1 if failed else 0
    out = request.folder()
    inputs = {
        "encoder_fingerprint": encoder.fingerprint,
        "slides": {slide.slide_id: slide.source_hash for slide in scope.slides},
    }
    claimed = claim(out, resolved.tree(), resolved.origins, verb="evaluate", ignore=_IGNORED, inputs=inputs)
    if claimed.resumed and (out / RESULTS).exists() and not (out / failed_file()).exists():
        print(f"nothing to do: {out / RESULTS} holds these results already")
        return 0
    print("\n".join([*scope.warnings, *_counts(judged, source)]))
    device, reason = choose_device(config.device)
    encoders = _encoders(encoder, scope, config.random_inits)
    print(f"encoders: {', '.join(encoders)}, on {device.type} ({reason})")
    features, kept, lost = embed_judged(
        judged,
        encoders,
        out / "features",
        device=device,
        batch_size=config.batch_size,
        threads=config.threads,
    )
    failed = [*failed, *lost]
    record_failures(out, failed)
    report = _report(_study(kept, features, config), scope, source, _command(request))
    return _finish(report, out, failed)


# ---- which slides may be judged -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scope:
    """The slides that are judged, how many of them the model saw, and what must be said about it."""

    slides: tuple[IndexedSlide, ...]
    seen: int
    warnings: tuple[str, ...]


def pretraining_slides(model: str) -> frozenset[str] | None:
    """The slides that a model was pretrained on, as its config.json states them; None where it does not."""
    if model == COLOUR_STATS:
        return frozenset()
    config = Path(model) / CONFIG_FILE
    if not config.is_file():
        return None
    stated = json.loads(config.read_text(encoding="utf-8")).get("facts", {}).get("pretraining_slides")
    return None if stated is None else frozenset(map(str, stated))


def _scope(index: SlideIndex, pretraining: frozenset[str] | None, config: Config) -> _Scope:
    """Leave out or refuse slides that were in pretraining, or say loudly that they were."""
    if pretraining is None:
        unknown = (
            "The model does not say which slides it was pretrained on. If these slides were among them, the numbers "
            "are those of seen pixels."
        )
        return _Scope(index.slides, 0, (unknown,))
    groups, noun = _groups(index.slides, config)
    touched = {group for group, slide in zip(groups, index.slides, strict=True) if slide.slide_id in pretraining}
    seen = [slide.slide_id for group, slide in zip(groups, index.slides, strict=True) if group in touched]
    if not seen:
        return _Scope(index.slides, 0, ())
    if config.leave_out_seen:
        unseen = tuple(slide for slide in index if slide.slide_id not in seen)
        if not unseen:
            raise LamellaError(
                index.folder,
                f"all its {len(seen)} slides were in pretraining, so leave_out_seen=true leaves none",
                "Index slides that the model has not seen, or set leave_out_seen=false.",
            )
        return _Scope(unseen, 0, (f"{len(seen)} slides were in pretraining (by {noun}) and are left out.",))
    if not config.allow_seen:
        raise LamellaError(
            index.folder,
            f"{len(seen)} of its {len(index)} slides were in pretraining (by {noun}): {', '.join(seen[:3])}",
            "Set leave_out_seen=true, pretrain without them, or set allow_seen=true to have the table say so.",
        )
    warning = (
        f"Labels unseen, pixels seen: {len(seen)} of {len(index)} slides were in pretraining (by {noun}). "
        "This says nothing certain about new slides; leave_out_seen=true judges the others only."
    )
    return _Scope(index.slides, len(seen), (warning,))


def _groups(slides: Sequence[IndexedSlide], config: Config) -> tuple[list[str], str]:
    patients = [slide.metadata.get(config.group_column) for slide in slides]
    groups, noun = groups_of([slide.slide_id for slide in slides], patients)
    return groups, config.group_column if noun == "patient" else noun


# ---- what is asked --------------------------------------------------------------------------------------------------


def _encoders(encoder: Encoder, scope: _Scope, random_inits: int) -> dict[str, list[Callable[[], Encoder]]]:
    """Makers of the judged encoder first, then of those that it must beat. Only one needs to be in memory at a time."""
    if isinstance(encoder, ColourStatistics):
        return {encoder.name: [lambda: encoder]}
    seen = f" (labels unseen, pixels seen on {scope.seen} of {len(scope.slides)} slides)" if scope.seen else ""
    encoders: dict[str, list[Callable[[], Encoder]]] = {f"{encoder.name}{seen}": [lambda: encoder]}
    if isinstance(encoder, Twinned):
        encoders[RANDOM] = [partial(random_twin, encoder, seed) for seed in range(random_inits)]
    encoders[COLOUR] = [partial(ColourStatistics, encoder.contract)]
    return encoders


def _study(
    judged: Sequence[JudgedSlide], features: dict[str, tuple[np.ndarray, ...]], config: Config
) -> tuple[Study, str]:
    """The plain arrays that the questions work on, and what a group is called."""
    rows = [item.table.num_rows for item in judged]
    groups, noun = _groups([item.slide for item in judged], config)
    labels, names = numbered([label for item in judged for label in item.labels])
    sites, site_names = numbered([item.slide.metadata.get(config.site_column) or None for item in judged])
    study = Study(
        features=features,
        slides=np.repeat([item.slide.slide_id for item in judged], rows),
        groups=np.repeat(groups, rows),
        make_folds=partial(_folds, noun=noun, seed=config.seed),
        labels=labels if names else None,
        class_names=names,
        sites=np.repeat(sites, rows) if site_names else None,
        site_names=site_names,
        probes=config.probes,
        robustness=config.robustness,
        seed=config.seed,
        twin=RANDOM if RANDOM in features else None,
    )
    return study, noun


def _folds(groups: np.ndarray, labels: np.ndarray, folds: int, *, noun: str, seed: int) -> np.ndarray:
    dealt = group_folds(groups, labels, folds, seed=seed)
    refuse_shared_groups(groups, dealt, noun=noun)
    return dealt


def _report(study_and_noun: tuple[Study, str], scope: _Scope, source: str, command: str) -> Report:
    study, noun = study_and_noun
    rows, conclusions, notes, unasked = [], [], [], []
    for title, ask in progress(list(QUESTIONS.items()), "questions"):
        try:
            # A probe is a thousand small fits: on two threads each of them took ten times as long as on one.
            with threadpool_limits(1):
                answer = ask(study)
        except CannotAsk as reason:
            unasked.append(Unasked(title, str(reason)))
            continue
        rows += answer.rows
        conclusions += answer.conclusions
        notes += answer.notes
    facts = {
        "tiles": len(study.slides),
        "slides": len(np.unique(study.slides)),
        "groups": f"{len(np.unique(study.groups))} (by {noun})",
        "labels": source,
        "version": __version__,
    }
    for name, (features, *_) in study.features.items():
        if len(features):
            spread = per_dimension_std(features)
            facts[f"effective rank of {name}"] = (
                f"{rankme(features):.1f} of {features.shape[1]} (RankMe on {len(features)} tiles); standard deviation "
                f"of a dimension: median {np.median(spread):.3g}, smallest {spread.min():.3g}"
            )
    return Report(
        title=f"Did {study.judged} learn morphology?",
        rows=rows,
        meanings={title: MEANINGS[title] for title in QUESTIONS},
        warnings=scope.warnings,
        conclusions=conclusions,
        unasked=unasked,
        notes=[*dict.fromkeys(notes), *_cautions(study, noun)],
        facts=facts,
        command=command,
    )


def _cautions(study: Study, noun: str) -> list[str]:
    groups = len(np.unique(study.groups))
    cautions = [
        f"Intervals resample whole {noun}s, and random initialisations where there are several. There is one trained "
        "model: how much another seed of its training would change is not in them."
    ]
    if groups < FEW_GROUPS:
        cautions.append(f"{groups} {noun}s are few: the intervals are rough, and other {noun}s may differ more.")
    return cautions


def _command(request: Request) -> str:
    """The exact command line of this run."""
    words = ["lamella", request.verb, *map(str, request.paths)]
    words += ["-p", str(request.profile)] if request.profile else []
    words += ["-r", str(request.run)] if request.run else []
    return shlex.join([*words, "-o", str(request.out), *request.overrides])


def _counts(judged: Sequence[JudgedSlide], source: str) -> list[str]:
    labels = Counter(label for item in judged for label in item.labels if label is not None)
    tiles = sum(item.table.num_rows for item in judged)
    classes = ", ".join(f"{name} {count}" for name, count in sorted(labels.items())) or "none"
    return [f"{tiles} tiles of {len(judged)} slides; labels: {source}; classes: {classes}"]


def _finish(report: Report, folder: Path, failed: list[dict[str, str]]) -> int:
    text, data = report.write(folder)
    page = write_report_page(text)
    unasked = [f"{skipped.question}: not asked, {skipped.reason}" for skipped in report.unasked]
    print("\n".join(f"- {line}" for line in [*report.conclusions, *unasked]))
    print(f"wrote {text}, {page} and {data}")
    if failed:
        print(f"slides that failed: {len(failed)}, see {folder / failed_file()}. The same command tries them again.")
    print(f"next: read {text}, or open {page.name} beside it in a browser")
    return 1 if failed else 0
