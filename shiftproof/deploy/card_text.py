"""The model card: what a model is for, how well it did at sites new to it, and where that ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..metrics.rules import tolerance_words

METRICS = {"dice": ("Dice", 3), "surface dice": ("surface Dice", 3), "hd95 mm": ("HD95 in mm", 1)}
"""Metrics of the table of held-out domains, with titles and digits."""


def metrics_of(target: Facts) -> dict[str, tuple[str, int]]:
    """As `METRICS`, for what a plan's `target` says is predicted; the primary metric first."""
    if target.get("task") == "classification":
        several = {"class error": ("classes off", 2)} if target.get("kind") == "ordinal" else {}
        return {"correct": ("accuracy", 3), **several, "brier": ("Brier score", 3)}
    if target.get("task") == "regression":
        unit = f" {target['unit']}" if target.get("unit") else ""
        return {f"absolute error{unit}": (f"absolute error{' in' + unit if unit else ''}", 2)}
    return METRICS


ENDS = ("mean", "low", "high")

FEW = 10
"""Below this many subjects a domain's mean says little."""

Facts = Mapping[str, Any]


def card(description: Facts) -> str:
    """Markdown from the content of `model.json`, and from nothing else."""
    information, statistics = description["information"], description["plan"].get("statistics", {})
    structures = ", ".join(_structures(description["plan"]))
    parts = [
        f"# Model card: {structures} by {description['recipe']['method']}",
        *_purpose(description),
        "## At sites that training never saw",
        *_held_out(information, description["plan"]),
        "## Limits",
        _bullets(_limits(description, statistics)),
        "## How it was chosen",
        *_choice(information),
        "## Training data",
        *_training(statistics),
        "## How to use it",
        *_use(description),
        "## How it was made",
        _bullets(_making(description)),
    ]
    return "\n\n".join(parts) + "\n"


def _purpose(description: Facts) -> list[str]:
    plan = description["plan"]
    kind = "volumes, slice by slice" if plan["dimensions"] == 2 else "volumes"
    kind = kind if plan["orientation"] else "pictures"
    channels = "channels" if len(description["channels"]) > 1 else "channel"
    return [
        f"{_does(plan)} in {kind} with the {channels} {_listed(description['channels'])}"
        f"{'; every other voxel is background' if _task(plan) == 'segmentation' else ''}. "
        "For research on images like those of the training domains below.",
        "**Not a medical device**: not for diagnosis, treatment or triage. Whoever uses it on new data "
        "checks it there first, on labelled scans of their own (`shiftproof evaluate`).",
    ]


def _task(plan: Facts) -> str:
    return str(plan.get("target", {}).get("task", "segmentation"))


def _structures(plan: Facts) -> list[str]:
    """What is predicted, by name."""
    task = _task(plan)
    if task == "regression":
        return [plan["target"]["column"]]
    return list(plan["classes"][task == "segmentation" :])


def _does(plan: Facts) -> str:
    names = _listed(_structures(plan))
    if _task(plan) == "segmentation":
        return f"Segments {names}"
    if _task(plan) == "regression":
        unit = plan["target"].get("unit")
        return f"Estimates {names}{f' in {unit}' if unit else ''}"
    several = plan["target"].get("kind") == "multi-label"
    return f"Says which of {names} are there" if several else f"Tells {names} apart"


def _held_out(information: Facts, plan: Facts) -> list[str]:
    results, study = information.get("held_out"), information.get("study") or {}
    if not results:
        return [
            "Not measured: this model was trained outside of a study, so nothing is known of its accuracy at "
            "a new site."
        ]
    domain, tolerance = study.get("domain_column") or "domain", study.get("tolerance_mm")
    every = results["all"]
    measured = {**results["by_domain"], "all": every}
    metrics = metrics_of(plan.get("target", {}))
    primary, digits_of = next(iter(metrics.values()))
    scores = [
        [name, str(found["subjects"]), *(_interval(found[m], digits) for m, (_, digits) in metrics.items())]
        for name, found in measured.items()
    ]
    structures = [
        [name, *(_interval(found["structures"].get(s), digits_of) for s in every["structures"])]
        for name, found in measured.items()
    ]
    surface = f" Surface Dice is at {tolerance_words(tolerance)}." if tolerance and metrics is METRICS else ""
    by = {"segmentation": "structure", "classification": "class"}.get(_task(plan), "number")
    return [
        f"Held out in turn: {domain} {_listed(list(results['by_domain']))}. Each time the same recipe was trained "
        "without it and scored on it. Means over subjects with 95 % intervals; "
        f"{_plural(len(results['seeds']), 'seed')}, averaged within each subject first.{surface}",
        _table([domain, "subjects", *(title for title, _ in metrics.values())], scores),
        f"{primary[0].upper()}{primary[1:]} by {by}:",
        _table([domain, *every["structures"]], structures),
        f"These numbers belong to the recipe. The weights in this folder were trained on every {domain} "
        "together, so they have no held-out score of their own.",
    ]


def _limits(description: Facts, statistics: Facts) -> list[str]:
    found = []
    if domains := statistics.get("domains"):
        column = statistics.get("domain", "domain")
        found.append(
            f"It has seen {column} {_listed(list(domains))} and nothing else. Other scanners, sequences, "
            "voxel sizes, fields of view, age groups and diseases are outside of what was measured; the "
            "table of training data says what a usual scan was."
        )
    if results := description["information"].get("held_out"):
        found += _weak_spots(results, description["plan"])
    else:
        found.append("Its accuracy at a new site was not measured.")
    if adaptation := description["recipe"].get("test_time"):
        found.append(
            f"It adapts while predicting ({adaptation}): a result can depend on which windows are scored together."
        )
    return [
        *found,
        "It gives an answer for every image, also for one of another body part; nothing in it says when it is unsure.",
    ]


def _weak_spots(results: Facts, plan: Facts) -> list[str]:
    lines = []
    metric, (title, digits) = next(iter(metrics_of(plan.get("target", {})).items()))
    lower = _task(plan) == "regression"
    by_domain, every, worst = results["by_domain"], results["all"], results["worst_domain"]
    if worst is not None and len(by_domain) > 1:
        score = by_domain[worst][metric]
        lines.append(
            f"Worst held-out domain: {worst}, {title} {_interval(score, digits)} over "
            f"{_plural(score['n'], 'subject')}. A new site can do as badly, or worse."
        )
    means = {s: value["mean"] for s, value in every["structures"].items() if value["mean"] is not None}
    if len(means) > 1:
        weakest = (max if lower else min)(means, key=lambda s: means[s])
        what = "structure" if _task(plan) == "segmentation" else "class"
        lines.append(f"Weakest {what}: {weakest}, mean {title} {means[weakest]:.{digits}f}.")
    words = {"missed": "missed", "spurious": "found where the label has none"}
    wrong = [f"{every['status'][kind]} {word}" for kind, word in words.items() if every["status"].get(kind)]
    if wrong:
        total = sum(n for kind, n in every["status"].items() if kind != "both empty")
        lines.append(f"Of {total} structures, counted by subject and seed: {_listed(wrong)}. Each counts as Dice 0.")
    few = [f"{d} ({found['subjects']})" for d, found in by_domain.items() if found["subjects"] < FEW]
    if few:
        lines.append(f"Held-out domains with fewer than {FEW} subjects, whose means say little: {', '.join(few)}.")
    return lines


def _choice(information: Facts) -> list[str]:
    selection = information.get("selection") or {}
    if not selection:
        return ["By its user; no rule compared it with others."]
    row, rule, selected = information.get("row"), selection.get("rule"), selection.get("row")
    if selected in (None, row):
        found = [f'"{row}": {rule}. Held-out scores took no part.']
    else:
        found = [f'"{row}": {rule}. The rule itself selects "{selected}".']
    if scores := selection.get("scores"):
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        found.append(_table(["row", "validation score"], [[name, f"{value:.4f}"] for name, value in ranked]))
    return found


def _training(statistics: Facts) -> list[str]:
    domains = statistics.get("domains")
    if not domains:
        return ["The plan records no statistics."]
    channels = list(dict.fromkeys(c for found in domains.values() for c in found["intensity"]))
    header = [statistics.get("domain", "domain"), "subjects", "scans", "voxel in mm", "size in voxels"]
    lines = []
    for name, found in domains.items():
        spread = [found["intensity"].get(channel) for channel in channels]
        lines.append(
            [
                name,
                str(found["subjects"]),
                str(found["scans"]),
                " x ".join(f"{v:.3g}" for v in found["spacing_mm"]),
                " x ".join(f"{v:.0f}" for v in found["size"]),
                *(f"{v['p0.5']:.4g} to {v['p99.5']:.4g}" if v else "absent" for v in spread),
            ]
        )
    return [
        _table([*header, *channels], lines),
        "Voxel size and size are medians; of intensities, as stored in the files, percentiles 0.5 to 99.5.",
    ]


def _use(description: Facts) -> list[str]:
    channels = description["channels"]
    names = " ".join(f"`NAME_{channel}.nii.gz`" for channel in channels)
    files = f" (several channels as {names})" if len(channels) > 1 else ""
    values = f"their values are {_values(description)}"
    if _task(description["plan"]) != "segmentation":
        values = "`predictions.csv` holds all of them"
    return [
        "```\nshiftproof predict MODEL SCANS OUT\n```",
        f"MODEL is this folder; SCANS are files{files}, folders of them, or a cohort's table. Results lie in "
        f"the geometry of each scan; {values}."
        if _task(description["plan"]) == "segmentation"
        else f"MODEL is this folder; SCANS are files{files}, folders of them, or a cohort's table. Each scan gets an "
        f"answer in JSON; {values}.",
        "Nothing in this folder is a program: weights are safetensors, the rest is JSON and this text.",
    ]


def _values(description: Facts) -> str:
    """What the numbers in a label file mean."""
    if description["plan"].get("target", {}).get("kind") == "multi-label":
        bits = ", ".join(f"{2**k} {name}" for k, name in enumerate(description["classes"][1:]))
        return f"the sums of {bits} for what is there"
    return ", ".join(f"{i} {name}" for i, name in enumerate(description["classes"]))


def _making(description: Facts) -> list[str]:
    recipe, plan, information = description["recipe"], description["plan"], description["information"]
    study = information.get("study") or {}
    chosen = {key: value for key, value in recipe.items() if value not in (None, {}, False)}
    spacing = " x ".join("as it is" if s is None else f"{s:.3g}" for s in plan["spacing_mm"])
    schemes = ", ".join(f"{channel} by {rule['scheme']}" for channel, rule in plan["normalisation"].items())
    versions = information.get("versions") or study.get("versions") or {}
    found = {
        "recipe": f"`{json.dumps(chosen, ensure_ascii=False)}`",
        "orientation": plan["orientation"] or "axes as they are",
        "voxels": f"{spacing} mm",
        "windows": " x ".join(map(str, plan["patch"])),
        "intensities": schemes,
        "weights": f"sha256 {description['weights_sha256']}",
        "study": f"`{study['command']}`" if study.get("command") else "",
        "cohort": f"sha256 {study['cohort_hash']}" if study.get("cohort_hash") else "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "written by": f"shiftproof {description['shiftproof']}",
    }
    return [f"{name}: {value}" for name, value in found.items() if value]


def _interval(found: Facts | None, digits: int) -> str:
    if not found or found["mean"] is None:
        return "unknown"
    mean, low, high = (v if v is None else f"{round(v, digits) + 0.0:.{digits}f}" for v in map(found.get, ENDS))
    return f"{mean} (n = {found['n']}, no interval)" if low is None else f"{mean} ({low} to {high})"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    # A bar within a cell would end it.
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")
