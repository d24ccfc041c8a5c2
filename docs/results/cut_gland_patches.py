"""GlaS cut into patches that say `gland` or `no gland`, and its whole images to judge with.

    python docs/results/cut_gland_patches.py glas/manifest.csv /tmp/gland_patches

A patch is a gland's where the mask covers at least a quarter of it, and nobody's where the mask covers none of it; what
lies between is left out, for nobody labels a patch by a sliver. The labels are all that training gets: patches have no
masks. Images that are judged are whole and have no label. Where glands stand so close, few places are free of them:
patches without a gland are cut at every half step, those with one at whole steps.

Writes `patches/*.png` and `manifest.csv`. There is no split: folds are made of patients, and an image is judged by a
model that has seen no patch of its patient.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

MPP = 0.62  # of the published images
# 60 um: a good part of a gland, whose walls are 20 um; of twice the side, only one in eight would hold no gland.
SIDE_PX, STEP_PX = 96, 48
GLAND = 0.25


def main(source: str, target: str) -> None:
    """Cut all images of the manifest, and print how many patches of each kind there are, of each patient too."""
    root, out = Path(source).parent.absolute(), Path(target)
    (out / "patches").mkdir(parents=True, exist_ok=True)
    with open(source, newline="", encoding="utf-8") as file:
        images = list(csv.DictReader(file))
    rows, seen, of_patient = [], Counter(), Counter()
    for image in images:
        pixels = np.asarray(Image.open(root / image["image_path"]).convert("RGB"))
        mask = np.asarray(Image.open(root / image["mask_path"])) > 0
        common = {"patient": image["patient"], "mpp": MPP}
        whole = {"label_mask_path": root / image["mask_path"], "gland": ""}
        rows.append(common | whole | {"slide_id": image["image_id"], "wsi_path": root / image["image_path"]})
        for y in range(0, mask.shape[0] - SIDE_PX + 1, STEP_PX):
            for x in range(0, mask.shape[1] - SIDE_PX + 1, STEP_PX):
                share = mask[y : y + SIDE_PX, x : x + SIDE_PX].mean()
                kind = "gland" if share >= GLAND else "left out" if share else "no gland"
                seen[kind] += 1
                if kind == "left out" or (kind == "gland" and (x % SIDE_PX or y % SIDE_PX)):
                    continue
                of_patient[image["patient"], kind] += 1
                name = f"{image['image_id']}_{x}_{y}"
                path = Path("patches") / f"{name}.png"
                Image.fromarray(pixels[y : y + SIDE_PX, x : x + SIDE_PX]).save(out / path)
                label = {"label_mask_path": "", "gland": int(kind == "gland")}
                rows.append(common | label | {"slide_id": name, "wsi_path": path})
    columns = ("slide_id", "wsi_path", "mpp", "patient", "label_mask_path", "gland")
    with open(out / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(images)} images; {sum(seen.values())} places of {SIDE_PX} px at {MPP} um per pixel: {dict(seen)}")
    kinds = ("gland", "no gland")
    cut = {kind: sum(count for (_, each), count in of_patient.items() if each == kind) for kind in kinds}
    print(f"{sum(cut.values())} patches: " + ", ".join(f"{count} {kind}" for kind, count in cut.items()))
    for patient in sorted({patient for patient, _ in of_patient}, key=int):
        print(f"patient {patient}: " + ", ".join(f"{of_patient[patient, kind]} {kind}" for kind in kinds))


if __name__ == "__main__":
    main(*sys.argv[1:])
