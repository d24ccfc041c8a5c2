"""A manifest of the her2st sections (Andersson et al. 2021) as they are kept beside the checkout; nothing is copied.

    python docs/results/make_her2st_manifest.py ../shared/data/expression/her2st /tmp/her2st/manifest.csv
    python docs/results/make_her2st_manifest.py ../shared/data/expression/her2st /tmp/her2st_1um/manifest.csv \
        ../shared/data/expression/her2st_1um

The first folder holds `<id>.jpg`, `<id>_spots.csv`, `<id>_counts.npz` and `meta.json` of every section. A second folder
holds images of some of them at 1 um per pixel, with spot tables of their own; the counts are those of the first.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

COLUMNS = ("slide_id", "wsi_path", "expression_path", "patient", "mpp")


def main(folder: str, manifest: str, finer: str | None = None) -> None:
    """Write the manifest, with absolute paths."""
    source, path = Path(folder).resolve(), Path(manifest)
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = json.loads((source / "meta.json").read_text(encoding="utf-8"))["sections"]
    rows = []
    for name, section in sorted(sections.items()):
        image, expression, mpp = source / f"{name}.jpg", source / f"{name}_spots.csv", section["um_per_px"]
        if finer is not None:
            image, mpp = Path(finer).resolve() / f"{name}.jpg", 1.0
            if not image.exists():
                continue
            files = {
                "spots": str(image.with_name(f"{name}_spots.csv")),
                "counts": str(source / f"{name}_counts.npz"),
                "genes": str(source / "meta.json"),
                "mpp": mpp,
                "diameter_um": 100,
            }
            expression = path.parent.resolve() / f"{name}.json"
            expression.write_text(json.dumps(files, indent=1), encoding="utf-8")
        rows.append(dict(zip(COLUMNS, (name, image, expression, section["patient"], mpp), strict=True)))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} sections of {len({row['patient'] for row in rows})} patients: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
