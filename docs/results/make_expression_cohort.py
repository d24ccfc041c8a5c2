"""Generated sections with expression of known rates: the cohorts of the expression results.

    python docs/results/make_expression_cohort.py /tmp/expression_hd        # Visium HD, three patients x two sections
    python docs/results/make_expression_cohort.py /tmp/expression_st st     # spots of 100 um

A third argument is the seed, 7 unless given: settings were chosen on the cohort of seed 0, results are of 7.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import numpy as np

from lamella.slides.phantom_expression_cohort import ExpressionPlan, Files, write_expression_cohort

PLANS = {
    # 0.38 mm of chip on 0.5 mm of tissue a section: 37,000 bins of 2 um each, 50 of 60 genes for a panel.
    "hd": {"size_px": 1024, "side_bins": 192},
    "visium": {"size_px": 3072, "side_bins": 704},
    "st": {"size_px": 3072, "side_bins": 704},
}


def main(folder: str, files: str = "hd", seed: str = "7") -> None:
    """Write a cohort and say how its counts are."""
    kind: Files = next(name for name in get_args(Files) if name == files)
    plan = ExpressionPlan(files=kind, slides=2, genes=60, seed=int(seed), **PLANS[files])
    print(write_expression_cohort(Path(folder), plan))
    for path in sorted(Path(folder).rglob("*true_rates.npz")):
        with np.load(path, allow_pickle=False) as truth:
            expected = truth["expected"]
        print(f"{path}: {len(expected):,} places, {expected.mean():.3f} counts of a gene expected")


if __name__ == "__main__":
    main(*sys.argv[1:])
