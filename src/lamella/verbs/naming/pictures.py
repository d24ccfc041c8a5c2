"""Named regions as a page: of each class from the least to the most probable, as the network was shown them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lamella.models.clip import Clip
from lamella.models.regions import isolated
from lamella.verbs.naming.embedding import Shown
from lamella.verbs.naming.survey import read_regions
from lamella.view.panels import Cell, panel_px, sheet, write_sheet

PICTURE = "named_regions.png"
_EXAMPLES = 7  # of each class: the least probable, the middle and what lies between fit a screen's width


def draw_named(rows: Sequence[Mapping[str, Any]], shown: Shown, clip: Clip, path: Path) -> Path:
    """Draw examples of each class that was judged.

    Args:
        rows: Of zero_shot.csv: region, truth, named and p_CLASS.
        shown: The regions.
        clip: Its preparation of images.
        path: PNG to write.
    """
    classes, mode = shown.found.classes, shown.config.modes[0]
    chosen = {name: _spread([row for row in rows if row["truth"] == name], f"p_{name}") for name in classes}
    chosen = {name: some for name, some in chosen.items() if some}
    pictures = _pictures([str(row["region"]) for some in chosen.values() for row in some], shown, clip)
    cells = [[Cell(pictures[row["region"]], _said(row, name)) for row in some] for name, some in chosen.items()]
    facts = (
        f"Of each class from the least to the most probable, shown isolated by {mode}; the names are those of the "
        "wording and isolation that was chosen without the judged groups.",
        "Oracle: the regions are cut from the truth masks.",
    )
    heading = f"Regions of {shown.collection.name} as {clip.name} names them"
    write_sheet(sheet(heading, facts, cells, names=[f"truth: {name}" for name in chosen]), path)
    return path


def _spread(rows: list[Mapping[str, Any]], score: str) -> list[Mapping[str, Any]]:
    """Rows from the lowest to the highest score, evenly over their ranks."""
    ranked = sorted(rows, key=lambda row: (row[score], row["region"]))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(_EXAMPLES, len(ranked))).round().astype(int))
    return [ranked[place] for place in places]


def _pictures(wanted: Sequence[str], shown: Shown, clip: Clip) -> dict[str, Image.Image]:
    """Region id -> what the network saw of it in the first mode; each image is read once."""
    config, gray, side = shown.config, clip.contract.gray, panel_px(_EXAMPLES)
    places = {each.region_id: each for each in shown.found.regions}
    found: dict[str, Image.Image] = {}
    for item in {places[name].item.item_id: places[name].item for name in wanted}.values():
        pixels, regions, _, _ = read_regions(shown.collection, item, shown.found.classes, config)
        for name in wanted:
            if places[name].item.item_id == item.item_id:
                region = regions[places[name].number]
                cut = isolated(pixels, region, config.modes[0], config.region, gray, mpp=config.mpp, source=name)
                square = clip.prepared([cut], config.fit)[0].permute(1, 2, 0).cpu().numpy()
                found[name] = Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC)
    return found


def _said(row: Mapping[str, Any], truth: str) -> str:
    right = row["named"] == truth
    said = "right" if right else f"named {row['named']}"
    return f"{said}, p {float(row[f'p_{truth}']):.2f}" + ("" if right else f" of {truth}")
