"""Image prototypes: typical features of each class, to which pixels are compared.

A folder of prototypes: prototypes.safetensors (`features`) and prototypes.json (`class_order`, `k_list`, `cumsum_k`,
the encoder, facts), which is written last: a folder that has one is whole.

Shapes: K prototypes of all classes, D numbers each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import whole_file, write_json
from lamella.formats.digests import file_digest
from lamella.models.weights import read_weights

PROTOTYPES_FILE, FEATURES_FILE = "prototypes.json", "prototypes.safetensors"
_FORMAT = "lamella-prototypes-1"
_AGAIN = "Run `lamella weak prototypes` again; it makes them from the features."
# What an imported file says of its encoder: nothing.
UNKNOWN = "unknown"
# Only tensors, numbers, texts and lists of these are read from a torch file: a pickle can run any program.
_CONVERT = (
    "Where you trust it, load it once as p and save its parts: torch.save({'features': torch.as_tensor(p['features']), "
    "'k_list': [int(k) for k in p['k_list']], 'nk': int(p.get('nk', 1)), 'class_order': list(p['class_order'])}, "
    "'prototypes.pt')."
)
# Rounding of a division by the length, and of float16 in files of others, is far below this.
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of every class, class by class.

    Attributes:
        features_KD: float32, of unit length (they are compared by their angle).
        classes: Names, in the order of the channels: the classes, then the background where it has prototypes.
        k_list: How many prototypes each class has; they add up to K.
        encoder: Name of the encoder that made the features, as `load_encoder` takes it.
        fingerprint: Of that encoder.
        facts: Plain values for the reader: sizes of clusters, how exemplars were chosen.

    Raises:
        ValueError: They do not fit together, or a prototype is not finite or not of unit length.
    """

    features_KD: Tensor
    classes: tuple[str, ...]
    k_list: tuple[int, ...]
    encoder: str
    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        features_KD = self.features_KD
        if features_KD.ndim != 2 or features_KD.dtype != torch.float32:
            raise ValueError(f"features must be float32 (K, D), not {features_KD.dtype} {tuple(features_KD.shape)}")
        if len(self.classes) != len(self.k_list) or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"{len(self.k_list)} counts for the classes {', '.join(self.classes)}")
        if min(self.k_list, default=0) < 1 or sum(self.k_list) != len(features_KD):
            raise ValueError(f"{len(features_KD)} prototypes do not divide into {list(self.k_list)}")
        lengths_K = features_KD.norm(dim=1)
        if not bool(((lengths_K - 1).abs() <= _UNIT_TOLERANCE).all()):  # NaN is refused too
            raise ValueError("a prototype is not finite or not of unit length")

    @property
    def cumsum_k(self) -> tuple[int, ...]:
        """Where each class begins, and K: (0, 3, 6) for two classes of three."""
        return (0, *(int(end) for end in np.cumsum(self.k_list)))

    @property
    def class_of_K(self) -> np.ndarray:
        """(K,) the number of each prototype's class."""
        return np.repeat(np.arange(len(self.k_list)), self.k_list)

    @property
    def dim(self) -> int:
        """D: as wide as the encoder's features, whatever that is."""
        return int(self.features_KD.shape[1])

    def ordered(self, names: Sequence[str]) -> Prototypes:
        """The same with the classes in another order."""
        of_class = {name: (self.cumsum_k[at], self.cumsum_k[at + 1]) for at, name in enumerate(self.classes)}
        spans = [of_class[name] for name in names]
        features_KD = torch.cat([self.features_KD[start:end] for start, end in spans])
        return replace(
            self, features_KD=features_KD, classes=tuple(names), k_list=tuple(end - start for start, end in spans)
        )


def unit_length(features_ND: Tensor) -> Tensor:
    """(N, D) float32 of unit length; computed in 64 bits, so that neither huge nor tiny features overflow.

    Raises:
        ValueError: A feature is not finite, or zero: it has no direction.
    """
    wide_ND = features_ND.detach().cpu().double()
    if not bool(torch.isfinite(wide_ND).all()):
        raise ValueError("a feature is not finite")
    if bool((wide_ND == 0).all(dim=1).any()):
        raise ValueError("a feature is zero everywhere and has no direction")
    return normalize(wide_ND, dim=1, eps=math.ulp(0.0)).float()


def save_prototypes(folder: Path | str, prototypes: Prototypes) -> None:
    """Write a folder of prototypes; those in it are replaced.

    Raises:
        StorageError: The disk refused the write.
    """
    folder = Path(folder)
    (folder / PROTOTYPES_FILE).unlink(missing_ok=True)
    with whole_file(folder / FEATURES_FILE) as part:
        save_file({"features": prototypes.features_KD.detach().cpu().contiguous()}, part, metadata={"format": "pt"})
    write_json(
        folder / PROTOTYPES_FILE,
        {
            "format": _FORMAT,
            "features": FEATURES_FILE,
            "features_digest": file_digest(folder / FEATURES_FILE),
            "dim": prototypes.dim,
            "class_order": list(prototypes.classes),
            "k_list": list(prototypes.k_list),
            "cumsum_k": list(prototypes.cumsum_k),
            "encoder": prototypes.encoder,
            "fingerprint": prototypes.fingerprint,
            "facts": prototypes.facts,
        },
    )


def load_prototypes(folder: Path | str) -> Prototypes:
    """Read a folder of prototypes.

    Raises:
        CheckpointError: It is missing, damaged, or its two files were not written together.
    """
    folder = Path(folder)
    path = folder / PROTOTYPES_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(folder, f"it holds no prototypes ({PROTOTYPES_FILE})", _AGAIN) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", _AGAIN) from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        found = record.get("format", "no format") if isinstance(record, dict) else "no keys"
        raise CheckpointError(path, f"it holds no prototypes of this version ({found}; expected {_FORMAT})", _AGAIN)
    features = read_weights(folder / FEATURES_FILE).get("features")
    if features is None or file_digest(folder / FEATURES_FILE) != record.get("features_digest"):
        raise CheckpointError(
            folder, f"its {FEATURES_FILE} and {PROTOTYPES_FILE} were not written together", f"Copy both, or: {_AGAIN}"
        )
    try:
        return Prototypes(
            features,
            tuple(record["class_order"]),
            tuple(record["k_list"]),
            record["encoder"],
            record["fingerprint"],
            dict(record["facts"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(path, f"it describes no prototypes ({first_line(error)})", _AGAIN) from error


def random_prototypes(classes: Sequence[str], k_list: Sequence[int], dim: int, seed: int) -> Prototypes:
    """Directions drawn from this seed alone, of no encoder: for tests, and for the control that they mean nothing."""
    draws = torch.Generator().manual_seed(seed)
    features_KD = unit_length(torch.randn(sum(k_list), dim, generator=draws))
    return Prototypes(features_KD, tuple(classes), tuple(k_list), "random", "random", {"random_seed": seed})


def read_torch_file(path: Path | str) -> dict[str, Any]:
    """What `torch.save` kept: tensors, numbers, texts, and lists and dictionaries of these.

    Raises:
        CheckpointError: It is missing, no dictionary, or holds anything else; nothing of that kind is unpickled.
    """
    if not Path(path).is_file():
        raise CheckpointError(path, "the file does not exist", "Correct the path.")
    if not is_zipfile(path):  # torch.save writes an archive; what pickle.dump wrote is not even opened
        raise CheckpointError(path, "it is a pickle, or damaged; pickles are never read", _CONVERT)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, OSError, EOFError, ValueError, AttributeError) as error:
        raise CheckpointError(
            path, "it is damaged, or holds more than tensors, which is never read", _CONVERT
        ) from error
    if not isinstance(held, dict):
        raise CheckpointError(path, "it holds no values by name", _CONVERT)
    return held


def import_torch_prototypes(path: Path | str) -> Prototypes:
    """Prototypes that the source of the method wrote, saved by `torch.save`.

    Keys: `features` (K, D) or, with `nk` representatives of each cluster, (K * nk, D); `k_list`, `class_order`, and
    `cumsum_k`, which must fit. What encoder made them is not in the file.

    Raises:
        CheckpointError: It is missing, a pickle of more than tensors and plain values, or its parts do not fit.
    """
    held = read_torch_file(path)
    needed = ("features", "k_list", "class_order")
    missing = [key for key in needed if key not in held]
    if missing:
        raise CheckpointError(path, f"it has no {', '.join(missing)}", f"It must hold {', '.join(needed)}.")
    try:
        representatives = int(held.get("nk", 1))
        k_list = tuple(int(k) * representatives for k in held["k_list"])
        features_KD = unit_length(held["features"].reshape(-1, held["features"].shape[-1]))
        facts = {"imported": True, "representatives": representatives if "nk" in held else 0}
        found = Prototypes(features_KD, tuple(map(str, held["class_order"])), k_list, UNKNOWN, UNKNOWN, facts)
        stated = [int(end) * representatives for end in held.get("cumsum_k", [])]
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(path, f"its parts do not fit together ({first_line(error)})", "Make it again.") from error
    if stated and stated != list(found.cumsum_k):
        raise CheckpointError(path, f"its cumsum_k {stated} is not that of k_list {list(k_list)}", "Make it again.")
    return found
