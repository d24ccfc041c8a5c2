"""Stage 0 of `lamella weak`: which tiles of the training slides the prototypes of each class are made from.

Up to `num_per_class` slides of a class and `samples_per_wsi` tiles of each, drawn with the study's seed. Tiles that
show the class alone are preferred where labels of tiles or pixel truth of training slides tell them; record.json says
by what they were picked. A label of a slide says little of a single tile, and prototypes from such tiles are mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lamella.data.bag_digest import study_digest
from lamella.data.bag_purity import MASKS, Offer, best_offers
from lamella.data.bags import Bag, WeakStudy
from lamella.formats.atomic import write_json
from lamella.formats.named_tiles import write_named_tiles
from lamella.formats.tables import write_parquet
from lamella.imaging.datasets.problems import refuse
from lamella.slides.slide import open_slide
from lamella.verbs.weak_stages.prototype_settings import CoordinateSettings
from lamella.verbs.weak_stages.stage import COORDINATES, Stage

TABLE, RECORD = "tiles.parquet", "record.json"


@dataclass(frozen=True)
class Picked:
    """The tiles of one class."""

    name: str
    offers: tuple[Offer, ...]

    @property
    def rule(self) -> str | None:
        return self.offers[0].rule if self.offers else None

    def __len__(self) -> int:
        return sum(len(offer.rows) for offer in self.offers)


def run_coordinates(stage: Stage) -> int:
    """Do the stage, or find that it is done.

    Raises:
        DatasetProblems: A class has no tiles.
        LamellaError: A slide or mask cannot be read, or the folder holds another study's.
    """
    settings, study, folder = stage.config.coordinates, stage.study, stage.folder(COORDINATES)
    bags = training_bags(study)
    inputs = {"study": study_digest(study, bags, masks=settings.pure in ("auto", "masks"))}
    claimed = stage.claim(COORDINATES, ("class_order", "background", "coordinates", "seed"), inputs)
    if claimed.resumed and (folder / RECORD).is_file():
        print(f"done before: {folder / RECORD}")
        return 0
    picked = pick(study, bags, settings, stage.config.seed)
    _write(folder, study, picked, settings, stage.config.seed)
    for one in picked:
        print(_told(one))
    if stage.config.train.folds is not None:
        groups = len({offer.bag.group for one in picked for offer in one.offers})
        print(f"note: these tiles are of {groups} {study.group_noun}s; each fold makes its prototypes without its own")
    print(f"wrote {folder}")
    return 0


def training_bags(study: WeakStudy) -> tuple[Bag, ...]:
    """The bags of the training part; where there is no split, all with labels, for the others are only judged."""
    return study.of("train") or tuple(bag for bag in study.bags if bag.part is None and bag.labels is not None)


def pick(study: WeakStudy, bags: Sequence[Bag], settings: CoordinateSettings, seed: int) -> list[Picked]:
    """Draw the tiles of every channel; the background's may be none.

    Raises:
        DatasetProblems: A class has no tiles.
    """
    picked, problems = [], []
    for channel, name in enumerate(study.channels):
        offers = best_offers(study, bags, channel, settings.pure, settings.min_cover)
        if offers:
            picked.append(Picked(name, tuple(_drawn(offers, channel, settings, seed))))
        elif channel < len(study.classes):
            problems.append(_missing(name, settings))
        else:
            picked.append(Picked(name, ()))
    refuse("coordinates", problems, "Every class needs tiles to make prototypes from.")
    return picked


def _missing(name: str, settings: CoordinateSettings) -> str:
    if settings.pure == "masks":
        return f"class {name}: no tile of a training slide is covered by it to {settings.min_cover:.0%}"
    return f"class {name}: no training slide has it"


def _drawn(offers: Sequence[Offer], channel: int, settings: CoordinateSettings, seed: int) -> list[Offer]:
    """Some slides, and some tiles of each; in the order of their names and places."""
    slides = settings.num_per_class
    if all(len(offer.bag) == 1 for offer in offers):
        slides *= settings.samples_per_wsi
    rng = np.random.default_rng([seed, channel])
    offers = sorted(offers, key=lambda offer: offer.bag.slide_id)
    chosen = sorted(rng.permutation(len(offers))[:slides].tolist())
    return [_some(offers[number], channel, settings.samples_per_wsi, seed) for number in chosen]


def _some(offer: Offer, channel: int, count: int, seed: int) -> Offer:
    """At most `count` tiles; the draw hangs on the slide's name, not on the others."""
    if len(offer.rows) <= count:
        return offer
    rng = np.random.default_rng([seed, channel, *offer.bag.slide_id.encode()])
    kept = np.sort(rng.choice(len(offer.rows), count, replace=False))
    return Offer(offer.bag, offer.rows[kept], offer.rule, None if offer.cover is None else offer.cover[kept])


# ---- files ----------------------------------------------------------------------------------------------------------


def _write(folder: Path, study: WeakStudy, picked: Sequence[Picked], settings: CoordinateSettings, seed: int) -> None:
    """The arrays of the source's contract, one table of all, and last the record: with it the stage is done."""
    read_from = _levels(study, picked)
    for one in picked:
        if len(one):
            _write_array(folder / f"{one.name}.npy", study, one, read_from)
    write_parquet(folder / TABLE, _table(study, picked))
    write_json(folder / RECORD, _record(study, picked, settings, seed))


def _levels(study: WeakStudy, picked: Sequence[Picked]) -> dict[str, tuple[int, float]]:
    """slide_id -> the pyramid level that its tiles are read from, and that level's downsample."""
    found = {}
    for bag in {offer.bag.slide_id: offer.bag for one in picked for offer in one.offers}.values():
        with open_slide(bag.wsi_path, mpp=bag.mpp_stated) as slide:
            level = slide.choose_level(study.mpp).level
            found[bag.slide_id] = (level, slide.levels[level].mpp / slide.frame.mpp)
    return found


def _write_array(path: Path, study: WeakStudy, one: Picked, read_from: dict[str, tuple[int, float]]) -> None:
    bags = [offer.bag for offer in one.offers]
    counts = [len(offer.rows) for offer in one.offers]
    side_px0 = np.array([study.fov_um / bag.frame.mpp for bag in bags])
    downsample = np.array([read_from[bag.slide_id][1] for bag in bags])
    write_named_tiles(
        path,
        np.repeat([bag.wsi_path.name for bag in bags], counts),
        np.concatenate([offer.bag.corners_px0[offer.rows] for offer in one.offers]),
        tile_px=study.tile_px,
        side_px0=np.repeat(side_px0, counts),
        tile_level=np.repeat([read_from[bag.slide_id][0] for bag in bags], counts),
        read_px=np.repeat(np.maximum(1, np.rint(side_px0 / downsample)).astype(np.int64), counts),
    )


def _table(study: WeakStudy, picked: Sequence[Picked]) -> pa.Table:
    """The tile table of all classes: slide_id, x_px0, y_px0, fov_um, mpp, class, group, rule, cover."""
    tables = []
    for one in picked:
        for offer in one.offers:
            rows = len(offer.rows)
            cover = np.full(rows, np.nan) if offer.cover is None else offer.cover
            table = study.table(offer.bag).take(offer.rows)
            for name, value in (("class", one.name), ("group", offer.bag.group), ("rule", offer.rule)):
                table = table.append_column(name, pa.array([value] * rows, pa.string()))
            tables.append(table.append_column("cover", pa.array(cover, pa.float64(), from_pandas=True)))
    return pa.concat_tables(tables)


def _record(study: WeakStudy, picked: Sequence[Picked], settings: CoordinateSettings, seed: int) -> dict[str, Any]:
    return {
        "class_order": list(study.classes),
        "background": study.background,
        "labels_are": study.labels_are,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "mpp": study.mpp,
        "tile_px": study.tile_px,
        "pixel_truth_of_training_used": any(one.rule == MASKS for one in picked),
        "classes": [
            {
                "name": one.name,
                "file": f"{one.name}.npy" if len(one) else None,
                "picked_by": one.rule,
                "tiles": len(one),
                "slides": {offer.bag.slide_id: len(offer.rows) for offer in one.offers},
            }
            for one in picked
        ],
    }


def _told(one: Picked) -> str:
    if not len(one):
        return f"  {one.name}: no tiles, since nothing tells where it is; it gets no prototypes"
    return f"  {one.name}: {len(one)} tiles of {len(one.offers)} slide(s), picked by {one.rule}"
