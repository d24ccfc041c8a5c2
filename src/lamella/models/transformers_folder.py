"""Networks of transformers from a local folder: of the class that is asked for, with every weight from the folder.

Only classes of the installed library are built; code that a model folder brings along is never run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled
from typing import Any

import torch
from safetensors import SafetensorError

from lamella.errors import CheckpointError, first_line
from lamella.models.registry import CONFIG_FILE
from lamella.models.weights import NOT_TENSORS_ALONE, listed, size_text, weights_file

# Keys of a configuration that decide nothing: the same weights saved by another version have the same fingerprint.
SAYS_HOW_SAVED = {"_name_or_path", "transformers_version", "architectures", "dtype", "id2label", "label2id"}
_LOAD_FAULTS = (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError)


def model_type_of(folder: Path) -> str:
    """What a folder's config.json says the model is; empty where it says nothing.

    Raises:
        CheckpointError: There is no config.json, or it cannot be read.
    """
    path = folder / CONFIG_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            folder, f"it has no {CONFIG_FILE}, so it is no model of transformers", "Give the whole downloaded folder."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", "Download it again.") from error
    return str(tree.get("model_type", "")) if isinstance(tree, dict) else ""


def network_from(
    folder: Path,
    network_class: Any,
    *,
    model_types: tuple[str, ...],
    unused: tuple[str, ...] = (),
    replaced: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    """Build a class of transformers with the weights of a folder, in 32 bits.

    Args:
        folder: With config.json and weights.
        network_class: A class of transformers.
        model_types: What config.json may say.
        unused: Weights that the file may hold beside the network's, as regular expressions from the start.
        replaced: Weights that the caller draws afresh, which may be missing or of another size.
        **options: Of `from_pretrained`, such as another configuration.

    Raises:
        CheckpointError: config.json or the weights are missing, damaged, or another network's. No weight is left
            random but those that are `replaced`.
    """
    found = model_type_of(folder)
    if found not in model_types:
        raise CheckpointError(
            folder / CONFIG_FILE,
            f"it is a model of type {found or 'unknown'}, and {' or '.join(model_types)} is needed",
            "Give another model folder.",
        )
    network, report = loaded_network(folder, network_class, options)
    problems = list(_differences(report, unused, replaced))
    if problems:
        raise CheckpointError(
            folder,
            f"its weights are not those that {CONFIG_FILE} describes: {listed(problems)}",
            "Download the folder again; a weight that is missing is never left random.",
        )
    return network


def architecture_of(network: Any) -> dict[str, Any]:
    """A network's configuration without what says how it was saved, as JSON values."""
    config = json.loads(network.config.to_json_string(use_diff=False))
    return {key: value for key, value in config.items() if key not in SAYS_HOW_SAVED}


def _differences(report: Mapping[str, Any], unused: tuple[str, ...], replaced: tuple[str, ...]) -> Iterator[str]:
    def among(name: str, patterns: tuple[str, ...]) -> bool:
        return any(re.match(pattern, name) for pattern in patterns)

    for name in sorted(report["missing_keys"]):
        if not among(name, replaced):
            yield f"{name} is missing"
    for name in sorted(report["unexpected_keys"]):
        if not among(name, unused):
            yield f"{name} is unknown"
    for item in sorted(report["mismatched_keys"]):
        name, sizes = (item, "of another size") if isinstance(item, str) else (item[0], _sizes(*item[1:]))
        if not among(name, replaced):
            yield f"{name} is {sizes}"
    yield from report["error_msgs"]


def _sizes(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    return f"{size_text(found)} instead of {size_text(expected)}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars and reports: what is wrong is raised, as one error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def loaded_network(folder: Path, network_class: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """A network of transformers with a folder's weights, and the library's report of what did not fit.

    Raises:
        CheckpointError: There are no weights, or they cannot be read, or are more than tensors.
    """
    if weights_file(folder) is None:
        raise CheckpointError(folder, "it holds no weights (model.safetensors)", "Download the whole folder again.")
    try:
        with quiet():
            network, report = network_class.from_pretrained(
                str(folder),
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                ignore_mismatched_sizes=True,  # so that all of them are listed; then refused
                output_loading_info=True,
                **options,
            )
    except UnpicklingError as error:
        raise CheckpointError(folder, *NOT_TENSORS_ALONE) from error
    except _LOAD_FAULTS as error:
        raise CheckpointError(
            folder, f"its weights cannot be read ({first_line(error)})", "Download the whole folder again."
        ) from error
    return network, report
