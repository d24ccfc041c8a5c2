import pytest
import torch
from pydantic import ValidationError

from lamella.data.mask_sets import MaskSetsSettings, mask_batch
from lamella.data.masks.temporal import TemporalMaskSettings

GRID = (4, 8, 8)


def test_the_default_is_two_sets_of_tubes_that_hide_little_and_much():
    batch = mask_batch(MaskSetsSettings(), GRID, 0, range(16))
    shown = (~batch["context_pad"]).sum(-1).float()
    hidden = (~batch["targets_pad"]).sum(-1).float()
    assert batch["context"].shape[:2] == batch["targets"].shape[:2] == (16, 2)
    torch.testing.assert_close(shown + hidden, torch.full((16, 2), 256.0))
    assert shown[:, 0].mean() > 1.5 * shown[:, 1].mean()
    assert (shown % 4 == 0).all()  # tubes: the same of each of four slices


def test_masks_belong_to_positions():
    several = mask_batch(MaskSetsSettings(), GRID, 3, [5, 6, 7])
    alone = mask_batch(MaskSetsSettings(), GRID, 3, [6])
    for key in ("context", "targets"):
        for number in range(2):
            one, other = (
                batch[key][row, number][~batch[f"{key}_pad"][row, number]] for batch, row in ((several, 1), (alone, 0))
            )
            torch.testing.assert_close(one, other)


def test_sets_are_chosen_by_name_and_there_is_at_least_one():
    settings = MaskSetsSettings.model_validate({"sets": [{"name": "temporal"}, {"name": "random3d", "ratio": 0.5}]})
    assert isinstance(settings.sets[0], TemporalMaskSettings)
    assert mask_batch(settings, GRID, 0, [0])["targets"].shape[1] == 2
    with pytest.raises(ValidationError):
        MaskSetsSettings(sets=())
