from __future__ import annotations

import torch
import torch.nn.functional as F

from lamella.models.heads import AttentivePooling, GridHead, upsampled


def test_a_fresh_query_is_the_mean_and_answers_nothing_yet() -> None:
    pooling = AttentivePooling(6, 3)
    tokens = torch.randn(2, 5, 6)
    assert pooling(tokens).abs().max() == 0
    torch.nn.init.normal_(pooling.classify.weight)
    mean = F.layer_norm(tokens, (6,)).mean(1)
    torch.testing.assert_close(pooling(tokens), pooling.classify(mean))
    shuffled = tokens[:, torch.randperm(5)]
    torch.testing.assert_close(pooling(shuffled), pooling(tokens))


def test_a_linear_head_labels_each_token_by_itself_in_row_major_order() -> None:
    head = GridHead(4, 3, axes=2)
    tokens = torch.randn(2, 6, 4)
    logits = head(tokens, (2, 3))
    assert logits.shape == (2, 3, 2, 3)
    alone = head(tokens[:, 4:5], (1, 1))
    torch.testing.assert_close(logits[:, :, 1, 1], alone[:, :, 0, 0])
    assert GridHead(4, 2, axes=3, hidden=8)(torch.randn(1, 24, 4), (2, 3, 4)).shape == (1, 2, 2, 3, 4)


def test_upsampling_is_linear_between_the_centres_of_the_cells() -> None:
    row = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(upsampled(row, (1, 4)).flatten(), torch.tensor([0.0, 0.25, 0.75, 1.0]))
    assert upsampled(torch.zeros(1, 2, 2, 2, 2), (4, 6, 8)).shape == (1, 2, 4, 6, 8)
