"""The models that stage 4 judges, and which of them may judge a slide: none that has seen anything of its group."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamella.data.bags import Bag, WeakStudy
from lamella.data.splits import LeakageError
from lamella.dense.ensemble import Ensemble
from lamella.dense.renaming import Renamed
from lamella.errors import LamellaError
from lamella.formats.digests import ends_digest
from lamella.models.dense_contract import DenseModel
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record
from lamella.models.segmenter_hub import is_segmenter, load_segmenter
from lamella.models.weak_hub import is_weak, load_weak, weak_facts

WEAK_DATASET = "weak study"
"""Under which name records of `lamella weak train` hold slides and groups."""
_RUN = re.compile(r"(fold\d+)?_?(seed\d+)?")
_SHOWN = 5
# Larger files are known by name and patient only: reading whole slides takes as long as predicting them.
_DIGESTED_BYTES = 2**26


@dataclass(frozen=True)
class Panel:
    """Models of one training, of which each slide is judged by those that have not seen its group.

    Attributes:
        name: In the tables.
        folders: The models.
        fingerprints: Of each.
        weak: Trained without masks; otherwise a supervised segmenter.
        judged: slide_id -> numbers of the models that predict it; several are averaged.
        facts: What the first model says of its training.
        warnings: What must be read before the numbers.
        notes: How it was decided.
        load: Folder to model.
    """

    name: str
    folders: tuple[Path, ...]
    fingerprints: tuple[str, ...]
    weak: bool
    judged: dict[str, tuple[int, ...]]
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    load: Callable[[Path], DenseModel] = field(default=lambda folder: load_any(folder), repr=False)

    def models(self, numbers: Sequence[int]) -> list[DenseModel]:
        """These of the models, loaded."""
        return [self.load(self.folders[number]) for number in numbers]


def load_any(folder: Path, names: Mapping[str, str] | None = None) -> DenseModel:
    """A weakly trained or a supervised model.

    Args:
        folder: Of the model.
        names: What a supervised model calls a class -> its name in the study.

    Raises:
        CheckpointError: It is neither, or damaged.
    """
    if is_weak(folder):
        return load_weak(folder)
    model = load_segmenter(folder)
    return Renamed(model, names) if names else model


def together(models: Sequence[DenseModel], name: str) -> DenseModel:
    """One model, or the mean of several."""
    return models[0] if len(models) == 1 else Ensemble(models, name)


def trained_models(path: Path, weights: str = "best") -> tuple[Path, ...]:
    """Model folders of a path: itself, or one of each training in it (`fold0`, `seed1`, `fold0_seed1`, or just one).

    Args:
        path: A model folder, a training or the folder of several.
        weights: best or latest.
    """
    if _is_model(path):
        return (path,)
    runs = [path, *sorted((each for each in path.glob("*") if each.is_dir()), key=_order)]
    found = [
        next((run / name for name in names if _is_model(run / name)), None)
        for run in runs
        if run == path or (_RUN.fullmatch(run.name) and run.name)
        for names in [(weights, "model") if weights == "best" else (weights,)]
    ]
    return tuple(each for each in found if each is not None)


def panel_of(
    name: str | None,
    path: Path,
    study: WeakStudy,
    bags: Sequence[Bag],
    *,
    weights: str = "best",
    names: Mapping[str, str] | None = None,
) -> Panel:
    """The models of a path, checked against the study, and who judges what.

    Args:
        name: For tables; the models' own name where it is None.
        path: As of `trained_models`.
        study: States the classes.
        bags: To judge.
        weights: best or latest.
        names: As of `load_any`.

    Raises:
        LeakageError: A slide was seen by every model, or one of several models does not say what it saw.
        LamellaError: There is no model, or it has other classes.
    """
    folders = trained_models(path, weights)
    if not folders:
        what = "latest weights" if weights == "latest" else "model"
        raise LamellaError(path, f"it holds no {what}", "Train first: lamella weak train study.yaml -o out.")
    kinds = {is_weak(folder) for folder in folders}
    if len(kinds) > 1:
        raise LamellaError(path, "it holds weakly trained and supervised models", "Name one training for each rival.")
    load = functools.partial(load_any, names=names)
    models = [load(folder) for folder in folders]
    for model in models:
        _refuse_other_classes(model, study)
    facts = [_facts(folder) for folder in folders]
    judged, warnings, notes = judges_of(folders, study, bags, facts)
    return Panel(
        name or _name_of(models),
        folders,
        tuple(model.fingerprint for model in models),
        kinds.pop(),
        judged,
        {key: value for key, value in facts[0].items() if not isinstance(value, dict | list)},
        warnings,
        notes,
        load,
    )


def judges_of(
    folders: Sequence[Path], study: WeakStudy, bags: Sequence[Bag], facts: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...], tuple[str, ...]]:
    """slide_id -> the models that have seen nothing of its group; warnings; notes.

    Slides of the val part may be judged by a model that never learned from their group, though its weights were chosen
    by them: that is stated.

    Args:
        folders: The models.
        study: All slides.
        bags: To judge.
        facts: What each model says of its training.

    Raises:
        LeakageError: A slide was seen by every model, or one of several models does not say what it saw.
    """
    records = [pretraining_record(folder) for folder in folders]
    silent = [folder for folder, record in zip(folders, records, strict=True) if record is None]
    if silent and len(folders) == 1:
        unknown = f"{folders[0]} does not say what it was trained on: whether it saw the judged slides is unknown."
        return {bag.slide_id: (0,) for bag in bags}, (unknown,), ()
    if silent:
        raise LeakageError(silent[0], "it does not say what it was trained on", "Train it again.")
    digests = functools.cache(_digests)
    known = [record for record in records if record is not None]
    # Groups are found among all slides: a training slide of the same patient counts.
    seen = [{bag.group for bag in study.bags if knows(record, bag, digests)} for record in known]
    chosen = [{*_groups(told, "validate")} - {*_groups(told, "train")} for told in facts]

    def may(bag: Bag, number: int) -> bool:
        return bag.group not in seen[number] or (bag.part == "val" and bag.group in chosen[number])

    judged = {bag.slide_id: tuple(number for number in range(len(folders)) if may(bag, number)) for bag in bags}
    lost = [bag for bag in bags if not judged[bag.slide_id]]
    if lost:
        groups, who = sorted({bag.group for bag in lost}), "the model" if len(folders) == 1 else "every model"
        raise LeakageError(
            folders[0].parent,
            f"{len(lost)} of {len(bags)} judged slides are of {study.group_noun}s that {who} has seen in training "
            f"({_named(groups)})",
            f"Judge slides of other {study.group_noun}s (evaluate.part), or train with folds (train.folds).",
        )
    return judged, (), _note(judged, len(folders), study.group_noun)


def knows(record: PretrainingRecord, bag: Bag, digests: Callable[[Path], frozenset[str]]) -> bool:
    """Whether a record holds the slide, its group, or its file under another name.

    A weakly trained model names its own slides under one name, and what its encoder saw under others, in which `3` may
    be anybody; of a segmenter all names count, whatever its data set was called.
    """
    own = f"{WEAK_DATASET}/" if WEAK_DATASET in record.datasets else ""
    named = {entry.split("/", 1)[-1] for entry in record.items if entry.startswith(own)}
    groups = {entry.split("/", 1)[-1] for entry in record.groups if entry.startswith(own)}
    if bag.slide_id in named or bag.group in groups:
        return True
    return bool(record.digests) and not record.digests.isdisjoint(digests(bag.wsi_path))


def _digests(path: Path) -> frozenset[str]:
    """A file by the digests that models' records are written with; of a large one only that of its ends."""
    found = {ends_digest(path)}
    if path.is_file() and path.stat().st_size <= _DIGESTED_BYTES:
        found.add(hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest())
    return frozenset(found)


def _facts(folder: Path) -> dict[str, Any]:
    return weak_facts(folder) if is_weak(folder) else {}


def _groups(facts: Mapping[str, Any], part: str) -> Sequence[str]:
    groups = facts.get("groups")
    return groups.get(part, ()) if isinstance(groups, Mapping) else ()


def _note(judged: dict[str, tuple[int, ...]], models: int, noun: str) -> tuple[str, ...]:
    if models == 1:
        return ()
    counts = sorted({len(numbers) for numbers in judged.values()})
    how = "the one" if counts == [1] else f"the mean of the {' or '.join(map(str, counts))}"
    return (f"Each slide is judged by {how} of {models} models that have seen nothing of its {noun}",)


def _refuse_other_classes(model: DenseModel, study: WeakStudy) -> None:
    """Classes are matched by name, never by number."""
    if set(model.contract.channels) != set(study.channels):
        raise LamellaError(
            model.name,
            f"its classes are {', '.join(model.contract.channels)}; the study has {', '.join(study.channels)}",
            "Name the classes alike, or leave the model out.",
        )


def _name_of(models: Sequence[DenseModel]) -> str:
    """Models of folds and seeds are named after them, which is not what is judged."""
    name = re.sub(r"[-_ ]?(fold\d+)?[-_ ]?(seed\d+)?$", "", models[0].name) or models[0].name
    return name if len(models) == 1 else f"{name} ({len(models)} models)"


def _is_model(path: Path) -> bool:
    return is_weak(path) or is_segmenter(path)


def _order(path: Path) -> tuple[int, ...]:
    """fold10 behind fold9."""
    return tuple(map(int, re.findall(r"\d+", path.name)))


def _named(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
