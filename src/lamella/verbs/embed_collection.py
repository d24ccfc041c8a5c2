"""`lamella embed MODEL DATASET -o features` on a data set: one row an image, volume or film in features.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, Field

from lamella.config import Request, Resolved, Settings
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, choose_device
from lamella.errors import DatasetError, LamellaError
from lamella.formats.tables import write_parquet
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.models.hub import load_encoder
from lamella.models.volume_encoder import VolumeEncoder
from lamella.slides.index import INDEX_FILE
from lamella.verbs.evaluation.image_features import Embedded, ItemViews, ViewSettings, embed_items
from lamella.verbs.evaluation.report import FAILED, record_failures
from lamella.verbs.evaluation.space_time_study import embed_space_time
from lamella.verbs.evaluation.space_time_views import (
    FilmViewSettings,
    SpaceTimeViews,
    VolumeViewSettings,
    film_views,
    volume_views,
)
from lamella.verbs.own_intensity import with_own_intensity

FEATURES = "features.parquet"
_IGNORED = ("batch_size", "cache_mb", "device")


class DataOnly(Settings):
    """As much of any settings as is needed to open the data; the verb's own schema checks all of them."""

    model_config = ConfigDict(extra="ignore")

    dataset: DatasetSettings = DatasetSettings()


def open_data(request: Request) -> Collection:
    """The data set that a verb was given in place of a slide index.

    Raises:
        DatasetError: It is none; of a folder both is said.
    """
    path = request.paths[1]
    try:
        return open_collection(path, request.resolve(DataOnly).config.dataset, under="dataset.")
    except DatasetError as error:
        if not path.is_dir():
            raise
        raise DatasetError(
            path,
            f"it is not a slide index (it has no {INDEX_FILE}), and no data set either: {error.cause}",
            error.remedy,
        ) from error


class Config(Settings):
    """Settings of `lamella embed` on images."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    view: ViewSettings = ViewSettings()
    """What the encoder is shown of an image."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Views encoded at once."""
    cache_mb: Annotated[int, Field(ge=0)] = 256
    """Decoded images kept in memory."""
    device: DeviceName = "auto"
    """Where the encoder runs."""


class VolumeConfig(VolumeViewSettings):
    """Settings of `lamella embed` on volumes."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    device: DeviceName = "auto"
    """Where the encoder runs."""


class FilmConfig(FilmViewSettings):
    """Settings of `lamella embed` on films."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    device: DeviceName = "auto"
    """Where the encoder runs."""


SCHEMAS: dict[str, type[Settings]] = {"image": Config, "volume": VolumeConfig, "video": FilmConfig}


def run(request: Request, collection: Collection) -> int:
    """Embed every item; one that cannot be read is listed in failed.csv and the others go on.

    Raises:
        LamellaError: The encoder does not take such data, or no item can be read.
    """
    model = str(request.paths[0])
    encoder: Any = load_encoder(model)
    taken = encoder.contract.kind if isinstance(encoder, VolumeEncoder) else "image"
    # An encoder of films takes the slices of volumes in time, too.
    if collection.kind != taken and (taken, collection.kind) != ("video", "volume"):
        raise LamellaError(
            request.paths[1],
            f"it holds {collection.kind}s, and {encoder.name} is an encoder of {taken}s",
            f"Give a data set of {taken}s, or an encoder of {collection.kind}s.",
        )
    resolved: Resolved[Any] = request.resolve(SCHEMAS[taken])
    if taken == "image":
        resolved = with_own_intensity(resolved, model)
    if request.dry_run:
        print(resolved.text())
        count = f"{len(collection)} {collection.kind}s"
        print(f"would embed {count} with {encoder.name} ({encoder.contract.dim} numbers each)")
        return 0
    out = request.folder()
    inputs = {"encoder_fingerprint": encoder.fingerprint, "items": [item.item_id for item in collection.items]}
    claim(out, resolved.tree(), resolved.origins, verb="embed", ignore=_IGNORED, inputs=inputs)
    found = _embedded(encoder, collection, resolved.config, model, out / "parts")
    return _written(request, encoder, collection, found, out)


def _embedded(encoder: Any, collection: Collection, config: Any, model: str, folder: Path) -> Embedded:
    """Features of all items, whatever they are."""
    device, reason = choose_device(config.device)
    print(f"embed with {encoder.name} on {device.type} ({reason})")
    encoder.to(device)
    items, name = collection.items, encoder.name
    if isinstance(config, Config):
        images = ItemViews(collection, config.view, encoder, config.cache_mb)
        return embed_items(encoder, items, images, folder, label=name, batch_size=config.batch_size, device=device)
    views: SpaceTimeViews = (
        film_views(collection, encoder.contract, config, model)
        if isinstance(config, FilmConfig)
        else volume_views(collection, encoder.contract, config)
    )
    return embed_space_time(encoder, items, views, folder, label=name, device=device)


def _written(request: Request, encoder: Any, collection: Collection, found: Embedded, out: Path) -> int:
    """Write what could be embedded, and say so."""
    record_failures(out, found.failed)
    items = [item for item in collection.items if item.item_id in found.pooled]
    if not items:
        first = next(iter(found.failed.values()))
        raise LamellaError(request.paths[1], f"no {collection.kind} could be read ({first})", f"See {out / FAILED}.")
    features = np.stack([found.pooled[item.item_id] for item in items])
    columns = {
        "item_id": [item.item_id for item in items],
        "group": [item.group for item in items],
        "split": [item.split for item in items],
        "labels": [None if item.labels is None else list(item.labels) for item in items],
        "features": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1]),
    }
    facts = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "data set": collection.name}
    write_parquet(out / FEATURES, columns, facts)
    print(
        f"wrote {len(items)} {collection.kind}s of {collection.name} to {out / FEATURES}; failed: {len(found.failed)}"
    )
    print(f"next: lamella evaluate {request.paths[0]} {request.paths[1]} -o results")
    return 1 if found.failed else 0
