from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from lamella.models.expression.places import interpolation, places_um, registered


def test_places_are_centred_on_the_sample() -> None:
    assert places_um(4, 2.0).tolist() == [-3.0, -1.0, 1.0, 3.0]
    assert places_um(3, 8.0).tolist() == [-8.0, 0.0, 8.0]


@given(tokens=st.integers(1, 7), bins=st.integers(1, 9), token_um=st.sampled_from([2.0, 8.0, 32.0]))
def test_interpolation_is_scipys_linear_one(tokens: int, bins: int, token_um: float) -> None:
    values = np.random.default_rng(tokens).normal(size=tokens)
    asked = places_um(bins, 3.7)
    index = (asked.numpy().astype(np.float64) / token_um) + (tokens - 1) / 2
    expected = map_coordinates(values, [index], order=1, mode="nearest")
    found = interpolation(asked, tokens, token_um) @ torch.tensor(values, dtype=torch.float32)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


# mistake: misregistered crops; swapped rows and columns
@pytest.mark.parametrize(("tokens", "token_um"), [(6, 8.0), (5, 8.0), (16, 32.0), (3, 128.0)])
def test_a_field_of_micrometres_comes_out_at_the_bins_own_places(tokens: int, token_um: float) -> None:
    at, bins = places_um(tokens, token_um), places_um(8, 2.0)
    field = torch.stack([at[:, None].expand(tokens, tokens), 3 * at[None, :].expand(tokens, tokens)])[None]
    laid, there = registered(field, torch.ones(1, tokens, tokens, dtype=torch.bool), token_um, bins)
    assert there.all()
    torch.testing.assert_close(laid[0, 0], bins[:, None].expand(8, 8), atol=1e-4, rtol=0)  # row: down
    torch.testing.assert_close(laid[0, 1], 3 * bins[None, :].expand(8, 8), atol=1e-4, rtol=0)


def test_tokens_that_are_not_seen_have_no_say() -> None:
    values = torch.full((1, 1, 4, 4), 7.0)
    seen = torch.ones(1, 4, 4, dtype=torch.bool)
    values[..., :2], seen[..., :2] = 1e6, False
    laid, there = registered(values, seen, 8.0, places_um(16, 2.0))
    assert there[0, 0].tolist() == [False] * 6 + [True] * 10  # up to the middle of the last token that is not seen
    torch.testing.assert_close(laid[0, 0, :, 6:], torch.full((16, 10), 7.0))
    assert not laid[0, 0, :, :6].any()
