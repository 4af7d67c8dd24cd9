"""All scores of a study in one model: each row's mean, and where the rest of the spread comes from."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import OptionError
from .intervals import Interval, constant

if TYPE_CHECKING:
    from statsmodels.regression.mixed_linear_model import MixedLMResults

SITES = ("held_out", "domain", "site")  # columns that may say where a subject is from
SMALL = 0.1  # of the scores' variance
LARGEST = 100_000_000  # of `work`: some 10 seconds


@dataclass(frozen=True)
class Mixed:
    """score ~ row + (1 | site) + (1 | subject) + (1 | seed), by restricted maximum likelihood.

    `means` holds each row's mean with its interval for another site of the same kind, `variance` the components
    "site", "subject", "seed" (of a training: each row, site and seed has its own) and "residual", in squared units of
    the score, and `sd` their roots. A component that the design cannot part from the others is not there, and `note`
    says why. Where `reason` is not empty there is no fit, and nothing else.

    Differences between rows belong to paired tests: here a row that does well on some subjects and badly on others
    is part of the residual.
    """

    means: dict[str, Interval] = field(default_factory=dict)
    variance: dict[str, float] = field(default_factory=dict)
    sd: dict[str, float] = field(default_factory=dict)
    converged: bool = False
    freedom: int = 0
    n: int = 0
    reason: str = ""
    note: str = ""


def mixed(
    rows: pd.DataFrame,
    *,
    site: str | None = None,
    level: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Mixed:
    """Fit the model to one metric.

    Rows are fixed effects, the others random, crossed or nested as they are. The intervals are of Wald's kind with a
    t distribution of as many degrees of freedom as there are sites less one (subjects less one for a single site):
    three sites say little about a fourth, however many subjects they have.

    Args:
        rows: Columns `row`, `subject`, `seed` (may be missing) and `value`; lines of the same row, site, subject and
            seed are averaged. NaN is left out.
        site: Column of the site; None for the first of `held_out`, `domain` and `site` that is there, if any.
        level: Coverage.
        within: Where a mean can lie, (0, 1) for Dice: an interval that reaches beyond ends there.

    Raises:
        OptionError: For a missing column, scores that are no numbers, or a level outside 0 to 1.
    """
    if not 0 < level < 1:
        raise OptionError(f"the level of an interval lies between 0 and 1, got {level}")
    lines = one_each(rows, site)
    n, subjects, sites = len(lines), lines["subject"].nunique(), lines["site"].nunique()
    if subjects < 2:
        return Mixed(n=n, reason=f"a mixed model takes at least 2 subjects with scores, got {subjects}")
    if constant(lines["value"].to_numpy()):
        return Mixed(n=n, reason="all scores are equal: there is no spread to part")
    if work(lines, effects_of(lines)[0]) > LARGEST:
        lines = lines.groupby(["row", "site", "subject"], sort=True)["value"].mean().reset_index().assign(seed="mean")
    effects, notes = effects_of(lines)
    if len(lines) < n:
        notes[-1] = f"{n} scores: seeds averaged, no component of seeds"
    note = "; ".join(notes)
    if not effects:
        return Mixed(n=n, reason=f"nothing to part from the residual: {note}")
    if work(lines, effects) > LARGEST:
        return Mixed(n=n, reason=f"{subjects} subjects of {sites} sites are too many for a mixed model", note=note)

    fit, kept, said = best_fit(lines, effects, groups_of(lines))
    if fit is None:
        return Mixed(n=n, reason=f"the model did not converge{f' ({said})' if said else ''}", note=note)
    size = float(lines["value"].std(ddof=0))
    variance = components(fit, effects, kept, size)
    none = [f"{e}s" for e in effects if not variance[e]]
    if none:
        notes.append(f"no spread between {' and '.join(none)} beyond chance")
    freedom = (sites if sites > 1 else subjects) - 1
    sd = {name: math.sqrt(v) for name, v in variance.items()}
    means = means_of(fit, lines, size, freedom, level, within)
    return Mixed(means, variance, sd, True, freedom, n, note="; ".join(notes))


def components(fit: MixedLMResults, effects: list[str], kept: list[str], size: float) -> dict[str, float]:
    """Variances in squared units of the score; 0 for what was left out or is below a millionth of the whole."""
    found = dict(zip(kept, np.asarray(fit.vcomp).tolist(), strict=True))
    parts = {e: found.get(e, 0.0) for e in effects} | {"residual": float(fit.scale)}
    return {e: v * size**2 if v >= 1e-6 or e == "residual" else 0.0 for e, v in parts.items()}


def one_each(rows: pd.DataFrame, site: str | None) -> pd.DataFrame:
    """Columns row, site, subject, seed, value: one line each, without NaN. A seed is a training, of a row and site."""
    named = site or next((c for c in SITES if c in rows), None)
    lacking = [c for c in ("row", "subject", "value", *([site] if site else [])) if c not in rows]
    if lacking:
        raise OptionError(f"scores without {', '.join(lacking)}, expected the columns row, subject, value and seed")
    found = pd.DataFrame(
        {
            "row": rows["row"].astype(str),
            "site": rows[named].astype(str) if named else "all",
            "subject": rows["subject"].astype(str),
            "seed": rows["seed"].astype(str) if "seed" in rows else "0",
            "value": numbers(rows["value"]),
        }
    )
    found = found[np.isfinite(found["value"])]
    lines = found.groupby(["row", "site", "subject", "seed"], sort=True)["value"].mean().reset_index()
    return lines.assign(seed=lines["row"] + "\n" + lines["site"] + "\n" + lines["seed"])


def numbers(values: pd.Series) -> pd.Series:
    try:
        return values.astype(float)
    except (TypeError, ValueError) as error:
        raise OptionError(f"the scores of a mixed model are numbers or NaN ({error})") from None


def effects_of(lines: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Names of the random effects that the design can part, and why others cannot be."""
    seeds = int(lines.groupby(["row", "site"])["seed"].nunique().max())
    effects, notes = [], []
    for name, repeated, why in (
        ("site", lines["site"].nunique() > 1, "one site"),
        ("subject", lines["subject"].nunique() < len(lines), "one score a subject"),
        ("seed", seeds > 1 and lines["seed"].nunique() < len(lines), "one seed"),
    ):
        if repeated:
            effects.append(name)
        else:
            notes.append(f"{why}: no component of {name}s")
    return effects, notes


def groups_of(lines: pd.DataFrame) -> pd.Series:
    """Lines of different groups have nothing in common: sites, unless a subject was seen at several."""
    nested = bool((lines.groupby("subject")["site"].nunique() == 1).all())
    return lines["site"] if nested else pd.Series("all", index=lines.index)


def work(lines: pd.DataFrame, effects: list[str]) -> int:
    """Multiplications of one look at the likelihood, about."""
    return sum(len(part) * sum(part[e].nunique() for e in effects) ** 2 for _, part in lines.groupby(groups_of(lines)))


def best_fit(lines: pd.DataFrame, effects: list[str], group: pd.Series) -> tuple[MixedLMResults | None, list[str], str]:
    """The likeliest fit, the effects that have spread in it, and what was said where there is none.

    Near a variance of 0 optimisers stop short of it or fail. So an effect that comes out small is left out for trial,
    and stays out where the likelihood does not suffer.
    """
    fit, said = fitted(lines, effects, group)
    sizes = dict(zip(effects, np.asarray(fit.vcomp), strict=True)) if fit is not None else dict.fromkeys(effects, 0.0)
    for effect in sorted((e for e in effects if sizes[e] < SMALL), key=lambda e: sizes[e]):
        fewer = [e for e in effects if e != effect]
        other = fitted(lines, fewer, group)[0] if fewer else None
        if other is not None and (fit is None or other.llf >= fit.llf - 1e-6):
            return best_fit(lines, fewer, group)
    return fit, effects, said


def fitted(lines: pd.DataFrame, effects: list[str], group: pd.Series) -> tuple[MixedLMResults | None, str]:
    """The fit to standardised scores, or None and what the optimiser said."""
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    groups = group.to_numpy()
    parts = [lines[groups == g] for g in np.unique(groups)]
    names = [[sorted(part[e].unique()) for part in parts] for e in effects]
    designs = [
        [indicators(part[e], own) for part, own in zip(parts, levels, strict=True)]
        for e, levels in zip(effects, names, strict=True)
    ]
    values = lines["value"].to_numpy()
    # The optimiser's steps and tolerances suit numbers near 1, not a variance of 0.0001.
    scores = (values - values.mean()) / values.std()
    exog = indicators(lines["row"], sorted(lines["row"].unique()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = MixedLM(scores, exog, groups=groups, exog_vc=VCSpec(effects, names, designs))
            fit: Any = model.fit(reml=True, method=["lbfgs", "bfgs", "powell"])
            sure = np.isfinite(np.concatenate([np.asarray(fit.vcomp), np.asarray(fit.bse_fe)])).all()
        except (np.linalg.LinAlgError, ValueError) as error:
            return None, str(error)
    if fit.converged and sure:
        return fit, ""
    return None, str(caught[-1].message).split("\n")[0] if caught else ""


def indicators(labels: pd.Series, levels: list[str]) -> np.ndarray:
    return (labels.to_numpy()[:, None] == np.asarray(levels, dtype=object)).astype(float)


def means_of(
    fit: MixedLMResults,
    lines: pd.DataFrame,
    size: float,
    freedom: int,
    level: float,
    within: tuple[float, float],
) -> dict[str, Interval]:
    names = sorted(lines["row"].unique())
    middle = np.asarray(fit.fe_params) * size + float(lines["value"].mean())
    half = np.asarray(fit.bse_fe) * size * float(stats.t.ppf((1 + level) / 2, freedom))
    low, high = np.maximum(middle - half, within[0]), np.minimum(middle + half, within[1])
    counts = lines.groupby("row")["subject"].nunique()
    how = f"mixed model, t with {freedom} df"
    return {
        name: Interval(float(middle[i]), float(low[i]), float(high[i]), int(counts[name]), how)
        for i, name in enumerate(names)
    }
