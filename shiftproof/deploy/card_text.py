"""The model card: what a model is for, how well it did at sites new to it, and where that ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

METRICS = {"dice": ("Dice", 3), "surface dice": ("surface Dice", 3), "hd95 mm": ("HD95 in mm", 1)}
"""Metrics of the table of held-out domains, with titles and digits."""

FEW = 10
"""Below this many subjects a domain's mean says little."""

Facts = Mapping[str, Any]


def card(description: Facts) -> str:
    """Markdown from the content of `model.json`, and from nothing else."""
    information, statistics = description["information"], description["plan"].get("statistics", {})
    structures = ", ".join(description["classes"][1:])
    parts = [
        f"# Model card: {structures} by {description['recipe']['method']}",
        *_purpose(description),
        "## At sites that training never saw",
        *_held_out(information),
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
        f"Segments {_listed(description['classes'][1:])} in {kind} with the {channels} "
        f"{_listed(description['channels'])}; every other voxel is background. "
        "For research on images like those of the training domains below.",
        "**Not a medical device**: not for diagnosis, treatment or triage. Whoever uses it on new data "
        "checks it there first, on labelled scans of their own (`shiftproof evaluate`).",
    ]


def _held_out(information: Facts) -> list[str]:
    results, study = information.get("held_out"), information.get("study") or {}
    if not results:
        return [
            "Not measured: this model was trained outside of a study, so nothing is known of its accuracy at "
            "a new site."
        ]
    domain, tolerance = study.get("domain_column") or "domain", study.get("tolerance_mm")
    every = results["all"]
    measured = {**results["by_domain"], "all": every}
    scores = [
        [name, str(found["subjects"]), *(_interval(found[m], digits) for m, (_, digits) in METRICS.items())]
        for name, found in measured.items()
    ]
    structures = [
        [name, *(_interval(found["structures"].get(s), 3) for s in every["structures"])]
        for name, found in measured.items()
    ]
    surface = f" Surface Dice is at {tolerance:g} mm." if tolerance else ""
    return [
        f"Held out in turn: {domain} {_listed(list(results['by_domain']))}. Each time the same recipe was trained "
        "without it and scored on it. Means over subjects with 95 % intervals; "
        f"{_plural(len(results['seeds']), 'seed')}, averaged within each subject first.{surface}",
        _table([domain, "subjects", *(title for title, _ in METRICS.values())], scores),
        "Dice by structure:",
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
        found += _weak_spots(results)
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


def _weak_spots(results: Facts) -> list[str]:
    lines = []
    by_domain, every, worst = results["by_domain"], results["all"], results["worst_domain"]
    if worst is not None and len(by_domain) > 1:
        dice = by_domain[worst]["dice"]
        lines.append(
            f"Worst held-out domain: {worst}, Dice {_interval(dice, 3)} over "
            f"{_plural(dice['n'], 'subject')}. A new site can do as badly, or worse."
        )
    means = {s: value["mean"] for s, value in every["structures"].items() if value["mean"] is not None}
    if len(means) > 1:
        weakest = min(means, key=lambda s: means[s])
        lines.append(f"Weakest structure: {weakest}, mean Dice {means[weakest]:.3f}.")
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
    values = ", ".join(f"{i} {name}" for i, name in enumerate(description["classes"]))
    return [
        "```\nshiftproof predict MODEL SCANS OUT\n```",
        f"MODEL is this folder; SCANS are files{files}, folders of them, or a cohort's table. Results lie in "
        f"the geometry of each scan; their values are {values}.",
        "Nothing in this folder is a program: weights are safetensors, the rest is JSON and this text.",
    ]


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
    mean = f"{found['mean']:.{digits}f}"
    if found["low"] is None:
        return f"{mean} (n = {found['n']}, no interval)"
    return f"{mean} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


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
