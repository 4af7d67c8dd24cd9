"""Plans of a study's size from scores that methods got in a pilot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import OptionError
from .pilots import measured, unusable
from .planning import PowerPlan, check, nan, plan
from .power import Design, checked
from .simulated import STUDIES, SimulatedTest, simulated_power, simulated_power_unpaired
from .whatif import rms

if TYPE_CHECKING:
    import pandas as pd


def plan_from_pilot(
    a: ArrayLike,
    b: ArrayLike,
    *,
    names: tuple[str, str] = ("A", "B"),
    effect: float | None = None,
    subjects: int | None = None,
    design: Design = "paired",
    power: float = 0.8,
    level: float = 0.05,
    comparisons: int = 1,
    simulate: SimulatedTest | None = None,
    studies: int = STUDIES,
    seed: int = 0,
) -> PowerPlan:
    """A plan from scores that two methods got in a pilot.

    Args:
        a: (N,) one score a subject; NaN where a subject has none.
        b: (N,) of the same subjects in the same order; (M,) of others where the design is unpaired.
        names: Of the methods.
        effect: True mean difference to find. The pilot's own is no default: it is too uncertain to plan with.
        subjects: As in `plan_power`; the pilot's own number by default.
        design: As in `plan_power`.
        power: As in `plan_power`.
        level: As in `plan_power`.
        comparisons: As in `plan_power`.
        simulate: A test whose power is found by drawing from the pilot too; Welch's where the design is unpaired.
        studies: Drawn for that.
        seed: Of the draws.

    Raises:
        OptionError: For numbers out of range, or paired scores of different length.
    """
    check(effect, subjects, power, level, comparisons)
    first, second = (np.asarray(side, dtype=float).ravel() for side in (a, b))
    pilot = measured(first, second, names, checked(design))
    subjects = pilot.n if subjects is None and pilot.n > 1 else subjects
    reason, sds = unusable(pilot, design), (pilot.sd_a, pilot.sd_b)
    if reason:
        return PowerPlan(
            design, nan(effect), rms(sds), pilot.correlation, pilot.sd, subjects, level / comparisons, comparisons,
            power, pilot=pilot, reason=reason,
        )  # fmt: skip
    known = pilot.correlation if math.isfinite(pilot.correlation) else None
    found = plan(
        effect, pilot.sd, sds=sds if min(sds) > 0 else None, correlation=known, subjects=subjects, design=design,
        wanted=power, level=level, comparisons=comparisons, notes=[], pilot=pilot,
    )  # fmt: skip
    if simulate is None or effect is None or subjects is None:
        return found
    shift = math.copysign(effect, pilot.mean_difference)  # the direction in which the pilot's differences are skewed
    draws: dict[str, Any] = {"shift": shift, "level": found.level, "resamples": studies, "seed": seed}
    drawn = (
        simulated_power(first - second, subjects, test=simulate, **draws)
        if design == "paired"
        else simulated_power_unpaired(first, second, subjects, **draws)
    )
    return dataclasses.replace(found, simulated=drawn)


def plan_pairs(wide: pd.DataFrame, *, rows: Sequence[str] | None = None, **options: Any) -> list[PowerPlan]:
    """A plan of each pair of methods.

    Args:
        wide: Scores, a line a subject, a column a method.
        rows: Methods to pair, in this order; all by default.
        options: Of `plan_from_pilot`.

    Raises:
        OptionError: As `plan_from_pilot`, or for fewer than two methods.
    """
    names = [str(name) for name in (wide.columns if rows is None else rows)]
    if len(names) < 2:
        raise OptionError(f"a pair takes two methods, got {len(names)}{': ' + names[0] if names else ''}")
    return [
        plan_from_pilot(wide[first].to_numpy(), wide[second].to_numpy(), names=(first, second), **options)
        for i, first in enumerate(names)
        for second in names[i + 1 :]
    ]


def middling(plans: Sequence[PowerPlan]) -> PowerPlan | None:
    """The plan whose spread is the median one, of those that are plans; the lower of two middles."""
    usable = sorted((p for p in plans if not p.reason), key=lambda p: p.spread)
    return usable[(len(usable) - 1) // 2] if usable else None
