"""The MR signal from T1, T2 and proton density: the equations of the sequences, and the tissues.

Every sequence is a frozen dataclass with times in ms and angles in degrees. `signal(tissue)` is the
transverse magnetisation at the echo, relative to water's proton density, and negative where an inversion has
not yet recovered: voxels add what their tissues give before the scanner takes the magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms and proton density relative to water; numbers or arrays.

    T2* follows from T2 and the dephasing rate of the field (`static_rate`, 1/ms), which gradient echoes see.
    """

    t1_ms: float | Array
    t2_ms: float | Array
    density: float | Array
    static_rate: float = 0.0

    @property
    def t2_star_ms(self) -> float | Array:
        return 1 / (1 / self.t2_ms + self.static_rate)


class Sequence(Protocol):
    @property
    def name(self) -> str: ...
    def signal(self, tissue: Tissue) -> Array: ...
    def parameters(self) -> str: ...


def decay(time_ms: float, constant_ms: float | Array) -> Array:
    return np.exp(-time_ms / np.asarray(constant_ms, dtype=np.float64))


@dataclass(frozen=True)
class SpinEcho:
    """Repeated 90-180 degree pairs; the longitudinal recovery during the echo is neglected (TE << TR)."""

    tr_ms: float
    te_ms: float
    name: str = "T1w spin echo"

    def signal(self, tissue: Tissue) -> Array:
        return tissue.density * (1 - decay(self.tr_ms, tissue.t1_ms)) * decay(self.te_ms, tissue.t2_ms)

    def parameters(self) -> str:
        return f"TR {self.tr_ms:g} TE {self.te_ms:g} ms"


@dataclass(frozen=True)
class SpoiledGradientEcho:
    """Ernst's steady state with perfect spoiling."""

    tr_ms: float
    te_ms: float
    flip_deg: float
    name: str = "T1w spoiled gradient echo"

    def signal(self, tissue: Tissue) -> Array:
        angle, e1 = np.deg2rad(self.flip_deg), decay(self.tr_ms, tissue.t1_ms)
        steady = np.sin(angle) * (1 - e1) / (1 - np.cos(angle) * e1)
        return tissue.density * steady * decay(self.te_ms, tissue.t2_star_ms)

    def parameters(self) -> str:
        return f"TR {self.tr_ms:g} TE {self.te_ms:g} ms, {self.flip_deg:g} deg"


@dataclass(frozen=True)
class Mprage:
    """Inversion-prepared train of spoiled gradient echoes in its steady state.

    One period TR is: inversion (of efficiency `inversion`), recovery, `pulses` excitations every `spacing_ms`
    with the centre of k-space in the middle of the train at `ti_ms`, recovery. Each stage maps the
    longitudinal magnetisation linearly, m -> a m + b, so that the steady state is the fixed point of their
    composition (Marques et al., MP2RAGE, NeuroImage 2010, appendix, with a single train).
    """

    tr_ms: float
    ti_ms: float
    te_ms: float
    flip_deg: float
    spacing_ms: float = 7.0
    pulses: int = 160
    inversion: float = 0.96
    name: str = "T1w MPRAGE"

    def signal(self, tissue: Tissue) -> Array:
        angle, half = np.deg2rad(self.flip_deg), self.pulses // 2

        def recovery(time_ms: float) -> tuple[Array, Array]:
            e1 = decay(time_ms, tissue.t1_ms)
            return e1, 1 - e1

        def train(count: int) -> tuple[Array, Array]:
            e1 = decay(self.spacing_ms, tissue.t1_ms)
            a = (np.cos(angle) * e1) ** count
            return a, (1 - e1) * (1 - a) / (1 - np.cos(angle) * e1)

        before = recovery(self.ti_ms - half * self.spacing_ms)
        after = recovery(self.tr_ms - self.ti_ms - (self.pulses - half) * self.spacing_ms)
        a, b = np.asarray(-self.inversion), np.asarray(0.0)
        for slope, offset in (before, train(half)):
            a, b = slope * a, slope * b + offset
        centre = a, b
        for slope, offset in (train(self.pulses - half), after):
            a, b = slope * a, slope * b + offset
        magnetisation = centre[0] * b / (1 - a) + centre[1]
        return tissue.density * magnetisation * np.sin(angle) * decay(self.te_ms, tissue.t2_star_ms)

    def parameters(self) -> str:
        return f"TR {self.tr_ms:g} TI {self.ti_ms:g} TE {self.te_ms:g} ms, {self.flip_deg:g} deg"


@dataclass(frozen=True)
class InversionRecovery:
    """Inversion, delay TI, spin echo. With TI at the zero of fluid it is FLAIR."""

    tr_ms: float
    ti_ms: float
    te_ms: float
    name: str = "T2w FLAIR"

    def signal(self, tissue: Tissue) -> Array:
        recovered = 1 - 2 * decay(self.ti_ms, tissue.t1_ms) + decay(self.tr_ms, tissue.t1_ms)
        return tissue.density * recovered * decay(self.te_ms, tissue.t2_ms)

    def parameters(self) -> str:
        return f"TR {self.tr_ms:g} TI {self.ti_ms:g} TE {self.te_ms:g} ms"


# T1, T2 in ms at 1.5 and 3 T and proton density. Brain: Wansapura et al. 1999 (3 T), Stanisz et al. 2005,
# Bojorquez et al. 2017 (review), rounded to the middle of what they report; fat, marrow and muscle: de
# Bazelaire et al. 2004. Compact bone gives no signal at these echo times.
TISSUES: dict[str, dict[float, tuple[float, float]]] = {
    "csf": {1.5: (4000, 1800), 3.0: (4200, 1600)},
    "grey": {1.5: (1040, 95), 3.0: (1380, 88)},
    "white": {1.5: (660, 78), 3.0: (850, 72)},
    "lesion": {1.5: (1100, 140), 3.0: (1350, 130)},
    "bone": {1.5: (300, 0.4), 3.0: (350, 0.4)},
    "marrow": {1.5: (450, 55), 3.0: (520, 52)},
    "fat": {1.5: (320, 62), 3.0: (380, 66)},
    "skin": {1.5: (950, 38), 3.0: (1300, 33)},
}
DENSITY = {
    "csf": 1.0,
    "grey": 0.82,
    "white": 0.70,
    "lesion": 0.80,
    "bone": 0.15,
    "marrow": 0.75,
    "fat": 0.90,
    "skin": 0.70,
}
STATIC_RATE = {1.5: 0.0025, 3.0: 0.005}  # 1/ms; gives T2* of grey matter near 77 ms at 1.5 T and 61 ms at 3 T


def tissue(name: str, field_t: float, *, t1: float = 1.0, t2: float = 1.0, density: float = 1.0) -> Tissue:
    """A tissue at 1.5 or 3 T; `t1`, `t2`, `density` are a person's factors on the published means."""
    t1_ms, t2_ms = TISSUES[name][field_t]
    return Tissue(t1_ms * t1, t2_ms * t2, DENSITY[name] * density, STATIC_RATE[field_t])
