"""The training patches of a generated cohort with their masks, for a supervised model: what masks would have given.

    python docs/results/masked_patches.py /tmp/cohort_two /tmp/masked_two gland lymphoid

Masks get the classes' numbers in this order, from 1; all else is background, 0. Test patches are left out.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lamella.slides.phantom_cohort import IDS


def main(cohort: str, target: str, *classes: str) -> None:
    """Write masks and `manifest.csv` into the target folder."""
    source, out = Path(cohort).absolute(), Path(target)
    (out / "masks").mkdir(parents=True, exist_ok=True)
    number = np.zeros(256, np.uint8)
    for value, name in enumerate(classes, 1):
        number[IDS[name]] = value
    with open(source / "patches.csv", newline="", encoding="utf-8") as file:
        patches = [row for row in csv.DictReader(file) if row["split"] != "test"]
    rows = []
    for patch in patches:
        mask = out / "masks" / f"{patch['slide_id']}.png"
        Image.fromarray(number[np.asarray(Image.open(source / patch["label_mask_path"]))]).save(mask)
        shown = {"image_id": patch["slide_id"], "image_path": source / patch["wsi_path"], "mask_path": mask.absolute()}
        rows.append(shown | {"patient": patch["patient"], "split": patch["split"]})
    with open(out / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} patches with masks of {', '.join(classes)} in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
