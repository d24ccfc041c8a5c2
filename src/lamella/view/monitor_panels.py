"""Which curves of a run belong into one panel, and what they are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """Monitors that belong together.

    Attributes:
        title: Above the panel.
        holds: Whether a monitor of this name belongs here.
        top: Upper end of the axis, where a scale has one.
    """

    title: str
    holds: Callable[[str], bool]
    top: float | None = None


HELD_LOSS = "loss on held views"
# RankMe alone does not see a rank of one beside a large mean, so the centred one is shown where there is one.
PANELS = (
    Panel(HELD_LOSS, lambda name: name.startswith("loss")),
    Panel("effective rank of the features (RankMe)", lambda name: "rankme" in name),
    Panel("spread over root mean square of the features", lambda name: "std_relative" in name),
    Panel("decay of the spectrum (alpha-ReQ)", lambda name: "alpha_req" in name),
    Panel("SIGReg excess, embeddings it regularises", lambda name: name == "regularised_sigreg_excess"),
    Panel("SIGReg excess, features as they are", lambda name: name.endswith("sigreg_excess") and "regul" not in name),
    Panel("share of the tokens' variance explained by", lambda name: name in ("position_share", "image_share"), 1.0),
    Panel("distance to the target encoder", lambda name: name == "target_distance"),
    Panel("LiDAR", lambda name: name == "lidar"),
)
KNOWN = {
    "loss_prediction": "the model",
    "loss_mean_predictor": "mean embedding of all",
    "loss_same_slide": "mean embedding of the slide",
}
"""Monitors that their own names do not explain: the model's loss beside those of trivial answers."""
LOSS, PARTS = "training loss", "parts of the training loss"
_OF_STEPS = {
    "loss": LOSS,
    "grad_norm": "norm of the gradient",
    "iteration_time_ms": "time of a step, ms",
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
}


def panel_of(name: str, held: bool) -> tuple[str, str]:
    """(title of the panel, name of the curve in it).

    Args:
        name: Column of log.jsonl or monitors.jsonl.
        held: It is a monitor, measured on fixed views; otherwise it is of the training steps.
    """
    plain = KNOWN.get(name, name.replace("_", " "))
    if held:
        return next((panel.title for panel in PANELS if panel.holds(name)), plain), plain
    if name.startswith("loss_"):
        return PARTS, name.removeprefix("loss_").replace("_", " ")
    return _OF_STEPS.get(name, plain), plain
