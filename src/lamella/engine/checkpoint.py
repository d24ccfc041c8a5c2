"""Checkpoints: whole or absent, verified before use, and never traded for a fresh start.

A checkpoint is two files: `step_00000300.json` (a SHA-256) and `step_00000300.pt` (weights, optimiser, step), which
appears last. So a write that is cut short leaves no .pt file, and a .pt file alone was put there by someone else.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, cast

import torch
from pydantic import Field
from torch import nn

from lamella.config import Settings
from lamella.errors import CheckpointError
from lamella.formats.atomic import whole_file, write_json

_SHOWN_DIFFERENCES = 5  # enough to tell another size from another method
_READ_BYTES = 1 << 24  # 16 MiB at a time while hashing: bounded memory, few calls


class CheckpointSettings(Settings):
    """When checkpoints are written and which are kept."""

    every_images: Annotated[int, Field(ge=1)] | None = None
    """A checkpoint whenever this many images were seen; null leaves it to the clock."""
    every_minutes: Annotated[float, Field(gt=0)] = 10.0
    """And whenever this long has passed: the most that a crash can cost."""
    keep_last: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints kept: the last, and one in case the disk spoils it."""
    keep_every_images: Annotated[int, Field(ge=1)] | None = None
    """The first checkpoint at or after each multiple of this many images is kept for good."""


@dataclass(frozen=True)
class Progress:
    """How far a checkpoint is: steps done and images seen.

    `validated` is what the rule of early stopping knows (see `EarlyStopping.state`); empty in a run without one.
    """

    step: int
    images_seen: int
    validated: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best_step(self) -> int | None:
        """Steps done at the best validation so far."""
        best = self.validated.get("best_step")
        return None if best is None or best < 0 else int(best)


def steps_done(folder: Path) -> int:
    """The step at which a run with this folder of checkpoints would go on."""
    return max((int(path.stem.removeprefix("step_")) for path in _complete(folder)), default=0)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Made at the first save.
        settings: When to save and what to keep.
        settings_hash: Of the run's settings; a checkpoint of other settings is refused.
    """

    def __init__(self, folder: Path, settings: CheckpointSettings, settings_hash: str) -> None:
        self.folder = folder
        self._settings = settings
        self._hash = settings_hash
        self._saved_at = time.monotonic()

    def due_by_clock(self) -> bool:
        """Whether every_minutes have passed since the last save."""
        return time.monotonic() - self._saved_at > 60 * self._settings.every_minutes

    def latest(self) -> Path | None:
        """The newest checkpoint whose write was completed."""
        return max(_complete(self.folder), default=None)

    def save(self, method: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
        """Write a checkpoint and drop those that need not be kept; a failed write leaves the earlier ones.

        Raises:
            StorageError: The disk took no more.
        """
        path = self.folder / f"step_{progress.step:08d}.pt"
        state = {
            "method": method.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": progress.step,
            "images_seen": progress.images_seen,
            "settings_hash": self._hash,
        }
        if progress.validated:
            state["validated"] = dict(progress.validated)
        with whole_file(path) as part:
            digest = _write_state(state, part)
            seal = {"sha256": digest, "step": progress.step, "images_seen": progress.images_seen}
            if progress.best_step is not None:
                seal["best_step"] = progress.best_step
            write_json(path.with_suffix(".json"), seal)
        self._retain()
        self._saved_at = time.monotonic()
        return path

    def resume(self, method: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Load the latest checkpoint; where there has never been one, the run starts at step 0.

        Raises:
            CheckpointError: The latest checkpoint is damaged, of another architecture or of other settings, or the
                checkpoints' checksums are gone.
        """
        path = self.latest()
        if path is None:
            self._refuse_unsealed()
            return Progress(0, 0)
        state = _read_state(path)
        _refuse_other_architecture(path, state["method"], method.state_dict())
        if state["settings_hash"] != self._hash:
            raise CheckpointError(
                path, "it belongs to a run with other settings", "Remove it, or give another folder with -o."
            )
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(state["step"], state["images_seen"], state.get("validated", {}))

    def at(self, step: int) -> Path:
        """The checkpoint after `step` steps.

        Raises:
            CheckpointError: It is not there any more.
        """
        path = self.folder / f"step_{step:08d}.pt"
        if path not in set(_complete(self.folder)):
            raise CheckpointError(path, "the best checkpoint of the run is gone", "Train anew, in another folder.")
        return path

    def restore(self, method: nn.Module, step: int) -> None:
        """Load the weights alone, of the checkpoint after `step` steps.

        Raises:
            CheckpointError: It is gone or damaged, or of another architecture.
        """
        path = self.at(step)
        state = _read_state(path)
        _refuse_other_architecture(path, state["method"], method.state_dict())
        method.load_state_dict(state["method"])

    def _refuse_unsealed(self) -> None:
        """A checkpoint that cannot be verified must not become a fresh start in silence."""
        for path in sorted(self.folder.glob("step_*.pt")):
            raise CheckpointError(
                path,
                f"its checksum {path.with_suffix('.json').name} is missing, so it cannot be verified",
                "Copy that file too, or delete the checkpoint to start anew.",
            )

    def _retain(self) -> None:
        """Delete all but the newest, the milestones, and what any of the newest calls the best."""
        complete = sorted(_complete(self.folder))
        newest = complete[-self._settings.keep_last :]
        best = {self.folder / f"step_{step:08d}.pt" for step in map(_best_step, newest) if step is not None}
        keep = {*newest, *best, *self._milestones(complete)}
        for path in set(self.folder.glob("step_*.pt")) - keep:
            path.with_suffix(".json").unlink(missing_ok=True)  # the seal first: what is left is known as incomplete
            path.unlink(missing_ok=True)

    def _milestones(self, complete: list[Path]) -> Iterator[Path]:
        every, reached = self._settings.keep_every_images, 0
        for path in complete if every else ():
            images = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["images_seen"]
            if images // every > reached:
                reached = images // every
                yield path


def _best_step(path: Path) -> int | None:
    """The best step that a checkpoint's seal names; the seal of a checkpoint kept for long may be unreadable."""
    try:
        seal: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return seal.get("best_step")
    except ValueError:
        return None  # damaged: `resume` says so, and nothing is deleted that another checkpoint still names


def _complete(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("step_*.pt") if path.with_suffix(".json").exists())


class _HashedFile(io.RawIOBase):
    """Passes bytes on to a file, hashing them, and remembers why the file refused them.

    torch.save turns the operating system's error into a RuntimeError without its errno; here the cause survives.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()
        self.fault: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.fault = error
            raise
        self.digest.update(data)
        return written


def _write_state(state: Mapping[str, Any], part: Path) -> str:
    """Write the state to `part`; returns its SHA-256."""
    with open(part, "wb") as file:
        hashed = _HashedFile(file)
        try:
            torch.save(state, cast(IO[bytes], hashed))
            file.flush()
        except RuntimeError:
            if hashed.fault is not None:
                raise hashed.fault from None
            raise
    return hashed.digest.hexdigest()


def _read_state(path: Path) -> dict[str, Any]:
    remedy = f"Delete {path.name} and run the same command: it resumes from the checkpoint before it."
    try:
        expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
    except (json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(path, "its .json file is damaged", remedy) from error
    if _digest(path) != expected:
        raise CheckpointError(
            path, f"it is truncated or damaged ({path.stat().st_size} bytes, its checksum differs)", remedy
        )
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _refuse_other_architecture(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    def shape(state: Mapping[str, Any], key: str) -> str:
        return "x".join(map(str, state[key].shape)) or "scalar" if key in state else "absent"

    keys = dict.fromkeys([*own, *saved])
    differences = [
        f"  {key}: {shape(saved, key)} in the checkpoint, {shape(own, key)} in the model"
        for key in keys
        if shape(saved, key) != shape(own, key)
    ]
    if differences:
        shown = differences[:_SHOWN_DIFFERENCES]
        if len(differences) > len(shown):
            shown.append(f"  and {len(differences) - len(shown)} more")
        lines = "\n".join(shown)
        raise CheckpointError(
            path,
            f"it is of another architecture:\n{lines}\nNothing was loaded",
            "Set the method as it was, or give another folder with -o.",
        )
