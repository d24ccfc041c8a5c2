"""What folders of models that make masks have in common: config.json, model.safetensors, README.md, pretraining.json.

pretraining.json names the items that the model was trained on, and those that its encoder had seen before. The
configuration is written last, so a folder that has one is whole. Nothing is ever filled in: a weight that is missing is
an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from lamella.errors import CheckpointError, first_line
from lamella.formats.atomic import whole_file, write_json, write_text
from lamella.models.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from lamella.models.pretraining_record import RECORD_FILE, PretrainingRecord
from lamella.models.weights import download, listed, mismatches, read_weights

_AGAIN = "Export the model again."


class Kept(Protocol):
    """A network that knows its fingerprint."""

    @property
    def fingerprint(self) -> str: ...

    def state_dict(self) -> Any: ...

    def load_state_dict(self, weights: Mapping[str, Any]) -> Any: ...

    def requires_grad_(self, wanted: bool) -> Any: ...


KeptT = TypeVar("KeptT", bound=Kept)
# What building a network of a config.json meets where that describes none.
_MISTOLD = (ValidationError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class FolderKind:
    """One kind of model folder.

    Attributes:
        format: Name and number, such as lamella-segmenter-1: a format whose keys change gets a new number.
        what: What it holds, for messages: `segmenter`.
        keys: That config.json must have, beside `format`.
    """

    format: str
    what: str
    keys: tuple[str, ...]

    def is_in(self, spec: str | Path) -> bool:
        """Whether a local folder is of this kind, whole or not. A hub id is none until it is loaded."""
        try:
            tree = json.loads((Path(spec) / CONFIG_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(tree, dict) and str(tree.get("format", "")).startswith(self.format.rstrip("0123456789"))

    def find(self, spec: str | Path) -> Path:
        """A local folder, or that of a hub id `owner/name`, which is downloaded once.

        Raises:
            CheckpointError: There is neither.
        """
        path = Path(spec)
        if path.is_dir():
            return path
        text = str(spec)
        if path.exists() or isinstance(spec, Path) or text.count("/") != 1 or text[0] in "./~":
            remedy = "Give a model folder, or a hub id: owner/name."
            raise CheckpointError(spec, "there is no such model folder", remedy)
        files = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, RECORD_FILE)
        return download(text, files, "Check the spelling and the network; there is no such folder here either.")

    def write(
        self,
        folder: Path,
        weights: Mapping[str, Tensor],
        card: str,
        record: PretrainingRecord | None,
        config: Mapping[str, Any],
    ) -> None:
        """Write a folder; a model in it is replaced.

        Args:
            folder: Made if absent.
            weights: By name.
            card: Markdown of README.md.
            record: What the model and its encoder have seen; None if that is not known, and every evaluation says so.
            config: What config.json holds beside the format.

        Raises:
            StorageError: The disk took no more.
        """
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        with whole_file(folder / WEIGHTS_FILE) as part:
            save_file(plain, part, metadata={"format": "pt"})
        write_text(folder / CARD_FILE, card)
        if record is None:
            (folder / RECORD_FILE).unlink(missing_ok=True)
        else:
            record.write(folder)
        write_json(folder / CONFIG_FILE, {"format": self.format, **config})

    def config(self, folder: Path) -> dict[str, Any]:
        """What config.json holds.

        Raises:
            CheckpointError: It is missing, damaged, or of another kind or version.
        """
        path = folder / CONFIG_FILE
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            inside = sorted(each.parent.name for each in folder.glob(f"*/{CONFIG_FILE}"))
            remedy = f"Give the folder {folder / inside[0]}." if inside else _AGAIN
            raise CheckpointError(folder, f"it has no {CONFIG_FILE}, so it is no whole model folder", remedy) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(path, f"it cannot be read ({first_line(error)})", _AGAIN) from error
        if not isinstance(config, dict) or config.get("format") != self.format or not config.keys() >= {*self.keys}:
            found = config.get("format", "no format") if isinstance(config, dict) else "no keys"
            cause = f"it is no {self.what} of this version ({found}; expected {self.format})"
            raise CheckpointError(path, cause, _AGAIN)
        return config

    def load(self, spec: str | Path, build: Callable[[dict[str, Any], Path], KeptT]) -> KeptT:
        """A model of this kind, frozen and ready to use.

        Args:
            spec: A folder, or a hub id `owner/name`, which is downloaded once.
            build: Makes the network of what config.json holds; the file's path is for its messages.

        Raises:
            CheckpointError: There is no such model; or its files are missing, truncated or of another network. Every
                tensor that does not fit is named.
        """
        folder = self.find(spec)
        config = self.config(folder)
        try:
            with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced below
                model = build(config, folder / CONFIG_FILE)
        except _MISTOLD as error:
            cause = f"it does not describe a {self.what} ({' '.join(str(error).split())})"
            raise CheckpointError(folder / CONFIG_FILE, cause, _AGAIN) from error
        self._fill(model, folder, config["fingerprint"])
        return model

    def _fill(self, model: Kept, folder: Path, fingerprint: str) -> None:
        """Give a network the weights of its folder, and freeze it.

        Raises:
            CheckpointError: They are missing, truncated or of another network (every tensor that does not fit is
                named), or the folder was changed after it was written.
        """
        weights = read_weights(folder / WEIGHTS_FILE)
        if problems := mismatches(model.state_dict(), weights):
            raise CheckpointError(
                folder / WEIGHTS_FILE,
                f"it holds another network than {CONFIG_FILE} describes: {listed(problems)}",
                f"Put back the {CONFIG_FILE} and {WEIGHTS_FILE} that were saved together.",
            )
        model.load_state_dict(weights)
        model.requires_grad_(False).eval()
        if model.fingerprint != fingerprint:
            raise CheckpointError(
                folder,
                f"its fingerprint is {model.fingerprint}, but {CONFIG_FILE} was saved with {fingerprint}",
                f"{CONFIG_FILE} or {WEIGHTS_FILE} was changed after saving; export the model again.",
            )
