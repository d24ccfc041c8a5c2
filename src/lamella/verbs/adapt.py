"""`lamella adapt DATA -o runs/glands method.name=automatic`: train on masks.

automatic: a model that labels every pixel by itself. prompted: a promptable model (SAM 2), fine-tuned with simulated
clicks and boxes. The two answer different questions and are never judged in one table. DATA may be a folder of
annotations that people drew in `lamella view`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamella.config import Request, Settings
from lamella.errors import ConfigError
from lamella.verbs.adapting.automatic import AutomaticConfig, run_automatic
from lamella.verbs.adapting.prompted import run_prompted
from lamella.verbs.adapting.prompted_settings import PromptedConfig
from lamella.verbs.annotated.roads import adaptable

# method.name -> its settings; `lamella config adapt` prints them all.
CONFIGS: dict[str, type[Settings]] = {"automatic": AutomaticConfig, "prompted": PromptedConfig}
_RUNS: dict[str, Callable[[Request, Any], int]] = {"automatic": run_automatic, "prompted": run_prompted}


def run(request: Request) -> int:
    """Train until the budget is spent; a rerun goes on from the newest checkpoint.

    Raises:
        ConfigError: No method is named, or there is no such method.
    """
    name = request.chosen("method.name")
    if name not in CONFIGS:
        given = "" if name is None else f" {name!r} is none of them;"
        raise ConfigError([f"method.name:{given} say one of {', '.join(CONFIGS)}"], "adapt")
    schema: type[Any] = CONFIGS[str(name)]
    with adaptable(request, request.resolve(schema).config.data.mpp) as known:
        return _RUNS[str(name)](known, known.resolve(schema))
