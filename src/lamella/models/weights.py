"""Weight files: where they are, what is in them, and whether it is what was asked for. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lamella.errors import CheckpointError, first_line
from lamella.models.registry import OLD_WEIGHTS_FILE, PARTS_INDEX, WEIGHTS_FILE

# A pickle can run any program when it is read; torch's own message proposes to allow that.
NOT_TENSORS_ALONE = (
    "it is damaged, or holds more than tensors, which is never read",
    "Use the .safetensors file of the same model, or convert it where you trust it.",
)


def download(hub_id: str, files: tuple[str, ...], remedy: str) -> Path:
    """Fetch files of a hub repository once; later calls, and offline ones, find them in the hub's cache.

    Args:
        hub_id: `owner/name`.
        files: Names or patterns.
        remedy: What the user can do if it fails.

    Raises:
        CheckpointError: The hub did not give them.
    """
    from huggingface_hub import snapshot_download  # not needed for local folders, and slow to import
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(files)))
    except (OSError, HFValidationError) as error:  # the hub's own errors are OSErrors
        raise CheckpointError(hub_id, f"the Hugging Face hub did not give it ({first_line(error)})", remedy) from error


def weights_file(folder: Path) -> Path | None:
    """The weights in a folder: safetensors before the old format; None if there are neither."""
    for name in (WEIGHTS_FILE, PARTS_INDEX, OLD_WEIGHTS_FILE):
        if (folder / name).is_file():
            return folder / name
    return None


def read_weights(path: Path, within: str | None = None) -> dict[str, Tensor]:
    """Name -> tensor of a .safetensors file, or of a torch file that holds tensors alone.

    Args:
        path: The file.
        within: Where a torch file has an entry of this name, it is what is read: some authors put the weights there.

    Raises:
        CheckpointError: It is missing, damaged, or holds more than tensors.
    """
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else _read_torch(path)
    except FileNotFoundError as error:
        raise CheckpointError(path, "the weights are missing", "Copy the whole model folder.") from error
    except UnpicklingError as error:
        raise CheckpointError(path, *NOT_TENSORS_ALONE) from error
    except (SafetensorError, OSError, EOFError, RuntimeError, BadZipFile) as error:
        raise CheckpointError(
            path,
            f"it is truncated or damaged ({first_line(error)})",
            "Copy the file again, or export the model again.",
        ) from error
    if within is not None and isinstance(weights, dict) and isinstance(weights.get(within), dict):
        weights = weights[within]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(path, "it does not hold tensors by name", "Give the weights file that its page names.")
    return weights


def mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Every difference in names and dimensions, one phrase each."""
    missing = [f"{name} is missing" for name in expected if name not in found]
    unknown = [f"{name} is unknown" for name in found if name not in expected]
    differing = [
        f"{name} is {size_text(found[name].shape)} instead of {size_text(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    return missing + unknown + differing


def size_text(shape: tuple[int, ...]) -> str:
    """For example `8 x 48`."""
    return " x ".join(str(side) for side in shape) or "a scalar"


def listed(problems: list[str]) -> str:
    """The first eight problems: a network of another size differs in hundreds of tensors."""
    shown = "; ".join(problems[:8])
    return shown if len(problems) <= 8 else f"{shown}; and {len(problems) - 8} more"


def _read_torch(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)
