"""What the stages of `lamella expression` share: the study, the folder, and the claim of each stage's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.config import Request, Resolved
from lamella.data.expression import ExpressionStudy
from lamella.engine.rundir import Claim, claim
from lamella.verbs.expression_stages.settings import ExpressionConfig

# Folders of the stages' outputs.
CHECKED, FEATURES, MODELS, RESULTS, PREDICTIONS = "checked", "features", "models", "results", "predictions"


@dataclass(frozen=True)
class Stage:
    """One stage at work.

    Attributes:
        request: What the user typed.
        resolved: All settings.
        study: The slides.
        out: Folder of the whole study; each stage has its own in it.
        more: Paths behind the configuration: new slides to predict.
    """

    request: Request
    resolved: Resolved[ExpressionConfig]
    study: ExpressionStudy
    out: Path
    more: tuple[Path, ...] = ()

    @property
    def config(self) -> ExpressionConfig:
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
            verb=f"expression {name}",
            ignore=tuple(ignore),
            inputs=dict(inputs),
            shared=shared,
        )
