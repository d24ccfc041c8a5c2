"""Stage 1 of `lamella weak`: what an encoder makes of the exemplars of stage 0.

Each tile is encoded once, in the order in which slides are read fastest, as `lamella embed` does it. Finished parts are
kept on the way, so that a killed run goes on where it stopped.

Shapes: N exemplars, T different tiles among them, B tiles of a batch, D numbers of a feature.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lamella.data.bags import WeakStudy
from lamella.engine.world import choose_device, choose_precision
from lamella.errors import LamellaError
from lamella.formats.digests import ends_digest
from lamella.formats.exemplars import CLASS, COLUMNS, FEATURES_FILE, TABLE_FILE, Exemplars, write_exemplars
from lamella.formats.tables import read_parquet, write_csv
from lamella.models.encoders import Encoder
from lamella.models.hub import load_encoder, portable_spec
from lamella.models.volume_encoder import VolumeEncoder
from lamella.verbs.tile_features import tiles_digest
from lamella.verbs.weak_stages.feature_work import FeatureWork
from lamella.verbs.weak_stages.prototype_settings import FeatureSettings
from lamella.verbs.weak_stages.stage import COORDINATES, FEATURES, Stage

TILES_FILE = "tiles.parquet"  # of stage 0
_PARTS = ".parts"
# What changes speed and memory alone. The encoder's name is of no matter: its fingerprint is.
_IGNORED = tuple(f"features.{key}" for key in ("encoder", "batch_size", "threads", "device", "unreadable_tiles"))
_SKIPPED_FILE = "skipped.csv"
# As when tiles are read: a level within 5 % of a spacing counts as being at it.
_SAME_MPP = 0.05


def run_features(stage: Stage) -> int:
    """Do the stage, or find that it is done.

    Raises:
        LamellaError: Stage 0 is missing, a class has no exemplars, the encoder is not to be had or does not take these
            tiles, a tile cannot be read, or a feature is not finite.
    """
    if stage.config.prototypes.import_from is not None:
        print("nothing to do: prototypes.import_from brings what would be made of the features")
        return 0
    config, folder = stage.config.features, stage.folder(FEATURES)
    exemplars = read_tiles_of_classes(stage.folder(COORDINATES), stage.study)
    encoder = _encoder(config)
    shown = _shown(exemplars, stage.study, config, encoder)
    claimed = stage.claim(FEATURES, ("features",), _inputs(shown, stage.study, encoder), ignore=_IGNORED)
    if (folder / TABLE_FILE).is_file():
        _refuse_skipped(folder, config)
        print(f"done already: {folder / FEATURES_FILE} ({exemplars.num_rows:,} exemplars)")
        return 0
    device, reason = choose_device(config.device)
    work = FeatureWork(
        stage.study.by_id,
        shown,
        encoder,
        device,
        choose_precision(device, config.precision)[0],
        batch_size=config.batch_size,
        threads=config.threads,
        skip_unreadable=config.unreadable_tiles == "skip",
    )
    print(
        f"{encoder.name} ({encoder.contract.licence}) on {device.type} ({reason}): {work.tiles:,} tiles of "
        f"{len(set(shown.column('slide_id').to_pylist()))} slides, {_tile_px(config, stage.study)} px at "
        f"{shown.column('mpp')[0].as_py():g} um per pixel; {encoder.contract.dim} numbers each"
    )
    features_ND, kept_N, skipped = work.features(folder / _PARTS)
    record = {
        "encoder": portable_spec(config.encoder),
        "fingerprint": encoder.fingerprint,
        "encoder_name": encoder.name,
        "precision": work.precision,
        "tile_px": str(_tile_px(config, stage.study)),
    }
    _record_skipped(folder, skipped)
    table = exemplars.filter(pa.array(kept_N))
    refuse_missing(table, stage.study, "after unreadable tiles were left out")
    write_exemplars(folder, Exemplars(features_ND[kept_N], table, record))
    shutil.rmtree(folder / _PARTS, ignore_errors=True)
    _say(folder, table, stage.study)
    del claimed  # its lock lasts until here
    return 0


def read_tiles_of_classes(folder: Path, study: WeakStudy) -> pa.Table:
    """The exemplars that stage 0 chose: a tile table with a column `class`.

    Raises:
        LamellaError: It is missing or of other classes or slides, or a class has no exemplars.
    """
    path = folder / TILES_FILE
    if not path.is_file():
        raise LamellaError(path, "there are no exemplars yet", "Run `lamella weak coordinates` with the same -o first.")
    read_parquet(path, COLUMNS)  # they are there; other columns go along
    table = read_parquet(path)
    unknown = sorted(set(table.column(CLASS).to_pylist()) - set(study.channels))
    if unknown:
        raise LamellaError(
            path,
            f"it holds exemplars of {', '.join(unknown)}, but the classes are {', '.join(study.channels)}",
            "Run `lamella weak coordinates` again (--redo coordinates).",
        )
    gone = sorted(set(table.column("slide_id").to_pylist()) - set(study.by_id))
    if gone:
        raise LamellaError(
            path,
            f"{len(gone)} of its slides are not in the study ({', '.join(gone[:3])})",
            "Run `lamella weak coordinates` again (--redo coordinates).",
        )
    refuse_missing(table, study, "")
    return table


def refuse_missing(table: pa.Table, study: WeakStudy, when: str) -> None:
    """Every class needs something to be recognised by; the background may go without.

    Raises:
        LamellaError: A class has no exemplars.
    """
    there = set(table.column(CLASS).to_pylist())
    missing = [name for name in study.classes if name not in there]
    if missing:
        raise LamellaError(
            ", ".join(missing),
            " ".join(["this class has no exemplars" if len(missing) == 1 else "these classes have no exemplars", when])
            .strip(),
            "Give training slides that are labelled with it, or leave the class out of class_order.",
        )  # fmt: skip


def _encoder(config: FeatureSettings) -> Encoder:
    """The encoder, or what to do where it is not to be had. Random weights are never taken in its stead."""
    try:
        encoder = load_encoder(config.encoder)
    except LamellaError as error:
        raise LamellaError(
            f"features.encoder={config.encoder}",
            f"it cannot be loaded: {error.thing}: {error.cause}",
            f"{error.remedy} Or set features.encoder to another: `lamella encoders` says which are ready on this "
            "machine; every model folder of `lamella pretrain` is one.",
        ) from error
    if isinstance(encoder, VolumeEncoder):
        raise LamellaError(
            f"features.encoder={config.encoder}",
            f"it encodes {encoder.contract.kind}s, and tiles are images",
            "Give an encoder of images; `lamella encoders` lists them.",
        )
    return encoder


def _tile_px(config: FeatureSettings, study: WeakStudy) -> int:
    return config.tile_px or study.tile_px


def _shown(exemplars: pa.Table, study: WeakStudy, config: FeatureSettings, encoder: Encoder) -> pa.Table:
    """The exemplars at the pixel size at which the encoder is shown them.

    Raises:
        LamellaError: Their side is no whole number of the encoder's patches, or they have several sizes.
    """
    fov_um, tile_px, contract = exemplars.column("fov_um").to_numpy(), _tile_px(config, study), encoder.contract
    if not np.allclose(fov_um, study.fov_um):
        raise LamellaError(
            "exemplars",
            f"their tiles are {fov_um.min():g} to {fov_um.max():g} um wide, the study's {study.fov_um:g} um",
            "Run `lamella weak coordinates` again (--redo coordinates).",
        )
    if tile_px % contract.patch_px and contract.patch_px != contract.size_px:  # equal: an encoder without patches
        raise LamellaError(
            "features.tile_px",
            f"{tile_px} px are not whole patches of {contract.patch_px} px, which {encoder.name} needs",
            f"Set features.tile_px={_whole(tile_px, contract.patch_px)}: the same tissue with that many pixels.",
        )
    mpp = study.fov_um / tile_px
    if contract.mpp is not None and abs(mpp / contract.mpp - 1) > _SAME_MPP:
        print(
            f"note: {encoder.name} was trained on tiles of {contract.mpp:g} um per pixel and is shown {mpp:g}; "
            f"features.tile_px={_whole(study.fov_um / contract.mpp, contract.patch_px)} shows it its own"
        )
    index = exemplars.column_names.index("mpp")
    return exemplars.set_column(index, "mpp", pa.array(np.full(exemplars.num_rows, mpp)))


def _whole(side_px: float, patch_px: int) -> int:
    return max(1, round(side_px / patch_px)) * patch_px


def _inputs(shown: pa.Table, study: WeakStudy, encoder: Encoder) -> dict[str, Any]:
    """What features depend on beside the settings: tiles in their order, classes, slides, encoder."""
    names = shown.column("slide_id").to_pylist()
    text = hashlib.sha256("\n".join([*names, *shown.column(CLASS).to_pylist()]).encode()).hexdigest()[:16]
    slides = {name: ends_digest(study.by_id[name].wsi_path) for name in sorted(set(names))}
    return {
        "encoder_fingerprint": encoder.fingerprint,
        "tiles": tiles_digest(shown) + text,
        "slides": slides,
    }


def _refuse_skipped(folder: Path, config: FeatureSettings) -> None:
    """Features without the tiles that could not be read are not what `fail` asks for."""
    if config.unreadable_tiles == "fail" and (folder / _SKIPPED_FILE).is_file():
        raise LamellaError(
            folder / _SKIPPED_FILE,
            "tiles were left out because they could not be decoded, and features.unreadable_tiles is fail",
            "Set features.unreadable_tiles=skip, or mend the slides and run with --redo features.",
        )


def _record_skipped(folder: Path, skipped: list[dict[str, Any]]) -> None:
    path = folder / _SKIPPED_FILE
    path.unlink(missing_ok=True)
    if skipped:
        write_csv(path, skipped, ["slide_id", "x_px0", "y_px0", "error"])
        print(f"tiles left out because they cannot be decoded: {len(skipped)}, see {path}")


def _say(folder: Path, table: pa.Table, study: WeakStudy) -> None:
    classes = table.column(CLASS).to_pylist()
    counts = ", ".join(f"{classes.count(name):,} of {name}" for name in study.channels if name in classes)
    print(f"wrote {folder / FEATURES_FILE} and {TABLE_FILE}: {table.num_rows:,} exemplars ({counts})")
