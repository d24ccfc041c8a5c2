from __future__ import annotations

import math

import torch

from lamella.models.expression.places import places_um
from lamella.models.expression.rotary import turned, waves


def test_wavelengths_go_from_the_shortest_to_the_longest() -> None:
    found = 2 * math.pi / waves(16, 16.0, 1024.0)
    torch.testing.assert_close(found, torch.tensor([16.0, 64.0, 256.0, 1024.0]))


def test_what_a_query_thinks_of_a_key_depends_on_their_distance_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    content = torch.randn(2, 1, 1, 1, 8, generator=draw)
    at = places_um(9, 8.0)
    q, k = (part.expand(9, 9, 1, 8)[None] for part in content)
    speeds = waves(8, 16.0, 512.0)
    q, k = (turned(part, at, at, speeds)[0, :, :, 0] for part in (q, k))
    scores = torch.einsum("yxe,vue->yxvu", q, k)
    torch.testing.assert_close(scores[1, 2, 3, 6], scores[4, 4, 6, 8], atol=1e-4, rtol=1e-4)
    assert abs(float(scores[1, 2, 3, 6] - scores[1, 2, 6, 3])) > 1e-3  # down is not right: mistake: swapped axes


def test_turning_keeps_lengths() -> None:
    x = torch.randn(1, 4, 5, 2, 12, generator=torch.Generator().manual_seed(1))
    found = turned(x, places_um(4, 2.0), places_um(5, 2.0), waves(12, 4.0, 64.0))
    torch.testing.assert_close(found.norm(dim=-1), x.norm(dim=-1))
