"""Fields over space, made from a few numbers for each sample."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from .separable import along_axes, legendre, spline


def noise(seeds: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal noise (*seeds.shape, *shape), a function of the seed, the shape and the kind of device."""
    field = torch.empty((seeds.numel(), *shape), device=device)
    generator = torch.Generator(device)
    # A loop over samples: a generator has one seed, and it is what makes the noise of a sample its own.
    for part, seed in zip(field, seeds.flatten().tolist(), strict=True):
        part.normal_(generator=generator.manual_seed(seed))
    return field.view(*seeds.shape, *shape)


def polynomial_terms(dimensions: int, degree: int) -> list[tuple[int, ...]]:
    """Exponents of all terms up to a total degree, the constant left out: 9 in 2D and 19 in 3D for degree 3."""
    every = product(range(degree + 1), repeat=dimensions)
    return [exponents for exponents in every if 0 < sum(exponents) <= degree]


def polynomial(coefficients: Tensor, shape: tuple[int, ...], degree: int) -> Tensor:
    """Smooth field (B, C, *shape): products of Legendre polynomials weighted by (B, C, terms).

    The terms are orthogonal and none is constant: over the field of view the mean is 0, as far as the grid resolves.
    """
    terms = torch.tensor(polynomial_terms(len(shape), degree), device=coefficients.device)
    cube = coefficients.new_zeros(*coefficients.shape[:2], *(degree + 1,) * len(shape))
    places: tuple[Any, ...] = (..., *terms.unbind(-1))
    cube[places] = coefficients
    return along_axes(cube, [legendre(degree, n).to(cube)[None, None] for n in shape])


def splines(coefficients: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Smooth field (B, C, *shape) from cubic B-spline coefficients (B, C, *points), at least 4 an axis."""
    points = coefficients.shape[2:]
    matrices = [spline(k, n).to(coefficients)[None, None] for k, n in zip(points, shape, strict=True)]
    return along_axes(coefficients, matrices)
