"""From the counts of stage 4 to its tables: weakly trained models in one, supervised ones in another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lamella import __version__
from lamella.data.bags import Bag
from lamella.dense.refining.settings import RefineSettings
from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.report import Report, Row, Unasked
from lamella.metrics.segments.protocol import (
    FLAG,
    LABEL_ORACLE,
    NO_PROMPT,
    PREDICTED_LABELS,
    Protocol,
    Task,
    split_digest,
)
from lamella.metrics.segments.scored import Scored, SegmentStudy
from lamella.metrics.segments.tables import segment_rows
from lamella.verbs.evaluation.report import cautions
from lamella.verbs.weak_stages.evaluation_counts import ALONE, NO_LABEL, PREDICTED, REFINED, TRUE, Looked, Work
from lamella.verbs.weak_stages.evaluation_models import Panel

PROMPTS = {NO_LABEL: NO_PROMPT, PREDICTED: PREDICTED_LABELS, TRUE: LABEL_ORACLE}
_ALONE = {
    PREDICTED: "predicted labels alone, no map",
    TRUE: f"{FLAG}: true labels alone, no map",
}
_WEAK = (
    "Every pixel gets a class from a model that was trained without masks. Rows differ in what they know of the whole "
    "image: nothing (what a new slide gives), the labels that the model predicts of it, or, named LABEL ORACLE, its "
    "true labels, which nobody has of a new slide: that row is an upper bound of the gate, not a result. The "
    "background competes for every pixel. IoU and Dice are of all judged pixels together, or of each slide and then "
    "averaged, as the row says; a class that is in neither truth nor prediction is left out, one that was missed "
    "counts 0. The baseline is the best of the answers that give every pixel one class."
)
_CRITERIA = {
    "loss": "the image-level loss of the validation slides, no mask",
    "masks": "PIXEL MASKS of the validation slides, which is more than weak supervision",
}
_AUTOMATIC = (
    "Models that were trained with masks, on the same pixels: what the labels of pixels would give. Their numbers are "
    "in a table of their own, because they were paid for with other labels."
)


@dataclass(frozen=True)
class Found:
    """What a finished look gave.

    Attributes:
        work: What was judged.
        bags: Those that could be judged by every model, in the order of the tables.
        panels: The judged models first.
        looked: Name of a panel -> of each bag.
        extra: Name -> (N, C, C + 1) counts of further predictors that know no label.
        control: (N, C, C + 1) of maps of other groups' slides.
        title: Of the tables.
        notes: On the baselines.
    """

    work: Work
    bags: tuple[Bag, ...]
    panels: tuple[Panel, ...]
    looked: Mapping[str, Sequence[Looked]]
    extra: Mapping[str, np.ndarray]
    control: np.ndarray | None
    title: str
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> Panel:
        return self.panels[0]

    @property
    def supervised(self) -> list[Panel]:
        return [panel for panel in self.panels if not panel.weak]

    def matrices(self, panel: Panel, variant: str) -> np.ndarray:
        """(N, C, C + 1) of a panel's variant."""
        return np.stack([looked.matrices[variant] for looked in self.looked[panel.name]])


def refined_name(refine: RefineSettings) -> str:
    """What is done to the maps, such as `CRF + closing`."""
    done = []
    if refine.use_crf:
        names = {"mean_field": "CRF", "pydensecrf2": "CRF (pydensecrf2)", "guided": "guided filter"}
        done.append(names[refine.crf.engine])
    if refine.morphological_op != "none":
        done.append(refine.morphological_op)
    if refine.edge_refinement:
        done.append("edges")
    if refine.min_component_size:
        done.append(f"pieces from {refine.min_component_size} px")
    return " + ".join(done) or "post-processing that does nothing"


def row_name(panel: Panel, variant: str, refine: RefineSettings | None) -> str:
    """What a row of a weak table is called: it says what the row knew."""
    base, gate = panel.name, variant.removesuffix(REFINED)
    if variant.endswith(REFINED) and refine is not None:
        base += f" + {refined_name(refine)}"
    return {
        NO_LABEL: base,
        PREDICTED: f"{base}, gated by predicted labels",
        TRUE: f"{base}, {FLAG}: gated by true labels",
    }[gate]


def weak_study(found: Found) -> SegmentStudy:
    """All weakly trained predictors, and the baselines that know as little."""
    work, scored, prompts = found.work, {}, {}
    for panel in found.panels:
        if panel.weak:
            for variant in found.looked[panel.name][0].matrices:
                if variant.startswith(ALONE):
                    continue
                name = row_name(panel, variant, work.settings.refine)
                scored[name] = Scored(found.matrices(panel, variant))
                prompts[name] = PROMPTS[variant.removesuffix(REFINED)]
    scored |= {name: Scored(matrices) for name, matrices in found.extra.items()}
    for variant, name in _ALONE.items():
        if f"{ALONE}{variant}" in found.looked[found.judged.name][0].matrices:
            scored[name] = Scored(found.matrices(found.judged, f"{ALONE}{variant}"))
            prompts[name] = PROMPTS[variant]
    control = None if found.control is None else Scored(found.control)
    return _study(found, "weak", scored, prompts, control)


def supervised_study(found: Found) -> SegmentStudy | None:
    """The rivals that were trained with masks, on the same slides; None where there are none."""
    scored = {panel.name: Scored(found.matrices(panel, NO_LABEL)) for panel in found.supervised}
    return _study(found, "automatic", scored, {}, None) if scored else None


def _study(
    found: Found, task: Task, scored: dict[str, Scored], prompts: dict[str, str], control: Scored | None
) -> SegmentStudy:
    work = found.work
    constants = {f"all {name}": Scored(_constant(found, number)) for number, name in enumerate(work.study.channels)}
    return SegmentStudy(
        title=found.title,
        judged=next(iter(scored)),
        scored={**scored, **constants},
        constants=tuple(constants),
        items=np.array([bag.slide_id for bag in found.bags]),
        groups=np.array([bag.group for bag in found.bags]),
        classes=work.study.channels,
        background=work.background,
        protocol=_protocol(found, task),
        control=control,
        seed=work.seed,
        prompts=prompts,
        against=_compared(found, list(scored)) if task == "weak" else None,
    )


def _compared(found: Found, names: Sequence[str]) -> tuple[str, ...]:
    """What the judged row is compared with: its own gates and its post-processing, rivals and baselines as they are.

    The best of the constants is in every row as the baseline.
    """
    refine, judged = found.work.settings.refine, found.judged
    own = [row_name(judged, variant, refine) for variant in (PREDICTED, TRUE, f"{NO_LABEL}{REFINED}")]
    rivals = [panel.name for panel in found.panels[1:] if panel.weak]
    alone = [_ALONE[PREDICTED], *found.extra]
    return tuple(name for name in (*own, *rivals, *alone) if name in names)


def _constant(found: Found, channel: int) -> np.ndarray:
    """(N, C, C + 1) of calling every pixel one class."""
    truth_NC = np.stack([looked.truth_C for looked in found.looked[found.judged.name]])
    count = truth_NC.shape[1]
    matrices = np.zeros((len(truth_NC), count, count + 1), np.int64)
    matrices[:, :, channel] = truth_NC
    return matrices


def _protocol(found: Found, task: Task) -> Protocol:
    work = found.work
    where = "inside the slides' tiles" if work.inside else "of the slides"
    return Protocol(
        task=task,
        oracle=False,
        prompt=NO_PROMPT,
        ignored=(f"{NOT_LABELLED} (not labelled)",),
        split=split_digest((bag.slide_id, bag.group) for bag in found.bags),
        classes=work.study.channels,
        mpp=work.study.mpp,
        scored=f"every labelled pixel {where}, at the study's spacing",
        n=len(found.bags),
    )


@dataclass(frozen=True)
class Tables:
    """The weak study, the supervised one where there is one, and all their rows."""

    weak: SegmentStudy
    supervised: SegmentStudy | None
    rows: tuple[Row, ...]
    sentences: tuple[str, ...]

    @classmethod
    def of(cls, found: Found) -> Tables:
        weak, supervised = weak_study(found), supervised_study(found)
        rows, sentences = segment_rows(weak)
        if supervised is not None:
            more, said = segment_rows(supervised)
            rows, sentences = [*rows, *more], [*sentences, *said]
        return cls(weak, supervised, tuple(rows), tuple(sentences))


def report_of(found: Found, tables: Tables, command: str, pictures: Sequence[tuple[str, str]]) -> Report:
    """results.md and results.json."""
    study = found.work.study
    groups = len({bag.group for bag in found.bags})
    meanings = {tables.weak.question: _WEAK}
    if tables.supervised is not None:
        meanings[tables.supervised.question] = _AUTOMATIC
    return Report(
        title=f"How well does {found.judged.name}, trained without masks, segment the slides of {found.title}?",
        rows=tables.rows,
        meanings=meanings,
        warnings=list(_warnings(found)),
        conclusions=tables.sentences,
        unasked=list(_unasked(found)),
        notes=[
            *(f"{panel.name}: {text}" for panel in found.panels for text in panel.notes),
            *study.notes,
            *found.notes,
            *_gate_notes(found),
            f"Judged on a raster of {study.mpp:g} µm/px over each slide; masks are sampled there, never averaged",
            *cautions(groups, study.group_noun),
        ],
        facts={
            "slides": f"{len(found.bags)} judged, of {sum(bag.mask_path is not None for bag in study.bags)} with masks",
            "groups": f"{groups} judged (by {study.group_noun})",
            "labels of training": f"of each {study.labels_are}",
            "weights": weights_sentence(found),
            **{f"model: {key}": value for key, value in found.judged.facts.items()},
            "version": __version__,
        },
        command=command,
        pictures=pictures,
    )


def _warnings(found: Found) -> Iterator[str]:
    yield from (f"{panel.name}: {text}" for panel in found.panels for text in panel.warnings)
    masked = [panel.name for panel in found.panels if panel.weak and panel.facts.get("criterion") == "masks"]
    if masked and found.work.settings.weights == "best":
        yield f"Weights of {', '.join(masked)} were chosen by masks of validation slides: more than weak supervision"
    chosen = [bag for bag in found.bags if bag.part == "val"]
    if chosen and found.work.settings.weights == "best":
        yield f"{len(chosen)} of the judged slides are of the val part, by which weights may have been chosen"


def weights_sentence(found: Found) -> str:
    """Which weights are judged, and by what they were chosen."""
    if found.work.settings.weights == "latest":
        return "latest: the last ones, whatever validation said (evaluate.weights=latest)"
    criterion = str(found.judged.facts.get("criterion", "a criterion that the model does not state"))
    return f"best: chosen in training by {_CRITERIA.get(criterion, criterion)}"


def _gate_notes(found: Found) -> Iterator[str]:
    work, looked = found.work, found.looked[found.judged.name]
    if PREDICTED not in looked[0].matrices:
        return
    unit = "each tile by its own labels" if work.per_tile else "the whole slide by its labels"
    yield (
        f"Gates take absent classes out of {unit}, the background never; a label is predicted above "
        f"{work.settings.label_threshold:g}"
    )
    sure = sum(each.labelled for each in looked)
    if sure < len(looked):
        yield f"{len(looked) - sure} of {len(looked)} slides have no label: their true labels are what their masks show"
    said_NM = np.stack([each.probability_M for each in looked]) > work.settings.label_threshold
    true_NM = np.stack([each.true_M for each in looked])
    right = said_NM == true_NM
    yield (
        f"Predicted labels of whole slides: all classes right of {int(right.all(1).sum())} of {len(right)} slides, "
        f"{int(right.sum())} of {right.size} single ones; always the commoner answer of each class would get "
        f"{int(np.maximum(true_NM.sum(0), (~true_NM).sum(0)).sum())}"
    )
    held = np.stack([each.truth_C[: true_NM.shape[1]] > 0 for each in looked])
    denied = int((held & ~true_NM).any(1).sum())
    if denied:
        yield f"The masks of {denied} slides hold a class that their label denies: the oracle's gate is wrong there"


def _unasked(found: Found) -> Iterator[Unasked]:
    yield Unasked("boundaries and objects", "weak labels say nothing of outlines; `lamella evaluate` scores them")
    if not found.supervised:
        yield Unasked("supervised upper bound", "evaluate.rivals names no model that was trained with masks")
    if found.work.settings.refine is None:
        yield Unasked("post-processing", "evaluate.refine is null")
