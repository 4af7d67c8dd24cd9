from __future__ import annotations

import pytest
import torch
from torch import nn

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.evaluate.jacobian import jacobian_norm
from shiftproof.tasks.classification import Classification
from shiftproof.tasks.segmentation import Segmentation


def exact(function, image: torch.Tensor) -> torch.Tensor:
    """From the whole Jacobian of each sample, over the root of the voxels."""
    norms = []
    for one in image:
        jacobian = torch.autograd.functional.jacobian(lambda x: function(x[None])[0], one)
        voxels = function(one[None])[0, 0].numel()
        norms.append((jacobian.square().sum() / voxels).sqrt())
    return torch.stack(norms)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_estimate_is_the_norm_of_the_whole_jacobian(dimensions):
    torch.manual_seed(0)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    network = nn.Sequential(convolution(1, 4, 3, padding=1), nn.Tanh(), convolution(4, 3, 1))
    image = torch.randn(2, 1, *[4] * dimensions)
    expected = exact(lambda x: network(x).softmax(1), image)
    task = Segmentation(["background", "a", "b"])
    found = jacobian_norm(lambda s: network(s.image), task, Samples(image), draws=600)
    assert found == pytest.approx(expected, rel=0.05)


def test_a_classifier_has_one_voxel():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    image = torch.randn(3, 1, 3, 3)
    expected = exact(lambda x: network(x).softmax(1), image)
    found = jacobian_norm(lambda s: network(s.image), Classification(["a", "b"]), Samples(image), draws=1500)
    assert found == pytest.approx(expected, rel=0.1)


def test_a_constant_answer_has_none_and_draws_are_fixed_by_the_seed():
    task = Segmentation(["background", "a"])
    image = torch.randn(1, 1, 4, 4)
    still = jacobian_norm(lambda s: torch.cat([0 * s.image, 0 * s.image], 1), task, Samples(image))
    assert still.tolist() == [0]

    def steep(samples: Samples) -> torch.Tensor:
        return torch.cat([0 * samples.image, 2 * samples.image], 1)

    one = jacobian_norm(steep, task, Samples(image), seed=3)
    assert torch.equal(one, jacobian_norm(steep, task, Samples(image), seed=3))
    assert not torch.equal(one, jacobian_norm(steep, task, Samples(image), seed=4))
    assert image.grad is None


def test_gradients_are_taken_where_none_are_wanted_otherwise():
    task = Segmentation(["background", "a"])
    with torch.no_grad():
        found = jacobian_norm(lambda s: torch.cat([-s.image, s.image], 1), task, Samples(torch.zeros(1, 1, 2, 2)))
    assert found.item() > 0


def test_no_draws_are_refused():
    with pytest.raises(OptionError, match="at least 1 draw"):
        jacobian_norm(lambda s: s.image, Segmentation(["background", "a"]), Samples(torch.zeros(1, 2, 2, 2)), draws=0)
