"""Folders that a verb wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator

from lamella.view.server.catalogue.ids import Ids
from lamella.view.server.catalogue.items import RunItem
from lamella.view.server.catalogue.walk import Place


def runs_in(place: Place, ids: Ids, said: list[str]) -> Iterator[RunItem]:
    """The folder as a run, if it is one."""
    if not place.has("config.yaml", "run.json"):
        return
    path = place.folder / "run.json"
    try:
        verb = json.loads(path.read_text(encoding="utf-8"))["verb"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        said.append(f"{path}: it cannot be read ({error!r}).")
        return
    yield RunItem(ids.new(place.title.replace("/", "-")), place.title, place.folder, str(verb))
