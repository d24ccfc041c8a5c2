"""What a run writes while it trains: steps.csv, log.jsonl, monitors.jsonl, TensorBoard and, as an extra, W&B.

After a resume the files hold what an undisturbed run would have written (times aside): rows after the checkpoint's step
are dropped, since those steps are taken again.
"""

from __future__ import annotations

import csv
import io
import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

from pydantic import Field

from lamella.config import Settings
from lamella.errors import MissingExtraError, storage_faults
from lamella.formats.atomic import write_text


class LogSettings(Settings):
    """What is logged beside steps.csv and log.jsonl, which are always written."""

    monitor_every_images: Annotated[int, Field(ge=1)] = 5_000
    """Effective rank, spread and losses on fixed views, whenever this many images were seen."""
    monitor_images: Annotated[int, Field(ge=2)] = 64
    """How many fixed views; they are held in memory, and bound the effective rank."""
    tensorboard: bool = True
    """Write event files to <run>/tensorboard."""
    wandb_project: str | None = None
    """Also log to this project on Weights & Biases (`pip install 'lamella[wandb]'`)."""


@dataclass(frozen=True)
class StepRow:
    """One row of steps.csv: the source project's columns, and images_seen. Steps and epochs count from 1."""

    epoch: int
    iteration: int
    loss: float
    context_keep_tokens: float
    target_predict_tokens: float
    iteration_time_ms: float
    learning_rate: float
    weight_decay: float
    images_seen: int


STEP_COLUMNS = tuple(field.name for field in fields(StepRow))


class RunLog:
    """Writes the logs of one run. Rows reach the disk one by one, so a killed run keeps them.

    Args:
        folder: The run folder.
        settings: What is written beside the files.
        step: Steps that the resumed checkpoint holds; later rows are dropped.

    Raises:
        MissingExtraError: W&B is asked for and not installed.
        StorageError: The disk took no more.
    """

    def __init__(self, folder: Path, settings: LogSettings, step: int = 0) -> None:
        self._steps, self._events, self._monitors = (
            folder / name for name in ("steps.csv", "log.jsonl", "monitors.jsonl")
        )
        self._sinks: list[_Sink] = []
        if settings.wandb_project is not None:
            self._sinks.append(_WandbSink(folder, settings.wandb_project))
        folder.mkdir(parents=True, exist_ok=True)
        _keep_rows(self._steps, lambda line: line == _csv_line(STEP_COLUMNS) or int(line.split(",")[1]) <= step)
        for path in (self._events, self._monitors):
            # A run that starts over takes the monitors of step 0 again, too.
            _keep_rows(path, lambda line: step > 0 and json.loads(line)["step"] <= step)
        if not self._steps.exists():
            _append(self._steps, _csv_line(STEP_COLUMNS))
        if settings.tensorboard:
            self._sinks.append(_TensorBoardSink(folder / "tensorboard", step))

    def step(self, row: StepRow, others: Mapping[str, float]) -> None:
        """Log one optimiser step; `others` go to log.jsonl and the boards, not into steps.csv."""
        values = asdict(row)
        _append(self._steps, _csv_line(values.values()))
        _append(self._events, _json_line({"step": row.iteration, **values, **others}))
        self._show({key: value for key, value in {**values, **others}.items() if key != "iteration"}, row.iteration)

    def monitors(self, step: int, images_seen: int, values: Mapping[str, Any]) -> None:
        """Log the monitors after `step` steps."""
        _append(self._monitors, _json_line({"step": step, "images_seen": images_seen, **values}))
        self._show({f"monitor/{key}": value for key, value in values.items()}, step)

    def _show(self, values: Mapping[str, Any], step: int) -> None:
        """Send the finite numbers to the boards; the files keep the rest."""
        finite = {key: float(v) for key, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        for sink in self._sinks:
            sink.write(finite, step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in self._sinks:
            sink.close()


def read_steps(folder: Path) -> list[StepRow]:
    """The rows of a run's steps.csv; none if there is no such file."""
    path = folder / "steps.csv"
    if not path.exists():
        return []
    whole = {"epoch", "iteration", "images_seen"}
    with open(path, newline="", encoding="utf-8") as file:
        values: list[dict[str, Any]] = [
            {key: int(text) if key in whole else float(text) for key, text in row.items()}
            for row in csv.DictReader(file)
        ]
    return [StepRow(**row) for row in values]


def read_monitors(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's monitors.jsonl, oldest first; none if there is no such file."""
    path = folder / "monitors.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class _Sink:
    """Takes numbers for a board."""

    def write(self, values: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _TensorBoardSink(_Sink):
    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, so only where it is wanted

        # purge_step makes TensorBoard forget what a killed run wrote after its checkpoint.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandbSink(_Sink):
    """One W&B run per run folder: its id is kept in wandb_id.txt, so that a resume continues it."""

    def __init__(self, folder: Path, project: str) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("wandb", "wandb") from None
        id_file = folder / "wandb_id.txt"
        if not id_file.exists():
            write_text(id_file, uuid.uuid4().hex[:12])
        self._run: Any = wandb.init(project=project, id=id_file.read_text(), resume="allow", dir=str(folder))

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _keep_rows(path: Path, keep: Callable[[str], bool]) -> None:
    """Drop the rows that a resume takes again, and a last row that a kill cut short."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and keep(line)]
    if kept != lines:
        write_text(path, "".join(kept))


def _append(path: Path, line: str) -> None:
    with storage_faults(path), open(path, "a", encoding="utf-8", newline="") as file:
        file.write(line)


def _csv_line(values: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _json_line(record: Mapping[str, Any]) -> str:
    """One line of JSON. JSON knows no NaN; a monitor that is not a number becomes null and stays visible as such."""
    plain = {key: value if _is_json(value) else None for key, value in record.items()}
    return json.dumps(plain, allow_nan=False) + "\n"


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
