"""Cosines to prototypes, level by level, against the plain computation and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lamella.models.prototype_scores import LinearScores, PrototypeScores, similarity

WIDTHS = (6, 9)


def levels(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 6, 8, 4, generator=generator), torch.randn(2, 9, 4, 2, generator=generator)]


def scores(k_list: tuple[int, ...] = (2, 1, 3), dim: int = 20, **options: object) -> PrototypeScores:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = PrototypeScores(torch.randn(sum(k_list), dim), k_list, WIDTHS, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            made.offset_SM.copy_(torch.randn_like(made.offset_SM))
    return made


def plain(model: PrototypeScores, number: int, level: torch.Tensor) -> torch.Tensor:
    """The maps of one level as they are defined: every place, prototype and class by itself."""
    features = model.lifts[number](level)
    adapted = model.adapters[number](model.prototypes_KD)
    out = []
    start = 0
    for name, k in enumerate(model.k_list):
        maps = []
        for prototype in adapted[start : start + k]:
            against = prototype[None, :, None, None].expand_as(features)
            if model.unit:
                dots = F.cosine_similarity(features, against, dim=1)
            else:
                dots = (F.normalize(features, dim=1) * against).sum(1)
            maps.append(model.factor_S[number] * dots + model.offset_SM[number, name])
        stacked = torch.stack(maps)
        if model.merge == "mean":
            out.append(stacked.mean(0))
        elif model.merge == "max":
            out.append(stacked.max(0).values)
        else:
            out.append((stacked.softmax(0) * stacked).sum(0))
        start += k
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("merge", ["mean", "max", "softmax"])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("options", [{}, {"norm": False, "bias": False}, {"project": 5}])
def test_maps_are_the_cosines_of_every_place_and_so_are_their_gradients(
    merge: str, unit: bool, options: dict[str, object]
) -> None:
    model = scores(merge=merge, unit=unit, **options)
    shown = levels()
    found = model(shown, {0, 1}).class_maps
    expected = [plain(model, number, level) for number, level in enumerate(shown)]
    weights = list(model.parameters())
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert torch.allclose(one, other, atol=1e-5)
        own = torch.autograd.grad(one.square().sum(), weights, allow_unused=True)
        its = torch.autograd.grad(other.square().sum(), weights, allow_unused=True)
        for slope, reference in zip(own, its, strict=True):
            if reference is None:
                assert slope is None or not slope.any()
            else:
                assert (slope - reference).norm() <= 1e-4 * (1 + reference.norm())


def test_prototype_maps_are_made_on_demand_and_merge_into_the_class_maps() -> None:
    maps = scores(merge="mean")(levels(), {0, 1})
    for each, merged in zip(maps.prototype_maps, maps.class_maps, strict=True):
        assert each is not None
        assert each.shape[1] == 6
        by_class = torch.stack([each[:, :2].mean(1), each[:, 2], each[:, 3:].mean(1)], dim=1)
        assert torch.allclose(by_class, merged, atol=1e-5)
    assert maps.prototype_maps[0] is maps.prototype_maps[0]


@given(
    k_list=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    dim=st.sampled_from([1, 7, 512, 768]),
    merge=st.sampled_from(["mean", "max", "softmax"]),
)
def test_any_number_of_prototypes_and_any_dimension(k_list: list[int], dim: int, merge: str) -> None:
    """Mistakes of the source: 512 dimensions written into the adapters; k = 1 crashed."""
    model = scores(tuple(k_list), dim, merge=merge)
    for found in model(levels(), {0, 1}).class_maps:
        assert found is not None
        assert found.shape[1] == len(k_list)
        assert found.isfinite().all()


def test_a_single_prototype_is_its_class_whatever_the_merge() -> None:
    one, other, third = (
        scores((1, 1), merge=merge)(levels(), {1}).class_maps[1] for merge in ("mean", "max", "softmax")
    )
    assert torch.allclose(one, other, atol=1e-6)
    assert torch.allclose(one, third, atol=1e-6)


def test_levels_that_are_not_wanted_are_not_computed() -> None:
    model = scores()
    maps = model(levels(), {1})
    assert maps.class_maps[0] is None
    assert maps.prototype_maps[0] is None
    assert torch.equal(maps.class_maps[1], model(levels(), {0, 1}).class_maps[1])


def test_cosines_in_closed_form() -> None:
    """At 0, 60, 90 and 180 degrees, whatever the lengths; a feature of zeros is like nothing."""
    angles = torch.tensor([0.0, 60.0, 90.0, 180.0]) * math.pi / 180
    places = torch.stack([3 * angles.cos(), 3 * angles.sin()])
    x = torch.cat([places, torch.zeros(2, 1)], dim=1)[None, :, :, None].requires_grad_()
    found = similarity(x, torch.tensor([[1.0, 0.0]]), torch.tensor(10.0), torch.tensor([1.0]))
    assert found[0, 0, :, 0].tolist() == pytest.approx([11.0, 6.0, 1.0, -9.0, 1.0], abs=1e-5)
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_scales_begin_as_upstreams() -> None:
    assert scores().factor_S.tolist() == pytest.approx([1 / 0.07] * 2)


def test_adapters_are_two_layers_of_half_the_width() -> None:
    adapter = scores().adapters[1]
    assert (adapter.hidden.in_features, adapter.hidden.out_features, adapter.out.out_features) == (20, 10, 9)
    doubled = adapter(2 * scores().prototypes_KD)
    assert torch.allclose(doubled, 2 * adapter(scores().prototypes_KD), atol=1e-6)  # ReLU alone, biases are 0


def test_prototypes_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be"):
        PrototypeScores(torch.randn(3, 4), (2, 2), WIDTHS)
    with pytest.raises(ValueError, match="cannot be"):
        PrototypeScores(torch.randn(2, 4), (2, 0), WIDTHS)


def test_a_linear_classifiers_mean_map_is_its_answer_of_the_mean_feature() -> None:
    model = LinearScores(WIDTHS, 3)
    maps = model(levels(), {0, 1})
    assert maps.class_maps[0] is None
    assert maps.class_maps[1] is not None
    expected = model.classify(levels()[1].mean((2, 3)))
    assert torch.allclose(maps.class_maps[1].mean((2, 3)), expected, atol=1e-6)
    assert maps.prototype_maps == [None, None]
