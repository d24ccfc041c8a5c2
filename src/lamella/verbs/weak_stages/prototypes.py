"""Stage 2 of `lamella weak`: what is typical of each class.

Shapes: N exemplars, K prototypes, D numbers of a feature.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lamella.data.bag_purity import ANY_SLIDE, ONE_OF_SEVERAL, ONLY_CLASS
from lamella.data.bags import WeakStudy
from lamella.errors import ConfigError, LamellaError
from lamella.formats.digests import file_digest
from lamella.formats.exemplars import FEATURES_FILE, TABLE_FILE, Exemplars, read_exemplars
from lamella.formats.tables import write_csv, write_parquet
from lamella.models.prototype_clusters import Cluster, cluster_classes, most_distinct, told_apart
from lamella.models.prototypes import PROTOTYPES_FILE, Prototypes, load_prototypes, save_prototypes, unit_length
from lamella.verbs.weak_stages.features import refuse_missing
from lamella.verbs.weak_stages.prototype_import import imported, imported_exemplars
from lamella.verbs.weak_stages.prototype_settings import PrototypeSettings
from lamella.verbs.weak_stages.stage import FEATURES, PROTOTYPES, Stage
from lamella.view.prototype_pictures import draw_prototypes

CLUSTERS_FILE, MEMBERS_FILE = "clusters.csv", "members.parquet"
_COLUMNS = ("class", "cluster", "kept", "size", "share", "slides", "margin", "mean_cosine", "least_cosine",
            "nearest_slide_id", "nearest_x_px0", "nearest_y_px0")  # fmt: skip
_BLOCKS = ("class_order", "background", "prototypes", "seed")
_IGNORED = ("prototypes.pictures",)
# Rules of stage 0 that know of a slide what they say of a tile.
_OF_SLIDES = {ONLY_CLASS, ONE_OF_SEVERAL, ANY_SLIDE}
_LEAST_EXEMPLARS = 8  # of a prototype: with as many spare clusters, each has four on average
# Below this share over the chance level, nearest prototypes are told to be as good as drawn.
_LITTLE = 0.1


def run_prototypes(stage: Stage) -> int:
    """Do the stage, or find that it is done.

    Raises:
        LamellaError: Stage 1 is missing, a class has fewer exemplars than prototypes, or an imported file is not of
            these classes.
    """
    folder, inputs = stage.folder(PROTOTYPES), _inputs(stage)
    if (folder / PROTOTYPES_FILE).is_file():
        stage.claim(PROTOTYPES, _BLOCKS, inputs, ignore=_IGNORED)  # refuses those of other settings or features
        print(f"done already: {_told(load_prototypes(folder))} in {folder}")
        return 0
    # All that can be wrong with the settings shows here, before the folder is taken for them.
    exemplars = _exemplars(stage)
    clusters = [] if exemplars is None else _clusters(stage, exemplars)
    prototypes = _imported(stage) if exemplars is None else _made(stage, exemplars, clusters)
    claimed = stage.claim(PROTOTYPES, _BLOCKS, inputs, ignore=_IGNORED)
    if exemplars is not None:
        _show(stage, exemplars, clusters, prototypes)
    save_prototypes(folder, prototypes)
    print(f"wrote {_told(prototypes)} to {folder}")
    del claimed  # its lock lasts until here
    return 0


def prototypes_of(stage: Stage, slide_ids: Collection[str]) -> Prototypes:
    """Prototypes of the exemplars of some slides only: those of a fold must not come from the patients it leaves out.

    Imported ones are as they are: what they have seen is not known here.

    Raises:
        LamellaError: Stage 1 is missing, or a class has fewer exemplars on these slides than prototypes.
    """
    if stage.config.prototypes.import_from:
        return _imported(stage)
    exemplars = _exemplars(stage).of_slides(slide_ids)
    return _made(stage, exemplars, _clusters(stage, exemplars))


def _imported(stage: Stage) -> Prototypes:
    settings, study = stage.config.prototypes, stage.study
    return imported(Path(settings.import_from or ""), settings.import_encoder, study.channels, study.classes)


def _clusters(stage: Stage, exemplars: Exemplars) -> list[Cluster]:
    settings, rows_of = stage.config.prototypes, _rows_of(exemplars, stage.study)
    k_list, rules = _k_list(settings, exemplars, stage.study), _picked_by(exemplars, rows_of)
    more = [
        _spare(settings, k, len(rows), rules.get(name, []))
        for k, (name, rows) in zip(k_list, rows_of.items(), strict=True)
    ]
    clusters = cluster_classes(
        exemplars.features_ND,
        rows_of,
        [k + spare for k, spare in zip(k_list, more, strict=True)],
        restarts=settings.restarts,
        seed=stage.config.seed,
    )
    return most_distinct(clusters, exemplars.features_ND, rows_of, k_list)


def _spare(settings: PrototypeSettings, k: int, exemplars: int, rules: list[str]) -> int:
    """Clusters of a class that are made in order to leave some out."""
    if settings.spare is not None:
        return settings.spare
    return k if _OF_SLIDES & set(rules) and exemplars >= _LEAST_EXEMPLARS * k else 0


def _made(stage: Stage, exemplars: Exemplars, clusters: list[Cluster]) -> Prototypes:
    """Prototypes of the clusters, with what a reader should know of them."""
    settings, rows_of = stage.config.prototypes, _rows_of(exemplars, stage.study)
    kept = [cluster for cluster in clusters if cluster.kept]
    rows, counts = _taken(kept, rows_of, settings.representatives)
    tile_px = int(exemplars.record["tile_px"])
    facts: dict[str, Any] = {
        "clusters": [_row(cluster, rows_of, exemplars.table) for cluster in clusters],
        "picked_by": _picked_by(exemplars, rows_of),
        "representatives": settings.representatives,
        "tile_px": tile_px,
        "mpp": stage.study.fov_um / tile_px,
    }
    vectors = np.stack([each.centre_D for each in kept]) if rows is None else exemplars.features_ND[rows]
    encoder, fingerprint = exemplars.record["encoder"], exemplars.record["fingerprint"]
    made = Prototypes(unit_length(torch.from_numpy(vectors)), tuple(rows_of), counts, encoder, fingerprint, facts)
    members = {name: np.concatenate([each.rows for each in kept if each.name == name]) for name in rows_of}
    facts["told_apart"] = told_apart(exemplars.features_ND, members, made.features_KD.numpy(), made.class_of_K)
    return made


def _show(stage: Stage, exemplars: Exemplars, clusters: list[Cluster], prototypes: Prototypes) -> None:
    """Write the tables and pictures, and say how well the classes are told apart."""
    settings, folder = stage.config.prototypes, stage.folder(PROTOTYPES)
    write_csv(folder / CLUSTERS_FILE, prototypes.facts["clusters"], _COLUMNS)
    write_parquet(folder / MEMBERS_FILE, _members(clusters, exemplars.table))
    if settings.pictures and settings.import_from is None:  # the tiles of imported exemplars are not known
        for path in draw_prototypes(stage.study.by_id, exemplars.table, clusters, folder, shown=settings.pictures):
            print(f"look at {path}")
    for name in prototypes.classes:
        own = [cluster for cluster in clusters if cluster.name == name]
        if left := sum(not cluster.kept for cluster in own):
            print(f"{name}: {left} of {len(own)} clusters left out, the most like exemplars of other classes")
    _say_told_apart(prototypes.facts["told_apart"])


def _exemplars(stage: Stage) -> Exemplars | None:
    """Those of stage 1, or of a file; None where prototypes are imported."""
    settings, folder = stage.config.prototypes, stage.folder(FEATURES)
    if settings.import_from is not None:
        return imported_exemplars(settings.import_from, settings.import_encoder, stage.study)
    exemplars = read_exemplars(folder)
    refuse_missing(exemplars.table, stage.study, "")
    return exemplars


def _classes(exemplars: Exemplars, study: WeakStudy) -> tuple[str, ...]:
    """The classes, and the background where it has exemplars."""
    there = set(exemplars.classes.tolist())
    return tuple(name for name in study.channels if name in study.classes or name in there)


def _rows_of(exemplars: Exemplars, study: WeakStudy) -> dict[str, np.ndarray]:
    return {name: exemplars.rows(name) for name in _classes(exemplars, study)}


def _k_list(settings: PrototypeSettings, exemplars: Exemplars, study: WeakStudy) -> tuple[int, ...]:
    """How many clusters each class has.

    Raises:
        ConfigError: k_list is of another number of classes.
    """
    names, given = _classes(exemplars, study), settings.k_list
    if given is None:
        return (settings.k,) * len(names)
    if len(given) == len(study.classes):
        return (*given, settings.k) if len(names) > len(given) else given
    if len(given) != len(names):
        raise ConfigError(
            [f"prototypes.k_list: {len(given)} numbers, but exemplars are of {len(names)} ({', '.join(names)})"], "weak"
        )
    return given


def _inputs(stage: Stage) -> dict[str, Any]:
    """Digests of what prototypes are made of; the table of the exemplars names their encoder and its fingerprint.

    Raises:
        LamellaError: It is not there.
    """
    path, folder = stage.config.prototypes.import_from, stage.folder(FEATURES)
    if path is None:
        if not (folder / TABLE_FILE).is_file():
            remedy = "Run `lamella weak features` with the same -o first."
            raise LamellaError(folder / TABLE_FILE, "there are no features yet", remedy)
        return {"features": file_digest(folder / FEATURES_FILE), "exemplars": file_digest(folder / TABLE_FILE)}
    path = path / PROTOTYPES_FILE if path.is_dir() else path
    if not path.is_file():
        raise LamellaError(path, "the file does not exist", "Correct prototypes.import_from.")
    return {"imported": file_digest(path)}


def _taken(
    clusters: list[Cluster], rows_of: dict[str, np.ndarray], representatives: int
) -> tuple[np.ndarray | None, tuple[int, ...]]:
    """Exemplars that are prototypes (None: the centres are), and how many prototypes each class has."""
    if not representatives:
        return None, tuple(sum(cluster.name == name for cluster in clusters) for name in rows_of)
    taken = [cluster.rows[:representatives] for cluster in clusters]
    counts = dict.fromkeys(rows_of, 0)
    for cluster, rows in zip(clusters, taken, strict=True):
        counts[cluster.name] += len(rows)
    return np.concatenate(taken), tuple(counts.values())


def _row(cluster: Cluster, rows_of: dict[str, np.ndarray], table: pa.Table) -> dict[str, Any]:
    """Of clusters.csv. Clusters are counted from 1."""
    nearest = {name: table.column(name)[int(cluster.rows[0])].as_py() for name in ("slide_id", "x_px0", "y_px0")}
    return {
        "class": cluster.name,
        "cluster": cluster.number + 1,
        "kept": int(cluster.kept),
        "size": len(cluster.rows),
        "share": round(len(cluster.rows) / len(rows_of[cluster.name]), 4),
        "slides": len(set(table.column("slide_id").take(pa.array(cluster.rows)).to_pylist())),
        "margin": round(cluster.margin, 4),
        "mean_cosine": round(float(cluster.cosines.mean()), 4),
        "least_cosine": round(float(cluster.cosines.min()), 4),
        **{f"nearest_{name}": value for name, value in nearest.items()},
    }


def _picked_by(exemplars: Exemplars, rows_of: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """Class -> the rules by which stage 0 chose its exemplars; empty where it did not say."""
    if "rule" not in exemplars.table.column_names:
        return {}
    rules = np.asarray(exemplars.table.column("rule").to_pylist(), np.str_)
    return {name: sorted(set(rules[rows].tolist())) for name, rows in rows_of.items()}


def _members(clusters: list[Cluster], table: pa.Table) -> pa.Table:
    """Every exemplar with its cluster (from 1) and its cosine with the centre, in the exemplars' order."""
    number, cosine = np.zeros(table.num_rows, np.int32), np.zeros(table.num_rows, np.float32)
    for cluster in clusters:
        number[cluster.rows], cosine[cluster.rows] = cluster.number + 1, cluster.cosines
    return table.append_column("cluster", pa.array(number)).append_column("cosine", pa.array(cosine))


def _say_told_apart(shares: dict[str, float]) -> None:
    listed = ", ".join(f"{share:.0%} of {name}" for name, share in shares.items())
    print(f"exemplars whose nearest prototype is of their class: {listed}")
    if len(shares) > 1 and np.mean(list(shares.values())) < 1 / len(shares) + _LITTLE:
        print(
            "note: this encoder hardly tells these classes apart, or most exemplars are of other tissue than their "
            "label says; prototypes can then help little. Look at the pictures."
        )


def _told(prototypes: Prototypes) -> str:
    counts = ", ".join(f"{k} of {name}" for name, k in zip(prototypes.classes, prototypes.k_list, strict=True))
    return f"{len(prototypes.features_KD)} prototypes ({counts}; {prototypes.dim} numbers each)"
