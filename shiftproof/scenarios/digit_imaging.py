"""Four imaging chains for a flat object: a densitometer, fluoroscopy, B-mode ultrasound and magnetic resonance.

The object is a drawn structure inside a tissue: ink in paper, contrast medium in a body, a fluid-filled lumen in
echogenic tissue, fluid in muscle. Each chain takes it on a grid `FINE` times finer than the image's pixels and gives
an image (SIDE, SIDE) in the units that the machine stores; what varies from one acquisition to the next is drawn from
`random`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

Array = np.ndarray

SIDE, FINE = 32, 4
CELL = 3.1  # pixels of the image that one of the 8 x 8 cells of a drawn digit covers


@dataclass(frozen=True)
class Placing:
    """How the object lies in the field of view; means over subjects and their spread."""

    turn_deg: float = 0.0
    turn_spread_deg: float = 4.5
    shift_px: tuple[float, float] = (0.0, 0.0)
    shift_spread_px: float = 0.7
    zoom: float = 1.0


@dataclass(frozen=True)
class Thing:
    """The object on the fine grid: all arrays are (SIDE * FINE, SIDE * FINE), rows downwards."""

    ink: Array  # share of the structure, 0 to 1
    tissue: Array  # relative density of what surrounds it, about 1
    depth: float  # of the structure, relative to the mean person's


def thing(strokes: Array, person: np.random.Generator, placing: Placing) -> Thing:
    """A digit of 8 x 8 cells (0 to 16) as a structure in tissue, turned, scaled and moved.

    Cells count the pixels with ink, so that the stroke's edge is where a smooth surface through them crosses a half
    of what the stroke's centre has.
    """
    turn = np.deg2rad(placing.turn_deg + person.normal(0, placing.turn_spread_deg))
    size = CELL * placing.zoom * np.exp(person.normal(0, 0.05, 2))
    shift = np.array(placing.shift_px) + person.normal(0, placing.shift_spread_px, 2)
    pixels = (np.arange(SIDE * FINE) + 0.5) / FINE - SIDE / 2
    rows, columns = np.meshgrid(pixels - shift[0], pixels - shift[1], indexing="ij")
    along = (np.cos(turn) * rows + np.sin(turn) * columns) / size[0] + 3.5
    across = (np.cos(turn) * columns - np.sin(turn) * rows) / size[1] + 3.5
    surface = map_coordinates(np.pad(strokes / 16.0, 2), [along + 2, across + 2], order=3)
    edge = person.uniform(0.36, 0.5)  # thin and thick pens
    ink = np.clip((surface - edge) / 0.3 + 0.5, 0, 1)
    texture = gaussian_filter(person.standard_normal(ink.shape), 4 * FINE, mode="wrap")
    tissue = np.exp(0.12 * texture / texture.std())
    return Thing(ink, tissue, float(np.exp(person.normal(0, 0.15))))


def pixels_of(fine: Array) -> Array:
    """Means over the pixels of the image."""
    return fine.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))


def blurred(fine: Array, sigma_px: float | tuple[float, float]) -> Array:
    """By a Gaussian whose standard deviation is in pixels of the image."""
    sigma = np.broadcast_to(np.asarray(sigma_px, float) * FINE, 2)
    return gaussian_filter(fine, tuple(sigma), mode="nearest")


def distances() -> tuple[Array, Array]:
    """Row and column of the image's pixels from its centre, -1 to 1."""
    line = (np.arange(SIDE) + 0.5) / (SIDE / 2) - 1
    rows, columns = np.meshgrid(line, line, indexing="ij")
    return rows, columns


def densitometer(subject: Thing, random: np.random.Generator) -> Array:
    """Optical density of a drawing on film, 8 bit: bright ink, hardly any noise.

    Light falls by 10 ** -density; the detector sees it through the optics' point spread, counts photons, and the
    logarithm is stored, from 0 to a density of 2.
    """
    density = 0.18 * subject.tissue + 1.15 * subject.depth * subject.ink
    lamp = 1 + 0.06 * random.uniform(-1, 1) * distances()[1]
    light = pixels_of(blurred(10**-density, 0.55)) * lamp
    counted = random.poisson(light * 4000) / 4000
    return stored(-np.log10(np.maximum(counted, 1e-3)) * 255 / 2, 8)


def fluoroscopy(subject: Thing, random: np.random.Generator) -> Array:
    """X-rays that pass a body with contrast medium, 12 bit: dark structure, few photons, veiled and vignetted.

    Primary quanta follow Beer and Lambert; scatter is a wide blur of them of a similar number; the intensifier's
    glass spreads light (veiling glare), its round field falls off towards the rim, and quanta are Poisson.
    """
    primary = np.exp(-0.9 * (subject.tissue - 1) - 1.1 * subject.depth * subject.ink)
    scatter = random.uniform(0.5, 0.9) * blurred(primary, 7.0)
    through = blurred(primary, 0.8) + scatter
    veil = 0.15
    light = pixels_of((1 - veil) * through + veil * blurred(through, 10.0))
    rows, columns = distances()
    radius = np.hypot(rows - random.normal(0, 0.05), columns - random.normal(0, 0.05))
    field = (1 - 0.3 * radius**2) / (1 + np.exp((radius - 1.12) / 0.03))
    quanta = random.uniform(120, 220)  # a pixel, in the centre
    counted = random.poisson(quanta * light * field) + random.normal(0, 1.5, light.shape)
    return stored(counted * 1500 / quanta, 12)


def ultrasound(subject: Thing, random: np.random.Generator) -> Array:
    """Log-compressed echoes, 8 bit: a dark lumen in speckle that coarsens and fades with depth.

    Fully developed speckle: complex Gaussian scatterers, weighted by the square root of the echogenicity, through a
    point spread that is narrow along the beam (rows) and widens across it away from the focus. Fluid attenuates less
    than tissue, hence the brightening behind it; amplification corrects the average loss only in part.
    """
    echo = (1 - 0.985 * subject.ink) * subject.tissue**2
    scatterers = (random.standard_normal(echo.shape) + 1j * random.standard_normal(echo.shape)) * np.sqrt(echo)
    deep = np.linspace(0, 1, echo.shape[0])
    wide_px = 0.55 + 2.2 * np.abs(deep - random.uniform(0.2, 0.45))
    field = across_the_beam(along_the_beam(scatterers, 0.42), wide_px)
    tissue_loss, fluid_loss = random.uniform(1.6, 2.4), 0.3  # nepers of amplitude over the image, both ways
    path = np.cumsum(tissue_loss + (fluid_loss - tissue_loss) * subject.ink, axis=0) / echo.shape[0]
    gain = np.exp(0.4 * tissue_loss * deep)[:, None]
    noise = random.standard_normal(echo.shape) + 1j * random.standard_normal(echo.shape)
    envelope = np.abs(field * np.exp(-path) * gain + 0.02 * noise)
    decibels = 20 * np.log10(np.maximum(pixels_of(envelope), 1e-6))
    return stored((decibels + 36 + random.normal(0, 1.5)) * 255 / 48, 8)


def along_the_beam(field: Array, sigma_px: float) -> Array:
    """A complex field through the pulse (rows); white noise keeps its power."""
    sigma = sigma_px * FINE
    parts = (gaussian_filter1d(part, sigma, axis=0, mode="nearest") for part in (field.real, field.imag))
    return (2 * np.sqrt(np.pi) * sigma) ** 0.5 * (next(parts) + 1j * next(parts))


def across_the_beam(field: Array, sigma_px: Array) -> Array:
    """A complex field through a beam whose width `sigma_px` (rows,) changes with depth; white noise keeps its power."""
    sigma = sigma_px[:, None] * FINE
    transfer = np.exp(-2 * (np.pi * np.fft.fftfreq(field.shape[1]) * sigma) ** 2)
    return (2 * np.sqrt(np.pi) * sigma) ** 0.5 * np.fft.ifft(np.fft.fft(field, axis=1) * transfer, axis=1)


def resonance(subject: Thing, random: np.random.Generator) -> Array:
    """Magnitude of a T2-weighted scan, 12 bit: bright fluid in a grey body, shaded, with Gibbs ringing.

    The body ends inside the field of view, outside is air. Fewer phase lines than pixels are measured, so that edges
    ring along the rows and the rest of the spectrum is zero; noise enters both parts of it and is Rician afterwards.
    """
    rows, columns = (np.kron(part, np.ones((FINE, FINE))) for part in distances())
    body = 1 / (1 + np.exp((np.hypot(rows / 0.98, columns / 0.9) - 1) / 0.02))
    signal = body * ((1 - subject.ink) * 0.38 * subject.tissue + subject.ink * 0.95 * subject.depth**0.5)
    coil = random.normal(0, 0.35, 2)
    shade = np.exp(coil[0] * rows + coil[1] * columns + 0.25 * (1 - rows**2 - columns**2))
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(signal * shade))) / FINE**2
    middle, lines, points = SIDE * FINE // 2, 22, SIDE
    kept = np.zeros((SIDE, SIDE), complex)
    cut = slice((SIDE - lines) // 2, (SIDE + lines) // 2)
    kept[cut] = spectrum[middle - lines // 2 : middle + lines // 2, middle - points // 2 : middle + points // 2]
    level = random.uniform(0.04, 0.07) * SIDE
    kept[cut] += level * (random.standard_normal((lines, SIDE)) + 1j * random.standard_normal((lines, SIDE)))
    image = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kept))))
    return stored(image * random.uniform(900, 1500), 12)


def stored(values: Array, bits: int) -> Array:
    """As the converter leaves it: rounded and clipped to the range of its bits."""
    return np.clip(np.rint(values), 0, 2**bits - 1).astype(np.uint8 if bits <= 8 else np.uint16)
