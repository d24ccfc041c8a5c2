"""Generated slides that say which classes they hold, but not where: the cohorts of the weak results.

    python docs/results/make_cohort.py two  /tmp/cohort_two     # gland, lymphoid; stroma and glass are background
    python docs/results/make_cohort.py four /tmp/cohort_four    # gland, stroma, lymphoid, solid; glass is background
    python docs/results/make_cohort.py focal /tmp/cohort_focal  # gland, lymphoid, each a tenth of the tissue at most

A third argument is the seed, 7 unless given: settings were chosen on cohorts of the seeds 0 and 1, results are of 7.

Each folder holds the slides with labels of whole slides (`manifest.csv`, or `split.csv` and `labels.csv`), and the same
slides cut into patches with labels of their own (`patches.csv`, `patches_then_slides.csv`).
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from lamella.slides.phantom_cohort import CohortPlan, write_cohort

PLANS = {
    "two": CohortPlan(slides=(16, 4, 8)),
    # Two or three classes a slide: most real slides hold most tissues, and one class alone would need no weak labels.
    # A tenth of the tissue for each class, as a small tumour has: most tiles of a slide are not what its label says.
    "focal": CohortPlan(elsewhere=("stroma", "solid"), share=(1, 1), elsewhere_share=(4, 6)),
    "four": CohortPlan(("gland", "stroma", "lymphoid", "solid"), (), slides=(20, 6, 8), held=(2, 3)),
}


def main(name: str, folder: str, seed: str = "7") -> None:
    """Write a cohort and say how common its classes are."""
    plan = replace(PLANS[name], seed=int(seed))
    write_cohort(Path(folder), plan)
    for table in ("manifest.csv", "patches.csv"):
        with open(Path(folder) / table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        of_part = Counter(row["split"] for row in rows)
        for part, number in of_part.items():
            held = {each: sum(int(row[each]) for row in rows if row["split"] == part) for each in plan.classes}
            print(f"{table}: {part}: {number}, with " + ", ".join(f"{each} {count}" for each, count in held.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
