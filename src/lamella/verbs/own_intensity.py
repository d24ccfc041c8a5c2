"""The intensity rule that an encoder of images was pretrained with: the default wherever it is shown images again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from lamella.config import DEFAULT_ORIGIN, Resolved, Settings
from lamella.errors import CheckpointError
from lamella.imaging.intensity import IntensitySettings
from lamella.models.hub import CONFIG_FILE, model_facts

_FACT, _SETTING = "intensity", "view.intensity"
ConfigT = TypeVar("ConfigT", bound=Settings)


def intensity_facts(settings: IntensitySettings) -> dict[str, Any]:
    """What `save_pretrained` stores of it."""
    return {_FACT: settings.model_dump(mode="json")}


def with_own_intensity(resolved: Resolved[ConfigT], model: str) -> Resolved[ConfigT]:
    """Settings whose `view.intensity` is the model's own where the user gave none; prints that it is.

    Args:
        resolved: With a `view`.
        model: Folder or name of the model.

    Raises:
        CheckpointError: The folder's rule is none of this version.
    """
    mine = [key for key in resolved.origins if key == _SETTING or key.startswith(f"{_SETTING}.")]
    if any(resolved.origins[key] != DEFAULT_ORIGIN for key in mine):
        return resolved
    stated = model_facts(model).get(_FACT)
    if stated is None:
        return resolved
    try:
        own = IntensitySettings.model_validate(stated)
    except ValidationError as error:
        raise CheckpointError(
            model,
            f"the intensity rule in its {CONFIG_FILE} is not one of this version ({' '.join(str(error).split())})",
            "Say the rule with view.intensity.",
        ) from error
    view = resolved.config.view  # type: ignore[attr-defined]
    if own == view.intensity:
        return resolved
    said = ", ".join(f"{key}={value}" for key, value in own.model_dump(mode="json", exclude_defaults=True).items())
    print(f"intensity as in the model's pretraining: {said} (view.intensity sets another)")
    config = resolved.config.model_copy(update={"view": view.model_copy(update={"intensity": own})})
    return replace(
        resolved, config=config, origins=resolved.origins | dict.fromkeys(mine, str(Path(model) / CONFIG_FILE))
    )
