"""What studies in stages share: the request, the folder, and the claim that keeps outputs and inputs together.

A stage's folder is claimed with the settings that decide its output and with digests of what it reads. A rerun with the
same does nothing; with others it is refused, and says what changed: nothing old is ever taken for new.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from lamella.config import Request, Resolved, Settings
from lamella.engine.rundir import Claim, claim
from lamella.errors import LamellaError

ConfigT = TypeVar("ConfigT", bound=Settings)
StudyT = TypeVar("StudyT")
StageT = TypeVar("StageT", bound="StudyStage[Any, Any]")


@dataclass(frozen=True)
class StudyStage(Generic[ConfigT, StudyT]):
    """One stage at work.

    Attributes:
        request: What the user typed.
        resolved: All settings.
        study: The slides and what is known of them.
        out: Folder of the whole study; each stage has its own in it.
        more: Paths behind the configuration: new slides to predict.
    """

    verb: ClassVar[str]

    request: Request
    resolved: Resolved[ConfigT]
    study: StudyT
    out: Path
    more: tuple[Path, ...] = ()

    @property
    def config(self) -> ConfigT:
        return self.resolved.config

    def folder(self, name: str) -> Path:
        return self.out / name

    def claim(
        self,
        name: str,
        blocks: Iterable[str],
        inputs: Mapping[str, Any],
        *,
        ignore: Iterable[str] = (),
        shared: bool = False,
    ) -> Claim:
        """Take the folder of a stage.

        Args:
            name: Of the folder.
            blocks: Top keys of the settings that decide the output.
            inputs: Digests of what is read.
            ignore: Dotted keys that do not change results.
            shared: Others write there at the same time.

        Raises:
            OutputConflictError: The folder holds the output of other settings or inputs.
        """
        tree, taken = self.resolved.tree(), set(blocks)
        origins = {key: origin for key, origin in self.resolved.origins.items() if key.split(".")[0] in taken}
        return claim(
            self.folder(name),
            {key: value for key, value in tree.items() if key in taken},
            origins,
            verb=f"{self.verb} {name}",
            ignore=tuple(ignore),
            inputs=dict(inputs),
            shared=shared,
        )


@dataclass(frozen=True)
class StudyPlan(Generic[StageT]):
    """The stages of a verb.

    Attributes:
        verb: Its name.
        stages: Name on the command line -> folder in `out`, and what does it; in order.
        alone: Stages that nothing else is made from: forgetting one forgets no other.
    """

    verb: str
    stages: Mapping[str, tuple[str, Callable[[StageT], int]]]
    alone: frozenset[str] = frozenset()

    def asked(self, request: Request) -> tuple[str, Request, tuple[Path, ...]]:
        """The stage (or `run`), the request with its configuration as the run layer, and the paths behind it.

        Raises:
            LamellaError: No stage or no configuration is named.
        """
        names, example = ("run", *self.stages), f"For example: lamella {self.verb} run study.yaml -o out."
        if not request.paths or str(request.paths[0]) not in names:
            given = f"{request.paths[0]} is none" if request.paths else "none is named"
            cause = f"it takes a stage first ({', '.join(names)}); {given}"
            raise LamellaError(f"lamella {self.verb}", cause, example)
        name, rest = str(request.paths[0]), request.paths[1:]
        if request.run is not None:
            return name, request, rest
        if not rest:
            raise LamellaError(f"lamella {self.verb}", "no configuration is given", example)
        return name, replace(request, run=rest[0]), rest[1:]

    def do(self, name: str, stage: StageT) -> int:
        """Do one stage, or all of them in order (`run`); what is done already is left alone.

        Returns:
            The worst exit code of them.
        """
        redo = stage.request.options.get("redo")
        if redo is not None:
            self._forget_from(str(redo), stage)
        worst = 0
        for each in self.stages if name == "run" else (name,):
            print(f"{self.verb}: {each}", flush=True)
            worst = max(worst, self.stages[each][1](stage))
        return worst

    def _forget_from(self, name: str, stage: StageT) -> None:
        """Remove the outputs of a stage and of all that are made from them."""
        if name not in self.stages:
            raise LamellaError("--redo", f"{name} is no stage", f"Stages: {', '.join(self.stages)}.")
        names: Sequence[str] = list(self.stages)
        for later in [name] if name in self.alone else names[names.index(name) :]:
            shutil.rmtree(stage.folder(self.stages[later][0]), ignore_errors=True)
