"""What an acquisition does to an image: noise, blur, coarse sampling, coil sensitivity.

Images are (B, C, *space). Conventions as in `intensity.py`. Operations whose physics has a zero (Rician
noise, a receive field) take the channel's lowest value for it where the image has values below 0, as z-scored
images do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..errors import OptionError
from . import separable
from .fields import noise, polynomial
from .intensity import in_float32, lowest, spread


@in_float32
def gaussian_noise(image: Tensor, variance: Tensor, seed: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The image plus Gaussian noise of this variance, from a seed per sample (B,) or per channel (B, C)."""
    field = noise(seed, tuple(image.shape[seed.ndim :]), image.device)
    return torch.add(image, field.to(image.dtype).mul_(spread(variance, image).sqrt()), out=out)


@in_float32
def rician_noise(image: Tensor, variance: Tensor, seed: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Magnitude of the image with Gaussian noise of this variance in its real and its imaginary part.

    Of a signal A the result M has E[M^2] = A^2 + 2 variance.
    """
    air, std = lowest(image), spread(variance, image).sqrt()
    field = noise(seed, (2, *image.shape[seed.ndim :]), image.device).to(image.dtype)
    real, imaginary = field.unbind(seed.ndim)
    return torch.add(torch.hypot(torch.addcmul(image - air, real, std), imaginary * std), air, out=out)


@in_float32
def blur(image: Tensor, sigma: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Gaussian blur by `sigma` voxels, (B,), (B, C) or, with one for each axis, (B, C, dimensions)."""
    return separable.along_axes(image, _matrices(separable.gaussian, _per_axis(sigma, image), image), out=out)


@in_float32
def sharpen(image: Tensor, sigma: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The image minus the Laplacian of its blur by `sigma` voxels, (B,) or (B, C).

    The Laplacian is the sum of second differences, so that a constant image stays as it is; a sampled Laplacian of a
    narrow Gaussian does not sum to 0.
    """
    smooth, change = blur(image, sigma), torch.zeros_like(image)
    for axis in range(2, image.ndim):
        step = smooth.diff(dim=axis)
        edge = torch.zeros_like(smooth.narrow(axis, 0, 1))
        change.add_(torch.cat([step, edge], axis)).sub_(torch.cat([edge, step], axis))
    return torch.sub(image, change, out=out)


Down = Literal["nearest", "linear"]
Up = Literal["nearest", "linear", "cubic"]


@in_float32
def low_resolution(
    image: Tensor,
    zoom: Tensor,
    *,
    down: Down = "nearest",
    up: Up = "linear",
    axes: tuple[int, ...] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """As if acquired on a grid coarser by `zoom` <= 1 and interpolated back to the image's own.

    Args:
        image: (B, C, *space).
        zoom: Of the number of voxels an axis, (B,), (B, C) or (B, C, dimensions); the number is rounded.
        down: How the coarse grid takes its values: "nearest", without smoothing as in nnU-Net, or "linear".
        up: How it is brought back: "nearest", "linear" or "cubic".
        axes: Spatial axes that lose resolution; None for all. Slices that are thick already keep theirs.
        out: Where to write the result.
    """
    if down not in ("nearest", "linear") or up not in ("nearest", "linear", "cubic"):
        raise OptionError(
            f'low resolution goes down by "nearest" or "linear" and up by these or "cubic", got {down!r} and {up!r}'
        )
    kinds = {"nearest": separable.nearest, "linear": separable.linear, "cubic": separable.cubic}

    def there_and_back(factor: Tensor, size: int) -> Tensor:
        count = torch.round(factor * size).clamp(1, size)  # (..., B, C): voxels of the coarse grid
        coarse = count.unsqueeze(-1)
        centre = torch.arange(size, device=count.device) + 0.5
        # Rows beyond `count` are of no coarse voxel, and no tap of the way up refers to them.
        to_coarse = kinds[down](centre * size / coarse - 0.5, torch.full_like(count, size))
        to_fine = kinds[up](centre * coarse / size - 0.5, count)
        return separable.matrix(*separable.after(to_fine, to_coarse), size)

    factors = [f if axes is None or a in axes else torch.ones_like(f) for a, f in enumerate(_per_axis(zoom, image))]
    return separable.along_axes(image, _matrices(there_and_back, factors, image), out=out)


BIAS_DEGREE = 3


@in_float32
def bias_field(image: Tensor, coefficients: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The signal times exp(smooth polynomial): the intensity non-uniformity of a receive coil.

    Args:
        image: (B, C, *space).
        coefficients: Of products of Legendre polynomials up to total degree 3 without the constant,
            (B, C, terms) in the order of `fields.polynomial_terms`, or (B, terms) for all channels alike, as
            for sequences of one session and coil. The field's logarithm has mean 0 over the field of view.
        out: Where to write the result.
    """
    coefficients = coefficients.to(image.device, image.dtype, non_blocking=True)
    if coefficients.ndim == 2:
        coefficients = coefficients.unsqueeze(1)
    air = lowest(image)
    field = polynomial(coefficients, tuple(image.shape[2:]), BIAS_DEGREE).exp()
    return torch.add((image - air).mul_(field), air, out=out)


def _per_axis(parameter: Tensor, image: Tensor) -> list[Tensor]:
    """(B,), (B, C) or (B, C, dimensions) as one (B, C or 1) for each axis.

    On the parameter's device: matrices are made there and moved, since on a GPU their sums have no fixed order.
    """
    parameter = parameter.to(image.dtype)
    if parameter.ndim < 3:
        return [parameter.reshape(len(parameter), -1)] * (image.ndim - 2)
    return list(parameter.unbind(-1))


def _matrices(make: Callable[[Tensor, int], Tensor], parameters: list[Tensor], image: Tensor) -> list[Tensor]:
    """A matrix (B, C or 1, n, n) for each axis; those of one size are made together."""
    sizes = image.shape[2:]
    together = {n: [axis for axis, m in enumerate(sizes) if m == n] for n in sizes}
    made: dict[int, Tensor] = {}
    for size, axes in together.items():
        stacked = make(torch.stack([parameters[a] for a in axes]), size).to(
            image.device, image.dtype, non_blocking=True
        )
        made |= dict(zip(axes, stacked, strict=True))
    return [made[axis] for axis in range(len(sizes))]
