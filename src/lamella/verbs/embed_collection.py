"""`lamella embed MODEL DATASET -o features` on a data set of 2-D images: one row an image in features.parquet."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, Field

from lamella.config import Request, Settings
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, choose_device
from lamella.errors import DatasetError, LamellaError
from lamella.formats.tables import write_parquet
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.models.hub import load_encoder
from lamella.models.volume_encoder import VolumeEncoder
from lamella.slides.index import INDEX_FILE
from lamella.verbs.evaluate_report import FAILED, record_failures
from lamella.verbs.image_features import ItemViews, ViewSettings, embed_items

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
        return open_collection(path, request.resolve(DataOnly).config.dataset)
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


def run(request: Request, collection: Collection) -> int:
    """Embed every image; one that cannot be read is listed in failed.csv and the others go on.

    Raises:
        LamellaError: The data are no images, or the model is one of volumes.
    """
    resolved = request.resolve(Config)
    config, model = resolved.config, str(request.paths[0])
    encoder = load_encoder(model)
    if collection.kind != "image" or isinstance(encoder, VolumeEncoder):
        raise LamellaError(
            request.paths[1],
            f"it holds {collection.kind}s, and {encoder.name} is asked for features of images",
            "Give a data set of 2-D images and an encoder of images.",
        )
    if request.dry_run:
        print(resolved.text())
        print(f"would embed {len(collection)} images with {encoder.name} ({encoder.contract.dim} numbers each)")
        return 0
    out = request.folder()
    inputs = {"encoder_fingerprint": encoder.fingerprint, "items": [item.item_id for item in collection.items]}
    claim(out, resolved.tree(), resolved.origins, verb="embed", ignore=_IGNORED, inputs=inputs)
    device, reason = choose_device(config.device)
    print(f"embed with {encoder.name} on {device.type} ({reason})")
    encoder.to(device)
    views = ItemViews(collection, config.view, encoder, config.cache_mb)
    found = embed_items(
        encoder,
        collection.items,
        views,
        out / "parts",
        label=encoder.name,
        batch_size=config.batch_size,
        device=device,
    )
    record_failures(out, found.failed)
    items = [item for item in collection.items if item.item_id in found.pooled]
    if not items:
        first = next(iter(found.failed.values()))
        raise LamellaError(request.paths[1], f"no image could be read ({first})", f"See {out / FAILED}.")
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
    print(f"wrote {len(items)} images of {collection.name} to {out / FEATURES}; failed: {len(found.failed)}")
    print(f"next: lamella evaluate {model} {request.paths[1]} -o results")
    return 1 if found.failed else 0
