"""What models expect at the judged places of a slide: one number for each place and gene, on the scale of the truth.

Shapes: N places, G genes, S samples, n bins along the side of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from lamella.data.expression_samples import SlideSamples
from lamella.data.expression_views import SlideViews
from lamella.errors import LamellaError
from lamella.models.expression.contract import Views
from lamella.models.expression.model import ExpressionModel


def expected_at(
    model: ExpressionModel, samples: SlideSamples, views: SlideViews, device: torch.device, batch_size: int = 8
) -> np.ndarray:
    """What one model expects at the judged places of a slide.

    Args:
        model: Frozen; moved to the device.
        samples: Of the slide, with the model's genes in their order.
        views: Of the slide, made as the model's were.
        device: Where the network runs.
        batch_size: Samples shown to it at once.

    Returns:
        float32 (N, G), in the order of `samples.places()`: expected counts (log1p of them where that is the study's
        target) or expected values; of spots the sum, or the mean, under each disk.

    Raises:
        LamellaError: Genes, bins or views are not the model's, or it expects something that is no number.
    """
    refuse_others(model, samples, views)
    model.to(device).eval()
    places = samples.places()
    out = np.full((len(places.px0), len(model.genes)), np.nan, np.float32)
    if samples.kind == "spot":
        _at_spots(model, samples, views, batch_size, out)
    else:
        _at_bins(model, samples, views, batch_size, out)
    if not np.isfinite(out).all():
        raise LamellaError(
            samples.slide.slide_id,
            f"{model.name} expects {int((~np.isfinite(out)).any(1).sum())} of {len(out)} places to hold what is no "
            "number",
            "The training diverged; train again with a smaller train.optim.lr.",
        )
    return out


def ensemble_at(
    models: Sequence[ExpressionModel],
    samples: SlideSamples,
    views_of: Callable[[ExpressionModel], SlideViews],
    device: torch.device,
    batch_size: int = 8,
) -> np.ndarray:
    """The mean of what several models of the same genes expect: `expected_at` of folds or seeds together."""
    if not models:
        raise ValueError("there are no models")
    total: np.ndarray | None = None
    for model in models:
        found = expected_at(model, samples, views_of(model), device, batch_size).astype(np.float64)
        total = found if total is None else total + found
    assert total is not None
    return (total / len(models)).astype(np.float32)


def refuse_others(model: ExpressionModel, samples: SlideSamples, views: SlideViews) -> None:
    """Refuse samples or views that the model was not made for.

    Raises:
        LamellaError: Genes, bins or views are not the model's.
    """
    slide = samples.slide.slide_id
    if tuple(samples.genes) != model.genes:
        raise LamellaError(
            slide,
            f"its samples hold {len(samples.genes)} genes, and {model.name} predicts {len(model.genes)} others, or in "
            "another order",
            "Make the samples with the genes of the model.",
        )
    if samples.bins != model.bins or abs(samples.grid.bin_um - model.bin_um) > 1e-3 * model.bin_um:
        raise LamellaError(
            slide,
            f"its samples are {samples.bins} bins of {samples.grid.bin_um:g} um, and {model.name} was trained on "
            f"{model.bins} of {model.bin_um:g} um",
            "Take the data settings that the model was trained with.",
        )
    refuse_other_views(model, views, slide)


def refuse_other_views(model: ExpressionModel, views: SlideViews, slide: str) -> None:
    """Refuse views of other shapes than the model's.

    Raises:
        LamellaError: They are.
    """
    if tuple(views.shapes) != tuple(model.views):
        raise LamellaError(
            slide,
            f"its views are {_told(views)}, and {model.name} was trained on {_told(model)}",
            "Make the features with the settings that the model was trained with.",
        )


def tensors_of(features: Sequence[np.ndarray], seen: Sequence[np.ndarray], device: torch.device) -> Views:
    """Views of a batch, as `SlideViews.many` gives them, on the device."""
    return Views(
        tuple(torch.from_numpy(part).to(device) for part in features),
        tuple(torch.from_numpy(part).to(device) for part in seen),
    )


def _told(of: SlideViews | ExpressionModel) -> str:
    shapes = of.shapes if isinstance(of, SlideViews) else of.views
    return ", ".join(f"{view.tokens} x {view.token_um:g} um ({view.width} wide)" for view in shapes)


def _at_bins(
    model: ExpressionModel, samples: SlideSamples, views: SlideViews, batch_size: int, out: np.ndarray
) -> None:
    for first, shown in _batches(model, samples, views, batch_size):
        found = model.judged(model.expected(shown)).cpu().numpy()
        for number, expected_Gnn in enumerate(found):
            row_c, col_c = samples.centres_rc[first + number]
            places, i, j = samples.places_in(float(row_c), float(col_c))
            out[places] = expected_Gnn[:, i, j].T


def _at_spots(
    model: ExpressionModel, samples: SlideSamples, views: SlideViews, batch_size: int, out: np.ndarray
) -> None:
    for first, shown in _batches(model, samples, views, batch_size):
        count = len(shown.features[0])
        disk_Bnn = torch.from_numpy(samples.disk).to(model.device).expand(count, -1, -1)  # all spots are of one size
        out[first : first + count] = model.judged(model.expected_spots(shown, disk_Bnn)).cpu().numpy()


def _batches(
    model: ExpressionModel, samples: SlideSamples, views: SlideViews, batch_size: int
) -> Iterator[tuple[int, Views]]:
    for first in range(0, len(samples.centres_rc), batch_size):
        features, seen = views.many(samples.grid, samples.centres_rc[first : first + batch_size], model.bins)
        yield first, tensors_of(features, seen, model.device)
