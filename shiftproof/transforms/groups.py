"""What a policy chooses from: groups of options, of which one in each group acts on a sample.

Two published pools, a pool of test-time views, and operations that destroy images, for proofs of concept.

Names are those of anatomy: a rotation about the longitudinal axis, which runs from foot to head, the sagittal one, from
back to front, or the frontal one, from right to left; a mirroring "sagittal" swaps right and left, "frontal" front and
back, "axial" head and foot. Which axis of the patch that is follows from the plan's orientation. In 2D there is one
rotation, within the picture, and the mirrorings of its two axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..names import choose


@dataclass(frozen=True)
class Option:
    """One way to change a sample.

    Args:
        name: Unique within its group, such as "scale 0.15".
        operation: What is done: "identity"; "scale", "rotate" by degrees, "turn" by quarter turns, exactly, "mirror";
            or a change of intensity, see `pool.STAGES`.
        magnitude: Centre of the amount: a share of 1 for scale, multiplication, contrast and gamma, degrees, quarter
            turns, voxels of blur and sharpening, the zoom of low resolution, else units of the image (standard
            deviations of a z-scored one).
        spread: The amount is uniform within `magnitude` +- `spread`, at least 0.
        sign: 1 or -1; 0 takes either with probability 1/2, drawn for each sample.
        ratio: Whether a negative amount divides by 1 + amount; else 1 - amount is the factor.
        axes: Axes that are mirrored, or the axis of a rotation or ramp.
        whole_range: Gamma keeps the range of intensities, as in the first pool, rather than mean and deviation.
    """

    name: str
    operation: str = "identity"
    magnitude: float = 0.0
    spread: float = 0.0
    sign: int = 0
    ratio: bool = False
    axes: tuple[int, ...] = ()
    whole_range: bool = False


@dataclass(frozen=True)
class Group:
    """Options of which exactly one is chosen for a sample; the first is the identity."""

    name: str
    options: tuple[Option, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(option.name for option in self.options)


IDENTITY = Option("identity")
POOLS = ("talk", "jcsa", "views")
DEFAULT_POOL = "talk"

ORIENTATION = "LPS"
"""Where the axes of a patch point to, unless it is said: as slices across the body have them, and pictures."""

_ENDS = {"sagittal": "LR", "frontal": "PA", "axial": "SI"}
"""Between what a mirroring swaps."""


def groups(pool: str, dimensions: int, *, destroying: bool = False, orientation: str = ORIENTATION) -> list[Group]:
    """All groups of a pool, as if patches were cubes of cubic voxels; see `Pool` for what is left out otherwise.

    Args:
        pool: "talk", "jcsa" or "views".
        dimensions: 2 or 3.
        destroying: With 15 operations that destroy the image: in the one group of "talk" and "views", in a group of
            their own in "jcsa".
        orientation: Where the axes point to, such as "LPS"; in 2D the first two letters count.

    Raises:
        OptionError: If there is no such pool.
    """
    choose(pool, POOLS, "pool of operations")
    found = {"talk": _talk, "jcsa": _jcsa, "views": _views}[pool](dimensions, orientation or ORIENTATION)
    if destroying and pool == "jcsa":
        return [*found, Group("destroying", (IDENTITY, *destroying_options(dimensions)))]
    if destroying:
        return [Group(found[0].name, (*found[0].options, *destroying_options(dimensions)))]
    return found


def _talk(dimensions: int, orientation: str) -> list[Group]:
    """10 operations, 44 options of one group (33 in 2D)."""
    fine, small = (0.05, 0.1, 0.15, 0.2, 0.25), (0.01, 0.02, 0.03, 0.04, 0.05)
    options = [IDENTITY, *(Option(f"scale {m:g}", "scale", m) for m in fine)]
    for name, axis in _rotations(dimensions, orientation).items():
        options += [_rotated(name, axis, degrees) for degrees in (10, 20, 30, 90, 180)]
    options += _mirrors(dimensions, orientation)
    options += [Option(f"contrast {m:g}", "multiply", m) for m in small]
    options += [Option(f"brightness {m:g}", "add", m) for m in fine]
    options += [Option(f"noise {m:g}", "noise", m, sign=1) for m in fine]
    options += [Option(f"gamma {m:g}", "gamma", m, whole_range=True) for m in fine]
    return [Group("all", tuple(options))]


def _jcsa(dimensions: int, orientation: str) -> list[Group]:
    """15 groups (12 in 2D) in the order of the published list; all act on a sample, each by one option."""
    scales = [Option(f"scale {m:g}", "scale", m, 0.05, ratio=True) for m in (0.05, 0.15, 0.25, 0.35, 0.45)]
    found = [_group("scale", scales)]
    for name, axis in _rotations(dimensions, orientation).items():
        turned = [_rotated(name, axis, degrees, 5) for degrees in (5, 15, 25, 90)]
        found.append(_group(f"rotate {name}", turned))
    found += [_group(mirror.name, [mirror]) for mirror in _mirrors(dimensions, orientation)]
    for bent in ("gamma", "inverted gamma"):
        found.append(_group(bent, [Option(f"{bent} {m:g}", bent, m, 0.1, ratio=True) for m in (0.1, 0.3, 0.5)]))
    fine = (0.05, 0.15, 0.25)
    found.append(_group("brightness add", [Option(f"add {m:g}", "add", m, 0.05) for m in fine]))
    found.append(
        _group("brightness multiply", [Option(f"multiply {m:g}", "multiply", m, 0.05, ratio=True) for m in fine])
    )
    found.append(_group("contrast", [Option(f"contrast {m:g}", "contrast", m, 0.05, ratio=True) for m in fine]))
    blurs = [Option(f"blur {s:g}", "blur", s, 0.1, 1) for s in (0.5, 0.7, 0.9)]
    found.append(
        _group("blur or sharpen", [*blurs, *(Option(f"sharpen {s:g}", "sharpen", s, 0.1, 1) for s in (0.9, 0.7, 0.5))])
    )
    found.append(_group("noise", [Option(f"noise {s:g}", "noise", s, 0.025, 1) for s in (0.025, 0.075, 0.125)]))
    low = [Option(f"low resolution {z:g}", "low resolution", z, 0.1, 1) for z in (0.9, 0.7, 0.5)]
    return [*found, _group("low resolution", low)]


def _views(dimensions: int, orientation: str) -> list[Group]:
    """84 signed, deterministic views of one group (64 in 2D): what `jcsa` does, without chance."""
    options = [IDENTITY]
    options += _signed("scale", (0.05, 0.15, 0.25, 0.35, 0.45))
    axes = _rotations(dimensions, orientation)
    for name, axis in axes.items():
        options += _signed("rotate", (5, 15, 25), f"rotate {name}", axes=(axis,))
    mirrors = _mirrors(dimensions, orientation)
    options += mirrors
    for name, axis in axes.items():
        options += [
            Option(f"turn {name} {words}", "turn", quarters, 0, sign, axes=(axis,))
            for words, quarters, sign in (("+90", 1, 1), ("-90", 1, -1), ("180", 2, 1))
        ]
    options += _signed("gamma", (0.1, 0.3, 0.5)) + _signed("inverted gamma", (0.1, 0.3, 0.5))
    for name in ("add", "multiply", "contrast"):
        options += _signed(name, (0.05, 0.15, 0.25))
    options += [Option(f"blur {s:g}", "blur", s, 0, 1) for s in (0.5, 0.7, 0.9)]
    options += [Option(f"sharpen {s:g}", "sharpen", s, 0, 1) for s in (0.9, 0.7, 0.5)]
    options += [Option(f"noise {s:g}", "noise", s, 0, 1) for s in (0.025, 0.075, 0.125)]
    options += [Option(f"low resolution {z:g}", "low resolution", z, 0, 1) for z in (0.9, 0.7, 0.5)]
    if dimensions == 3:  # in 2D that is the half turn
        options.append(Option("mirror all", "mirror", sign=1, axes=(0, 1, 2)))
    return [Group("views", tuple(options))]


def destroying_options(dimensions: int) -> list[Option]:
    """15 operations after which hardly anything of the image is left: a policy has to learn to leave them."""
    options = [
        Option(f"constant {v:g}", "constant", abs(v), 0, -1 if v < 0 else 1) for v in (-2.0, -1.0, 0.0, 1.0, 2.0)
    ]
    options += [Option(f"drown in noise {s:g}", "noise", s, 0, 1) for s in (4.0, 8.0, 16.0)]
    options += [Option("static", "static", 1.0, 0, 1), Option("scramble", "scramble", 1.0, 0, 1)]
    options += [Option("blur 32", "blur", 32.0, 0, 1), Option("one voxel", "low resolution", 0.0, 0, 1)]
    options.append(Option("no contrast", "contrast", 1.0, 0, -1))
    return options + [Option(f"ramp {axis}", "ramp", 1.0, 0, 1, axes=(axis,)) for axis in (0, dimensions - 1)]


def _group(name: str, options: Sequence[Option]) -> Group:
    return Group(name, (IDENTITY, *options))


def _rotated(name: str, axis: int, degrees: float, spread: float = 0.0) -> Option:
    """Of right angles no voxel has to be interpolated."""
    words = f"rotate {name} {degrees:g}"
    if degrees % 90:
        return Option(words, "rotate", degrees, spread, axes=(axis,))
    return Option(words, "turn", degrees / 90, axes=(axis,))


def axis_between(ends: str, orientation: str) -> int:
    """The axis of a patch that runs between two ends of the body, such as "LR"."""
    return next(axis for axis, letter in enumerate(orientation) if letter in ends)


def _rotations(dimensions: int, orientation: str) -> dict[str, int]:
    """Axes of rotation by name; in 2D the only one."""
    if dimensions == 2:
        return {"in plane": 0}
    named = {"frontal": "LR", "sagittal": "PA", "longitudinal": "SI"}
    return {name: axis_between(ends, orientation) for name, ends in named.items()}


def _mirrors(dimensions: int, orientation: str) -> list[Option]:
    axes = {name: axis_between(ends, orientation) for name, ends in _ENDS.items()}
    return [
        Option(f"mirror {name}", "mirror", sign=1, axes=(axis,)) for name, axis in axes.items() if axis < dimensions
    ]


def _signed(operation: str, magnitudes: Sequence[float], name: str = "", axes: tuple[int, ...] = ()) -> list[Option]:
    ratio = operation not in ("rotate", "add")
    return [
        Option(f"{name or operation} {words}{m:g}", operation, m, 0, sign, ratio, axes)
        for m in magnitudes
        for words, sign in (("+", 1), ("-", -1))
    ]
