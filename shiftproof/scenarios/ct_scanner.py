"""A CT scanner in the plane: line integrals, photons, filtered back-projection, kernels.

Parallel beams over half a turn. The scanner is a miniature: its detector elements are 4 mm wide, in proportion to the
voxels of the scenario's sizes, and its photons are counted per element so that noise, kernel and streaks look as they
do in a full-size scan at its own resolution, instead of being averaged away. Noise is what the photons leave after
the person: denser paths give fewer photons, so that it is stronger in the middle and across shoulders and
arms, and filtered back-projection colours its spectrum.

Attenuation is in 1/cm; line integrals have no unit. One energy: beam hardening is left to the site's calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

Array = np.ndarray

WATER_PER_CM = 0.192  # attenuation of water near 70 keV
FIELD_PIXELS, PIXEL_MM = 160, 4.0  # of the plane that is projected; a detector element is as wide as a pixel
VIEWS = 240
PHOTONS = 400.0  # per element and view without a person, by mAs and mm of slice
ELECTRONIC = 6.0  # standard deviation of the electronics' noise in photons


def attenuation(hu: Array) -> Array:
    return WATER_PER_CM * (1 + np.maximum(hu, -1000) / 1000)


def hounsfield(per_cm: Array) -> Array:
    return 1000 * (per_cm / WATER_PER_CM - 1)


def angles() -> Array:
    """Middle of each view's share of half a turn: no beam is parallel to a pixel's edge."""
    return (np.arange(VIEWS) + 0.5) * np.pi / VIEWS


def centres(count: int, step_mm: float) -> Array:
    return (np.arange(count) - (count - 1) / 2) * step_mm


@lru_cache(maxsize=1)
def projector() -> sparse.csr_matrix:
    """(views * elements, pixels): exact mean of the line integrals over an element, of constant square pixels, in cm.

    The shadow of a square pixel is a trapezoid, two boxes convolved; its share in an element is a difference of
    its integral, which is a second antiderivative of boxes.
    """
    x, y = np.meshgrid(*[centres(FIELD_PIXELS, PIXEL_MM)] * 2, indexing="ij")
    seen = np.hypot(x, y) < (FIELD_PIXELS - 2) / 2 * PIXEL_MM
    pixels = np.flatnonzero(seen.ravel())
    x, y = x.ravel()[pixels], y.ravel()[pixels]
    first_edge = -FIELD_PIXELS / 2 * PIXEL_MM
    rows, columns, values = [], [], []
    for view, angle in enumerate(angles()):
        p, q = PIXEL_MM * abs(np.cos(angle)), PIXEL_MM * abs(np.sin(angle))

        def share_below(t: Array, p: float = p, q: float = q) -> Array:
            outer, inner = (p + q) / 2, (p - q) / 2
            corners = [np.maximum(t + at, 0) ** 2 for at in (outer, inner, -inner, -outer)]
            return (corners[0] - corners[1] - corners[2] + corners[3]) / (2 * p * q)

        middle = x * np.cos(angle) + y * np.sin(angle)
        element = np.floor((middle - (p + q) / 2 - first_edge) / PIXEL_MM).astype(np.intp)
        below = share_below(first_edge + element * PIXEL_MM - middle)
        for step in range(3):  # a shadow is at most 1.42 elements wide
            above = share_below(first_edge + (element + step + 1) * PIXEL_MM - middle)
            share = above - below
            hit = share > 1e-12
            rows.append((view * FIELD_PIXELS + element[hit] + step).astype(np.int32))
            columns.append(pixels[hit].astype(np.int32))
            values.append(share[hit] * PIXEL_MM / 10)  # area / width of an element, mm -> cm
            below = above
    shape = (VIEWS * FIELD_PIXELS, FIELD_PIXELS**2)
    parts = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(parts, shape=shape)


def project(per_cm: Array) -> Array:
    """Line integrals (views, elements, slices) of slices (X, Y, slices) on the scanner's plane."""
    flat = per_cm.reshape(FIELD_PIXELS**2, -1)
    return (projector() @ flat).reshape(VIEWS, FIELD_PIXELS, -1)


def measured(random: np.random.Generator, integrals: Array, photons: float, scatter: float = 0.0) -> Array:
    """Line integrals (views, elements, slices) as counted: Poisson photons, the electronics' noise, at least one.

    `scatter` is what every element of a slice gets beside its ray, relative to the mean ray through the patient;
    dense paths then seem thinner than they are, which darkens the middle of the image.
    """
    inside = integrals > 0.5
    mean_path = (integrals * inside).sum((0, 1)) / np.maximum(inside.sum((0, 1)), 1)
    expected = photons * (np.exp(-integrals) + scatter * np.exp(-mean_path))
    counts = random.poisson(expected) + ELECTRONIC * random.standard_normal(integrals.shape)
    return -np.log(np.maximum(counts, 1.0) / photons)


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel: what multiplies the ramp at a frequency, 1 being half a cycle an element.

    (1 + boost f^2) cos(pi/2 f / cutoff)^power, and 0 beyond the cutoff: `boost` undoes the blur of pixels and
    elements and overshoots at edges, as kernels for lung and bone do.
    """

    name: str
    boost: float
    cutoff: float
    power: float

    def response(self, frequency: Array) -> Array:
        inside = np.cos(np.pi / 2 * np.minimum(frequency / self.cutoff, 1.0)) ** self.power
        return (1 + self.boost * frequency**2) * inside


def filtered(integrals: Array, kernel: Kernel) -> Array:
    """Ramp times kernel along the elements; the ramp is built in space, so that its mean is right."""
    size = 2 * FIELD_PIXELS
    n = np.minimum(np.arange(size), size - np.arange(size))
    odd = n % 2 == 1
    ramp = np.where(odd, -1 / (np.pi**2 * np.where(odd, n, 1.0) ** 2), 0.0)
    ramp[0] = 0.25
    response = np.fft.rfft(ramp).real * kernel.response(np.fft.rfftfreq(size) * 2) / (PIXEL_MM / 10)
    spectrum = np.fft.rfft(integrals, size, axis=1) * response[:, None]
    return np.fft.irfft(spectrum, size, axis=1)[:, :FIELD_PIXELS]


def reconstructed(
    integrals: Array, kernel: Kernel, matrix: tuple[int, int], pixel_mm: float, centre_mm: tuple[float, float]
) -> Array:
    """Attenuation (*matrix, slices) at the centres of pixels around `centre_mm`; NaN beyond the scanned circle."""
    x, y = (c + centres(n, pixel_mm) for n, c in zip(matrix, centre_mm, strict=True))
    x, y = (a.ravel() for a in np.meshgrid(x, y, indexing="ij"))
    direction = np.stack([np.cos(angles()), np.sin(angles())])
    at = (np.stack([x, y], 1) @ direction) / PIXEL_MM + (FIELD_PIXELS - 1) / 2  # (pixels, views)
    low = np.clip(np.floor(at), 0, FIELD_PIXELS - 2).astype(np.int32)
    weight = np.clip(at - low, 0, 1)
    low += (np.arange(VIEWS, dtype=np.int32) * FIELD_PIXELS)[None]
    columns = np.stack([low, low + 1], -1).reshape(-1)
    values = np.stack([1 - weight, weight], -1).reshape(-1) * (np.pi / VIEWS)
    rows = np.arange(x.size + 1) * (2 * VIEWS)
    back = sparse.csr_matrix((values, columns, rows), shape=(x.size, VIEWS * FIELD_PIXELS))
    image = back @ filtered(integrals, kernel).reshape(VIEWS * FIELD_PIXELS, -1)
    image[np.hypot(x, y) > (FIELD_PIXELS - 2) / 2 * PIXEL_MM] = np.nan
    return image.reshape(*matrix, -1)
