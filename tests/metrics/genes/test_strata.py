from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.metrics.genes.judged_slides import bins

from lamella.metrics.genes.scoring import score
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.metrics.genes.strata import gene_lines, strata_of, stratum_lines, stratum_of

SETTINGS = GeneMetricSettings(block_um=20, resolutions_um=(2, 8))
ENDS = SETTINGS.strata


@pytest.mark.parametrize(
    ("share", "name"),
    [(0, "0-50 % zero"), (0.5, "50-80 % zero"), (0.949, "80-95 % zero"), (0.97, "95-99 % zero"), (1, "99-100 % zero")],
)
def test_classes(share, name):
    assert stratum_of(share, ENDS) == name


def scores():
    first, second = bins(side=32, level=0.1), bins(1, side=32, level=0.1, slide_id="b", patient="B")
    truth = second.truth.copy()
    truth[:, 4] = 0
    return score([first, replace(second, truth=truth)], SETTINGS)


def test_a_gene_is_in_one_class_at_all_resolutions():
    found = scores()
    shares = np.mean([slide.zero_share for slide in found.at(2)], axis=0)
    assert strata_of(found, ENDS) == {f"gene{number}": stratum_of(share, ENDS) for number, share in enumerate(shares)}
    lines = gene_lines("model", found, ["pearson"], ENDS)
    assert len(lines) == 12
    for gene in found.genes:
        assert len({line.stratum for line in lines if line.gene == gene}) == 1


def test_a_line_has_what_was_judged_and_what_not():
    found = scores()
    line = next(each for each in gene_lines("model", found, ["pearson"], ENDS) if each.gene == "gene4")
    assert (line.slides, line.patients) == (2, 2)
    assert line.undefined == ("all zero (b)",)
    assert line.values["pearson"] == pytest.approx(found.at(2)[1].values["pearson"][4])
    assert line.above_shuffles <= 1


def test_above_shuffles_counts_patients_in_whom_every_slide_is():
    found = scores()
    for line in gene_lines("model", found, ["pearson"], ENDS):
        number = int(line.gene[-1])
        expected = sum(
            bool(slide.values["pearson"][number] > slide.shuffled["pearson"][:, number].max())
            for slide in found.at(line.resolution_um)
            if math.isfinite(slide.values["pearson"][number])
        )
        assert line.above_shuffles == expected


def test_strata_hold_all_genes():
    lines = gene_lines("model", scores(), ["pearson"], ENDS)
    gathered = stratum_lines(lines, ["pearson"])
    for resolution_um in (2, 8):
        assert sum(each.genes for each in gathered if each.resolution_um == resolution_um) == 6
    one = gathered[0]
    values = [line.values["pearson"] for line in lines if line.resolution_um == 2 and line.stratum == one.stratum]
    assert one.median == pytest.approx(np.nanmedian(values))
