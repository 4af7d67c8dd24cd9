"""TENT: make the network sure of what it sees, by its normalisation layers alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ..data.samples import Samples
from ..errors import MethodError, OptionError
from ..methods.method import Method
from ..tasks.task import Predict, Prediction, Task


def tent(
    method: Method,
    *,
    rate: float = 1e-3,
    steps: int = 1,
    episodic: bool = True,
    foreground: bool = True,
) -> Predict:
    """A predictor that adapts the scales and shifts of normalisation to each batch it is given.

    The mean entropy of the prediction is lowered by Adam (beta1 0.9) on the affine parameters of the
    normalisation layers; batch norm uses the batch's statistics instead of its running ones. It works on a deep
    copy: the method is not changed, and a new call of `tent` is the reset.

    Paper: D. Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021,
    https://arxiv.org/abs/2006.10726. Deviations: group, layer and instance norm are adapted as well, as in the
    authors' later practice; `foreground` averages the entropy within each predicted class first, since
    background decides a plain mean in segmentation (of classes that may occur together, the entropy is the sum over
    them, and a voxel counts for each that is predicted there); adaptation is `episodic` by default, because a single
    case that goes wrong would otherwise spoil all that follow. Continual adaptation returns the prediction from before
    the batch's last update, as in the paper; an episode returns the one after it, since nothing else would profit.

    Args:
        method: A trained method.
        rate: Learning rate; with 0 this is prediction with the batch's own statistics (BN adaptation), and for
            a network without batch norm the method's own prediction.
        steps: Updates per batch.
        episodic: Whether each batch starts from the trained weights; otherwise adaptation goes on.
        foreground: Whether the entropy is averaged per predicted class before the mean; only of voxels, a whole
            image has one entropy.

    Raises:
        OptionError: For a negative rate or no step.
        MethodError: If the network has no affine normalisation layer to adapt, or the task no probabilities.
    """
    if steps < 1 or rate < 0:
        raise OptionError(f"TENT takes at least 1 step at a rate of at least 0, got {steps} and {rate}")
    # Refused here rather than at the first image.
    method.task.entropy(method.task.blank((1,) * method.setting.dimensions)[0])
    adapted = copy.deepcopy(method)
    adapted.requires_grad_(False)
    layers = [m for m in adapted.modules() if isinstance(m, NORMS) and m.weight is not None]
    if not layers:
        raise MethodError(
            "TENT adapts the scale and shift of normalisation layers and found none in this network; "
            'train it with norm="batch" or norm="instance"'
        )
    for layer in layers:
        layer.requires_grad_(True)
        if isinstance(layer, _BatchNorm):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = None
    adapted.eval()
    weights = [p for layer in layers for p in layer.parameters()]
    start = [p.detach().clone() for p in weights]
    optimizer = torch.optim.Adam(weights, lr=rate, betas=(0.9, 0.999))
    fresh = copy.deepcopy(optimizer.state_dict())

    def predict(samples: Samples) -> Prediction:
        if episodic:
            with torch.no_grad():
                for p, value in zip(weights, start, strict=True):
                    p.copy_(value)
            optimizer.load_state_dict(copy.deepcopy(fresh))
        # Evaluation runs without gradients; this needs them for a moment.
        with torch.enable_grad():
            for _ in range(steps):
                prediction = adapted.predict(samples)
                loss = mean_entropy(adapted.task, prediction, by_class=foreground)
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                for p, gradient in zip(weights, gradients, strict=True):
                    p.grad = gradient
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if episodic:
                prediction = adapted.predict(samples)
        return detached(prediction)

    return predict


NORMS: tuple[type[nn.Module], ...] = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def mean_entropy(task: Task, prediction: Prediction, *, by_class: bool) -> Tensor:
    """The task's entropy in nats: averaged over everything, or of voxels within predicted classes first."""
    entropy = task.entropy(prediction)
    if not by_class or entropy.dim() == 1:
        return entropy.mean()
    with torch.no_grad():
        answer = task.answer(prediction)
        if answer.dtype == torch.bool:  # structures that may overlap, and what belongs to none
            regions = [*answer.unbind(1), ~answer.any(1)]
        else:
            regions = [answer == k for k in answer.unique()]
    return torch.stack([entropy[region].mean() for region in regions if region.any()]).mean()


def detached(prediction: Prediction) -> Prediction:
    if isinstance(prediction, dict):
        return {name: tensor.detach() for name, tensor in prediction.items()}
    return prediction.detach()
