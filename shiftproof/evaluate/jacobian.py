"""How strongly the answer of a network changes with its input: the norm of the Jacobian at some samples.

R. Novak et al., "Sensitivity and Generalization in Neural Networks: an Empirical Study", ICLR 2018,
https://arxiv.org/abs/1802.08760, find that the mean Frobenius norm of the Jacobian of the probabilities at test points
goes with the generalization gap. The full Jacobian of a segmentation is far too large; M. Hutchinson's estimator (1989)
needs a few products with random vectors: ||J||_F^2 = E ||J^T v||^2 for v of independent standard normal numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.samples import Samples
from ..errors import OptionError
from ..tasks.task import Predict, Task

DRAWS = 8


def jacobian_norm(predict: Predict, task: Task, samples: Samples, *, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Frobenius norm of d probabilities / d image of each sample over the root of its voxels, (B,).

    Per voxel, so that patches of different size can be compared: the root of the mean over voxels of the squared norm
    of all derivatives of that voxel's probabilities.

    Args:
        predict: As `Method.predict`; in evaluation mode, so that samples do not act on each other.
        task: With probabilities.
        samples: Patches or whole scans that fit into memory with their graph.
        draws: Random vectors; the relative error of the squared norm falls with their root.
        seed: Of the vectors.

    Raises:
        OptionError: For no draws.
        MethodError: If the task has no probabilities.
    """
    if draws < 1:
        raise OptionError(f"the norm is estimated from at least 1 draw, got {draws}")
    image = samples.image.detach().clone().requires_grad_()
    with torch.enable_grad():
        probabilities = task.probabilities(predict(samples.replace(image=image)))
    random = torch.Generator().manual_seed(seed)
    squared = torch.zeros(len(image), device=image.device)
    for draw in range(draws):
        v = torch.randn(probabilities.shape, generator=random).to(probabilities)
        (product,) = torch.autograd.grad(probabilities, image, v, retain_graph=draw < draws - 1)
        squared += product.flatten(1).square().sum(1)
    voxels = max(1, probabilities[0, 0].numel())
    return (squared / draws / voxels).sqrt()
