"""Stage `check` of `lamella expression`: everything is read once and looked at before anything is learned.

Of every slide: what the file holds, how the chip lies on the image, how much of it is on tissue, and whether counts
follow the image where they lie (`data.registration`). Of the study: folds, panels, and genes that cannot be judged.
What is doubtful is said and nothing is changed; what cannot be read is listed in failed.csv and fails the stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lamella.data.expression import ExpressionSlide
from lamella.data.expression_digest import study_digest
from lamella.data.expression_samples import SlideSamples
from lamella.data.expression_targets import check_counts, totals
from lamella.data.expression_tissue import slide_tissue
from lamella.data.registration import Registration, lattice_words, registration
from lamella.errors import LamellaError
from lamella.formats.atomic import whole_file
from lamella.formats.spatial_counts import SpatialCounts
from lamella.formats.tables import write_csv
from lamella.verbs.expression_stages.check_study import StudyFindings, study_findings
from lamella.verbs.expression_stages.stage import CHECKED, Stage
from lamella.view.expression_places import draw_places

SLIDES, SHIFTS, PANEL, REPORT, FAILED = "slides.csv", "shifts.csv", "panel.csv", "report.md", "failed.csv"
_COLUMNS = (
    *("slide_id", "patient", "shape", "size_um", "mpp", "places", "genes", "lattice", "total", "median_total"),
    *("zero_share", "all_measured", "outside", "on_tissue", "tissue_covered", "judged", "samples", "r"),
    *("best_x_um", "best_y_um", "r_best", "margin_needed", "unmeasured", "doubts", "notes"),
)
_PANEL_COLUMNS = ("fold", "test", "inner", "train", "place", "gene", "not_judged_on")


@dataclass(frozen=True)
class _Checked:
    """What was found of one slide."""

    slide: ExpressionSlide
    counts: SpatialCounts
    found: Registration
    samples: SlideSamples

    @property
    def doubts(self) -> list[str]:
        """What seems wrong."""
        return self.found.faults()

    @property
    def notes(self) -> list[str]:
        """What one must know of the file."""
        left_out = self.samples.unmeasured
        told = f"{left_out:,} bins on tissue of the image are not in the file and not judged" if left_out else ""
        return [*self.counts.notes, *([told] if told else [])]

    def row(self) -> dict[str, object]:
        counts, found = self.counts, self.found
        total = totals(counts)
        return {
            "slide_id": self.slide.slide_id,
            "patient": self.slide.patient,
            "shape": counts.shape,
            "size_um": f"{counts.size_um:g}",
            "mpp": f"{counts.mpp:.5g}",
            "places": len(counts),
            "genes": len(counts.genes),
            "lattice": lattice_words(counts.grid),
            "total": f"{total.sum():.10g}",
            "median_total": f"{float(np.median(total)):g}",
            "zero_share": f"{counts.zero_share:.4f}",
            "all_measured": int(counts.all_measured),
            "outside": found.outside,
            "on_tissue": f"{found.on_tissue:.4f}",
            "tissue_covered": f"{found.tissue_covered:.4f}",
            "judged": self.samples.judged,
            "samples": len(self.samples),
            "r": f"{found.r:.4f}",
            "best_x_um": f"{found.best_um[0]:g}",
            "best_y_um": f"{found.best_um[1]:g}",
            "r_best": f"{found.r_best:.4f}",
            "margin_needed": f"{found.needed:.4f}",
            "unmeasured": self.samples.unmeasured,
            "doubts": "; ".join(self.doubts),
            "notes": "; ".join(self.notes),
        }


def run_check(stage: Stage) -> int:
    """Do the stage, or find that it is done.

    Returns:
        1 if a slide could not be read or used, else 0. Doubts do not fail it.

    Raises:
        LamellaError: There is one patient only, a gene of a stated panel is missing, or the folder holds another
            study's.
    """
    folder = stage.folder(CHECKED)
    claimed = stage.claim(CHECKED, ("data", "panel", "seed"), {"study": study_digest(stage.study)})
    if claimed.resumed and (folder / REPORT).is_file() and not (folder / FAILED).is_file():
        print(f"done before: {folder / REPORT}")
        return 0
    checked, failed = [], []
    for slide in stage.study.slides:
        try:
            one = _check(stage, slide)
        except LamellaError as error:
            failed.append({"slide_id": slide.slide_id, "reason": str(error)})
            print(f"  {slide.slide_id}: {error}")
            continue
        checked.append(one)
        for line in _told(one):
            print(line)
    (folder / FAILED).unlink(missing_ok=True)
    if failed:
        write_csv(folder / FAILED, failed, ("slide_id", "reason"))
        print(f"{len(failed)} of {len(stage.study.slides)} slides cannot be used: {folder / FAILED}")
        return 1
    findings = study_findings(stage.study, stage.config.panel, [one.samples for one in checked])
    _write(stage, checked, findings)
    return 0


def _check(stage: Stage, slide: ExpressionSlide) -> _Checked:
    """Read and look at one slide, and draw it.

    Raises:
        LamellaError: It cannot be read or used.
    """
    counts, data = slide.counts, stage.config.data
    if data.target != "values":
        check_counts(counts, data.target)
    tissue = slide_tissue(slide, data.tissue)
    found = registration(slide, counts, tissue)
    # One gene tells how many places are judged; which genes are predicted is a matter of folds.
    samples = SlideSamples.of(slide, stage.study, counts.genes[:1], data)
    facts = f"{lattice_words(counts.grid)}; {found.on_tissue:.0%} on tissue; {_followed(found)}"
    title = f"{slide.slide_id}: {len(counts):,} {counts.shape}s of {counts.size_um:g} µm, {len(counts.genes):,} genes"
    draw_places(slide, counts, tissue, title, facts, stage.folder(CHECKED) / f"{slide.slide_id}.png")
    return _Checked(slide, counts, found, samples)


def _told(one: _Checked) -> Iterator[str]:
    counts = one.counts
    yield (
        f"  {one.slide.slide_id}: patient {one.slide.patient}, {len(counts):,} {counts.shape}s of "
        f"{counts.size_um:g} um x {len(counts.genes):,} genes, {counts.zero_share:.1%} zeros, "
        f"{one.samples.judged:,} judged, {_followed(one.found)}"
    )
    for doubt in one.doubts:
        yield f"    doubt: {doubt}"
    for note in one.notes:
        yield f"    note: {note}"


def _followed(found: Registration) -> str:
    """How counts follow the image, in a few words."""
    x_um, y_um = found.best_um
    return (
        f"counts follow darkness with r {found.r:.2f} (best {found.r_best:.2f} at {x_um:+.0f}, {y_um:+.0f} um; "
        f"{found.needed:.2f} more would count)"
    )


# ---- files ----------------------------------------------------------------------------------------------------------


def _write(stage: Stage, checked: list[_Checked], findings: StudyFindings) -> None:
    """The tables, and last the report: with it the stage is done."""
    folder = stage.folder(CHECKED)
    write_csv(folder / SLIDES, [one.row() for one in checked], _COLUMNS)
    write_csv(folder / SHIFTS, (row for one in checked for row in _shifts(one)), ("slide_id", "x_um", "y_um", "r"))
    write_csv(folder / PANEL, findings.panel_rows(), _PANEL_COLUMNS)
    text = "\n".join([*_report(stage, checked, findings), ""])
    with whole_file(folder / REPORT) as part:
        part.write_text(text, encoding="utf-8")
    for line in findings.lines():
        print(f"  {line}")
    print(f"wrote {folder / REPORT}")


def _shifts(one: _Checked) -> Iterator[dict[str, object]]:
    """The correlation of counts with darkness at every shift; nothing where it is not defined."""
    sweep, step_um = one.found.sweep, one.found.step_um
    middle = len(sweep) // 2
    for row in range(len(sweep)):
        for column in range(len(sweep)):
            r = float(sweep[row, column])
            x_um, y_um = (column - middle) * step_um, (row - middle) * step_um
            shown = f"{r:.4f}" if np.isfinite(r) else None
            yield {"slide_id": one.slide.slide_id, "x_um": f"{x_um:g}", "y_um": f"{y_um:g}", "r": shown}


def _report(stage: Stage, checked: list[_Checked], findings: StudyFindings) -> Iterator[str]:
    study = stage.study
    yield "# Expression: what was read"
    yield ""
    yield (
        f"{len(study.slides)} slides of {len(study.patients)} patients, {study.kind}s; predicted in bins of "
        f"{study.bin_um:g} um, samples of {study.tile_bins} x {study.tile_bins} bins; "
        f"target {stage.config.data.target}."
    )
    for note in study.notes:
        yield f"\n{note[0].upper()}{note[1:]}."
    yield "\n## Slides\n"
    yield "| slide | patient | places | genes | zeros | judged | on tissue | lattice | r now | r best | at (um) |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for one in checked:
        found = one.found
        yield (
            f"| {one.slide.slide_id} | {one.slide.patient} | {len(one.counts):,} | {len(one.counts.genes):,} | "
            f"{one.counts.zero_share:.1%} | {one.samples.judged:,} | {found.on_tissue:.0%} | "
            f"{lattice_words(one.counts.grid)} | {found.r:.3f} | {found.r_best:.3f} | "
            f"{found.best_um[0]:+.0f}, {found.best_um[1]:+.0f} |"
        )
    yield (
        "\n`r` is the correlation of ln(1 + total counts) with the darkness of the image, as places lie now and at the "
        "best shift. A better shift is called a fault only where it is further than half a place and its r is higher "
        f"by four standard errors and 0.05; all shifts are in {SHIFTS}. Each slide has a picture of its name."
    )
    doubts = [f"- {one.slide.slide_id}: {doubt}" for one in checked for doubt in one.doubts]
    yield "\n## Doubts\n"
    yield from doubts or ["None."]
    yield "\n## Notes\n"
    yield from [f"- {one.slide.slide_id}: {note}" for one in checked for note in one.notes] or ["None."]
    yield "\n## Folds and panels\n"
    yield from (f"- {line}" for line in findings.lines())
