"""Expression models by folder or hub id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamella.models.expression.contract import ViewShape
from lamella.models.expression.expectation import Needs
from lamella.models.expression.model import ExpressionModel
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.expression.settings import ExpressionModelSettings
from lamella.models.model_folder import FolderKind
from lamella.models.pretraining_record import PretrainingRecord, pretraining_record

_KEYS = ("name", "genes", "network", "target", "kind", "features", "loss", "fingerprint")
_KIND = FolderKind("lamella-expression-1", "model of expression", _KEYS)
FORMAT = _KIND.format


def is_expression(spec: str | Path) -> bool:
    """Whether a local folder is that of an expression model, whole or not."""
    return _KIND.is_in(spec)


def save_expression(
    model: ExpressionModel,
    folder: str | Path,
    card: str,
    *,
    record: PretrainingRecord | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder. The configuration comes last, so a folder that has one is whole.

    Args:
        model: What to save.
        folder: Made if absent; a model in it is replaced.
        card: Markdown of README.md.
        record: What it and its encoder have seen; None if that is not known.
        facts: Plain values beside the model's own facts.

    Raises:
        StorageError: The disk took no more.
    """
    config = {
        "name": model.name,
        "genes": list(model.genes),
        **model.description(),
        "units": model.units,
        "fingerprint": model.fingerprint,
        "facts": {**model.facts, **(facts or {})},
    }
    _KIND.write(Path(folder), model.state_dict(), card, record, config)


def load_expression(spec: str | Path) -> ExpressionModel:
    """Load an expression model, frozen and ready to use.

    Args:
        spec: A folder, or a hub id `owner/name`, which is downloaded once.

    Raises:
        CheckpointError: There is no such model; or its files are missing, truncated or of another network. Every
            tensor that does not fit is named.
    """
    return _KIND.load(spec, _built)


def expression_facts(spec: str | Path) -> dict[str, Any]:
    """What config.json of a folder or hub id says, weights unread.

    Raises:
        CheckpointError: It is no expression model.
    """
    return _KIND.config(_KIND.find(spec))


def expression_record(spec: str | Path) -> PretrainingRecord | None:
    """What an expression model and its encoder have seen; None if that is not known.

    Raises:
        CheckpointError: There is no such model, or its record cannot be read.
    """
    return pretraining_record(_KIND.find(spec))


def _built(config: Mapping[str, Any], _place: Path) -> ExpressionModel:
    told, genes = config["network"], tuple(config["genes"])
    network = ExpressionNetwork(
        ExpressionModelSettings.model_validate(told["settings"]),
        tuple(ViewShape(**view) for view in told["views"]),
        told["bins"],
        len(genes),
        Needs(**told["needs"]),
        told["rule"],
    )
    return ExpressionModel(
        network,
        genes,
        target=config["target"],
        features=config["features"],
        loss=config["loss"],
        kind=config["kind"],
        facts=config.get("facts"),
        name=config["name"],
    )


__all__ = [
    "FORMAT",
    "expression_facts",
    "expression_record",
    "is_expression",
    "load_expression",
    "save_expression",
]
