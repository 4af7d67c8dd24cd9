from __future__ import annotations

import torch

from shiftproof.parts.kind_means import KindMeans


def test_many_samples_are_compared_with_their_batch_few_with_the_past():
    usual = KindMeans()
    kinds = torch.tensor([0, 0, 0, 0, 1, 0])
    first = usual(torch.tensor([1.0, 2.0, 3.0, 4.0, 7.0, 5.0]), kinds)
    assert first.tolist() == [3.0, 3.0, 3.0, 3.0, 7.0, 3.0]  # of the second kind nothing is known yet
    second = usual(torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0, 5.0]), kinds)
    assert second.tolist() == [1.0, 1.0, 1.0, 1.0, 7.0, 1.0]
    third = usual(torch.tensor([0.0, 4.0]), torch.tensor([1, 0]))
    torch.testing.assert_close(third, torch.tensor([0.9 * 7 + 0.1 * 9, 0.9 * 3 + 0.1 * 1]))
