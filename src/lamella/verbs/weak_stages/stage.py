"""What the stages of `lamella weak` share: the study, the folder, and the claim that keeps outputs and inputs together.

A stage's folder is claimed with the settings that decide its output and with digests of what it reads. A rerun with the
same does nothing; with others it is refused, and says what changed: nothing old is ever taken for new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.config import Request, Resolved
from lamella.data.bags import WeakStudy
from lamella.engine.rundir import Claim, claim
from lamella.verbs.weak_stages.settings import WeakConfig

# Folders of the stages' outputs, as in the source's data flow.
COORDINATES, FEATURES, TRAINING, RESULTS, PREDICTIONS = (
    "prototype_coordinates",
    "image_features",
    "training",
    "results",
    "predictions",
)
PROTOTYPES = "prototypes"


@dataclass(frozen=True)
class Stage:
    """One stage at work.

    Attributes:
        request: What the user typed.
        resolved: All settings.
        study: The bags.
        out: Folder of the whole study; each stage has its own in it.
        more: Paths behind the configuration: new slides of stage 5.
    """

    request: Request
    resolved: Resolved[WeakConfig]
    study: WeakStudy
    out: Path
    more: tuple[Path, ...] = ()

    @property
    def config(self) -> WeakConfig:
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
            verb=f"weak {name}",
            ignore=tuple(ignore),
            inputs=dict(inputs),
            shared=shared,
        )
