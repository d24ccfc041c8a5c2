"""What `check` finds of a study as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.data.tiny_expression import counts_of, full_rc, settings_of, slide_of, study_of

from lamella.data.expression_samples import SlideSamples
from lamella.data.gene_panel import PanelSettings
from lamella.verbs.expression_stages.check_study import study_findings

RC = full_rc(6, 6)


def test_panels_come_from_training_slides_and_are_looked_for_on_the_others(tmp_path: Path) -> None:
    """mistake: genes chosen on test patients. Each patient alone has a gene of its own."""
    slides = []
    for number, patient in enumerate("ABC"):
        table = np.random.default_rng(number).poisson(2, (36, 4))
        table[:, :3] = 0
        table[:, number] = np.arange(36) % 7 * 9
        genes = ("G0", "G1", "G2", "G3") if patient != "C" else ("G0", "G1", "G2", "G3", "EXTRA")
        if patient == "C":
            table = np.concatenate([table, table[:, 3:]], axis=1)
        slides.append(slide_of(tmp_path, counts_of(table, RC, genes=genes), name=patient, patient=patient))
    study = study_of(*slides)
    samples = [SlideSamples.of(slide, study, ("G3",), settings_of()) for slide in slides]
    found = study_findings(study, PanelSettings(choose="variance", variance_of="counts", number=1), samples)
    assert [one.genes for one in found.folds] == [("G2",), ("G0",), ("G1",)]  # trained on C, A, B
    assert [one.empty for one in found.folds] == [{"A": ("G2",)}, {"B": ("G0",)}, {"C": ("G1",)}]
    lines = list(found.lines())
    assert lines[0] == "1 genes are measured on some slides only, and 4 on all"
    assert lines[1] == "without_A: trained on C, stopped by patient B; 1 genes: G2"
    assert "no count on A" in lines[2]


def test_counts_off_tissue_do_not_make_a_gene_judged(tmp_path: Path) -> None:
    """A gene that is seen only where nothing is judged has no measures either."""
    table = np.zeros((36, 2), int)
    table[:, 0] = 1
    table[:6, 1] = 5  # the first row, at the top of the image
    tissue = np.zeros((160, 160), bool)
    tissue[22:] = True
    slides = [
        slide_of(tmp_path, counts_of(table, RC), name=name, patient=name, tissue=tissue if name == "A" else None)
        for name in "ABC"
    ]
    study = study_of(*slides)
    samples = [SlideSamples.of(slide, study, ("G0",), settings_of()) for slide in slides]
    found = study_findings(study, PanelSettings(genes=("G0", "G1")), samples)
    assert [one.empty for one in found.folds] == [{"A": ("G1",)}, {}, {}]
