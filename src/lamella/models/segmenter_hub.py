"""Segmenters by folder or hub id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamella.models.dense_contract import DenseContract
from lamella.models.model_folder import FolderKind
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.pyramids.building import backbone_from
from lamella.models.segmenter import Segmenter, fresh_head

_KIND = FolderKind("lamella-segmenter-1", "segmenter", ("name", "backbone", "head", "contract", "fingerprint"))
FORMAT = _KIND.format


def is_segmenter(spec: str | Path) -> bool:
    """Whether a local folder is that of a segmenter, whole or not. A hub id is none until it is loaded."""
    return _KIND.is_in(spec)


def save_segmenter(
    model: Segmenter,
    folder: str | Path,
    card: str,
    *,
    record: PretrainingRecord | None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder. The configuration comes last, so a folder that has one is whole.

    Args:
        model: What to save.
        folder: Made if absent; a model in it is replaced.
        card: Markdown of README.md.
        record: What it and its encoder have seen; None if that is not known, and every evaluation then says so.
        facts: Plain values that whoever shows it images must know.

    Raises:
        StorageError: The disk took no more.
    """
    config = {
        "name": model.name,
        **model.description(),
        "contract": model.contract.facts(),
        "fingerprint": model.fingerprint,
        "facts": dict(facts or {}),
    }
    _KIND.write(Path(folder), model.state_dict(), card, record, config)


def load_segmenter(spec: str | Path) -> Segmenter:
    """Load a segmenter, frozen and ready to use.

    Args:
        spec: A folder, or a hub id `owner/name`, which is downloaded once.

    Raises:
        CheckpointError: There is no such model; or its files are missing, truncated or of another network. Every
            tensor that does not fit is named.
    """
    return _KIND.load(spec, _built)


def segmenter_facts(folder: str | Path) -> dict[str, Any]:
    """The facts that a segmenter in a local folder was saved with.

    Raises:
        CheckpointError: It is no segmenter's folder.
    """
    return dict(_KIND.config(Path(folder)).get("facts") or {})


def _built(config: Mapping[str, Any], place: Path) -> Segmenter:
    contract = DenseContract.of_facts(config["contract"])
    backbone = backbone_from(config["backbone"], place)
    head = fresh_head(config["head"], backbone, len(contract.channels))
    return Segmenter(backbone, head, contract, config["name"])
