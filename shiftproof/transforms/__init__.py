"""Augmentation, batched over samples, on the device the samples are on."""

from .presets import PRESETS, preset
from .spans import Chance, Normal, Seed, Uniform
from .spatial import Spatial
from .transform import Compose, Parameters, Transform, Varied

__all__ = [
    "PRESETS",
    "Chance",
    "Compose",
    "Normal",
    "Parameters",
    "Seed",
    "Spatial",
    "Transform",
    "Uniform",
    "Varied",
    "preset",
]
