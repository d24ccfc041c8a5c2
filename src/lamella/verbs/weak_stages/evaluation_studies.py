"""From the counts of stage 4 to studies and rows: weakly trained models in one table, supervised ones in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lamella.data.bags import Bag
from lamella.dense.refining.settings import RefineSettings
from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.report import Row
from lamella.metrics.segments.confusion import iou_per_class, mean_of_present
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
from lamella.verbs.weak_stages.evaluation_counts import ALONE, REFINED, Looked, Work
from lamella.verbs.weak_stages.evaluation_gates import NO_LABEL, PREDICTED, TRUE
from lamella.verbs.weak_stages.evaluation_models import Panel

PROMPTS = {NO_LABEL: NO_PROMPT, PREDICTED: PREDICTED_LABELS, TRUE: LABEL_ORACLE}
_VARIANTS = tuple(f"{gate}{end}" for end in ("", REFINED) for gate in PROMPTS)
_ALONE = {
    PREDICTED: "predicted labels alone, no map",
    TRUE: f"{FLAG}: true labels alone, no map",
}


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
            counted = found.looked[panel.name][0].matrices
            for variant in (each for each in _VARIANTS if each in counted):
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
        against=_compared(found, scored, constants) if task == "weak" else None,
    )


def _compared(found: Found, scored: Mapping[str, Scored], constants: Mapping[str, Scored]) -> tuple[str, ...]:
    """What the judged row is compared with: its own gates and its post-processing, rivals and baselines as they are.

    Of the constants only the best one: all of them have rows.
    """
    refine, judged = found.work.settings.refine, found.judged
    own = [row_name(judged, variant, refine) for variant in (PREDICTED, TRUE, f"{NO_LABEL}{REFINED}")]
    rivals = [panel.name for panel in found.panels[1:] if panel.weak]
    named = (*own, *rivals, _ALONE[PREDICTED], *found.extra)

    def tissue_iou(name: str) -> float:
        pooled = iou_per_class(constants[name].matrices.sum(0))
        return float(np.nan_to_num(mean_of_present(pooled, found.work.background)))

    return (*(name for name in named if name in scored), max(constants, key=tissue_iou))


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
