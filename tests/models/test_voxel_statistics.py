from __future__ import annotations

import torch

from lamella.models.voxel_statistics import voxel_statistics


def test_a_volume_is_its_thumbnail_its_quantiles_and_its_moments() -> None:
    values = torch.arange(2 * 16**3, dtype=torch.float32).reshape(1, 2, 16, 16, 16)
    found = voxel_statistics(values).reshape(2, 8**3 + 21 + 2)
    assert found.shape == (2, 535)
    block = values[0, 1, :2, :2, :2].mean()
    assert found[1, 0] == block
    assert found[0, 512] == 0  # the smallest value
    assert found[0, 532] == 16**3 - 1  # the largest
    assert found[0, 522] == torch.median(values[0, 0].flatten()) + 1  # 4,096 values have no middle one
    assert torch.allclose(found[:, 533], values[0].flatten(1).mean(1))
    assert torch.allclose(found[:, 534], values[0].flatten(1).std(1))


def test_rows_do_not_depend_on_each_other_and_sizes_do_not_change_the_width() -> None:
    values = torch.rand(3, 1, 5, 20, 11)
    assert torch.allclose(voxel_statistics(values)[1:2], voxel_statistics(values[1:2]))
    assert voxel_statistics(torch.rand(1, 1, 30, 4, 9)).shape == voxel_statistics(values[:1]).shape
