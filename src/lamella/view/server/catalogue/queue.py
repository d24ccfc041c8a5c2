"""Places that a person is asked to look at: the lists of uncertain tiles that predictions leave."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from lamella.errors import LamellaError
from lamella.formats.tables import iterate_csv
from lamella.view.server.catalogue.items import QueueItem
from lamella.view.server.catalogue.walk import Place

UNCERTAIN = "uncertain_tiles.csv"
SpacingOf = Callable[[str], tuple[float, float] | None]


def queue_in(place: Place, spacing: SpacingOf, said: list[str]) -> Iterator[QueueItem]:
    """The rows of a folder's list, in its order (the least sure first).

    Args:
        place: The folder.
        spacing: Slide name -> (x, y) micrometres per pixel at level 0, where it is known.
        said: Gets what cannot be read.
    """
    path = place.folder / UNCERTAIN
    if path not in place.files:
        return
    without: set[str] = set()
    try:
        for row in iterate_csv(path):
            mpp = _predicted_spacing(place.folder / row["slide_id"]) or spacing(row["slide_id"])
            if mpp is None:
                without.add(row["slide_id"])
                continue
            x0, y0, fov_um = (float(row[name]) for name in ("x_px0", "y_px0", "fov_um"))
            if not all(map(math.isfinite, (x0, y0, fov_um))):
                raise ValueError(f"a place of {row['slide_id']} is not finite")
            box = (x0, y0, x0 + fov_um / mpp[0], y0 + fov_um / mpp[1])
            yield QueueItem(row["slide_id"], box, _why(row))
    except (LamellaError, KeyError, ValueError) as error:
        said.append(str(error) if isinstance(error, LamellaError) else f"{path}: it cannot be read ({error!r}).")
    if without:
        said.append(f"{path}: the slide {sorted(without)[0]} is not among the given paths; its tiles are left out.")


def _predicted_spacing(folder: Path) -> tuple[float, float] | None:
    """As the prediction beside the list had it."""
    try:
        x, y = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["slide_mpp"]
        return float(x), float(y)
    except (OSError, ValueError, LookupError, TypeError):
        return None  # the slide itself is asked then


def _why(row: dict[str, str]) -> str:
    margin = row.get("margin", "")
    shown = f", margin {float(margin):.2g} to the next class" if margin else ""
    return f"likeliest {row.get('likeliest') or 'unknown'}{shown}"
