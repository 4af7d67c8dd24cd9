"""shiftproof metrics: what is measured, by which rules, and what to read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import options as o
from .show import JSON

if TYPE_CHECKING:
    from ..evaluate.look import Look
    from ..metrics.choice import Recommendation


def metrics(
    task: str = typer.Argument(
        None, help="segmentation, detection, classification, ...; or a metric's name.", show_default=False
    ),
    structure: str = typer.Option(
        None, help="What is known, with commas: small, tubular, lesions, ...; listed without it."
    ),
    cohort: Path = typer.Option(None, help="Look at the labels of this cohort and recommend for them."),
    domain: str = o.DOMAIN,
    tolerance_mm: str = typer.Option("2", help="Tolerance of the surface Dice in mm: 2, or lesion=1,liver=3."),
    workers: int = typer.Option(1, help="Processes that read labels."),
    json: bool = JSON,
) -> None:
    """Metrics: what they say, the rules for empty, missed and small structures, and which to read for a task."""
    from ..errors import OptionError
    from ..metrics.choice import recommend
    from ..metrics.described import METRICS, TASKS
    from ..names import choose
    from .show import print_json

    properties = o.names(structure) or []
    if cohort is not None:
        if task is not None:
            raise OptionError(f'a cohort tells its task, got "{task}" too; leave one of them out')
        found = of_cohort(cohort, domain, tolerance_mm, workers, properties)
        print_json(found) if json else _print_cohort(found)
        return
    if task is None and not properties:
        print_json(catalogue()) if json else _print_catalogue()
        return
    choose(task or "segmentation", [*TASKS, *dict.fromkeys(m.name for m in METRICS)], "task or metric")
    named = [m for m in METRICS if m.name == task]
    if named and properties:
        raise OptionError(f'--structure goes with a task ({", ".join(TASKS)}), and "{task}" is a metric; leave it out')
    if named:
        print_json([vars(m) for m in named]) if json else [_print_metric(vars(m)) for m in named]
        return
    advice = as_dict(recommend(task or "segmentation", properties=properties))
    print_json(advice) if json else _print_advice(advice)


def catalogue() -> dict[str, Any]:
    """Everything that is listed: metrics, rules, tasks and properties."""
    from ..metrics.choice import PROPERTIES
    from ..metrics.described import METRICS, TASKS
    from ..metrics.rules import RULES

    return {
        "metrics": [vars(m) for m in METRICS],
        "rules": RULES,
        "tasks": TASKS,
        "properties": {name: {"tasks": list(of), "means": means} for name, (of, means) in PROPERTIES.items()},
    }


def of_cohort(cohort: Path, domain: str, tolerance_mm: str, workers: int, properties: list[str]) -> dict[str, Any]:
    """What the labels of a cohort show, and a recommendation for each structure, or for all classes together."""
    from ..data.cohort import Cohort
    from ..evaluate.look import look
    from ..metrics.choice import recommend
    from ..metrics.rules import read_tolerance
    from .show import bar

    table = Cohort.read(o.table_of(cohort), domain=domain)
    with bar("labels") as update:
        seen = look(table, tolerance_mm=read_tolerance(tolerance_mm), workers=workers, progress=update)
    groups = [([one], one.name) for one in seen.looks] if seen.task == "segmentation" else [(seen.looks, "")]
    advice = [
        {"of": name} | as_dict(recommend(seen.task, properties={*_of(looks), *properties}, structure=name))
        for looks, name in groups
    ]
    return {
        "task": seen.task,
        "tolerance_mm": tolerance_mm,
        "labels": [vars(one) for one in seen.looks],
        "failures": seen.failures,
        "recommended": advice,
        "options": _options(advice),
    }


def _options(advice: list[dict[str, Any]]) -> str:
    """What to add to the command for all structures together."""
    picks = [(one["of"], p) for one in advice for p in one["picks"]]
    asked = {
        given: list(
            dict.fromkeys(of if given == "--lesions" else p["metric"] for of, p in picks if p["given"] == given)
        )
        for given in ("--lesions", "--also")
    }
    return " ".join(f'{option} "{",".join(names)}"' for option, names in asked.items() if names)


def _of(looks: list[Look]) -> list[str]:
    return [p for one in looks for p in one.properties]


def as_dict(advice: Recommendation) -> dict[str, Any]:
    return {
        **vars(advice),
        "picks": [
            {"metric": p.metric.name, "role": p.role, "reason": p.reason, **_short(p.metric)} for p in advice.picks
        ],
    }


def _short(metric: Any) -> dict[str, str]:
    return {name: getattr(metric, name) for name in ("what", "better", "within", "unit", "given", "empty")}


def _print_catalogue() -> None:
    from .show import print_table

    found = catalogue()
    groups: dict[str, list[dict[str, Any]]] = {}
    for metric in found["metrics"]:
        title = "lesions" if metric["given"] == "--lesions" else ", ".join(metric["tasks"])
        groups.setdefault(title, []).append(metric)
    typer.echo("shiftproof metrics NAME tells of one metric, shiftproof metrics TASK what to read\n")
    for title, some in groups.items():
        rows = [[m[column] for column in ("name", "better", "within", "given", "what")] for m in some]
        print_table(title, ["metric", "better", "range", "given", "what it is"], rows, words=True)
    typer.echo("")
    _print_rules(list(found["rules"]))
    typer.echo("\nTasks")
    for name, means in found["tasks"].items():
        typer.echo(f"  {name}: {means}")
    typer.echo("\nWhat may be known of a structure or class (--structure)")
    for name, entry in found["properties"].items():
        typer.echo(f"  {name}: {entry['means']}")


def _print_rules(names: list[str]) -> None:
    from ..metrics.rules import RULES

    typer.echo("Rules")
    for name in names:
        typer.echo(f"  {name}: {RULES[name]}")


def _print_metric(metric: dict[str, Any]) -> None:
    typer.echo(f"{metric['name']} ({', '.join(metric['tasks'])})\n  {metric['what']}")
    for name in ("better", "within", "unit", "given", "empty", "paper"):
        if metric[name]:
            typer.echo(f"  {name}: {metric[name]}")


def _print_advice(advice: dict[str, Any], title: str = "") -> None:
    from .show import print_table

    known = f" ({', '.join(advice['properties'])})" if advice["properties"] else ""
    rows = [[p["metric"], p["role"], p["better"], p["given"], p["reason"]] for p in advice["picks"]]
    print_table(
        f"{title or advice['task']}{known}: compare by {advice['primary']}",
        ["metric", "for", "better", "given", "why"],
        rows,
        words=True,
    )
    for note in advice["notes"]:
        typer.echo(f"- {note}")
    if advice["options"] and not title:
        typer.echo(f"Add to the command: {advice['options']}")
    if not title and advice["task"] in ("segmentation", "detection", "instance segmentation"):
        typer.echo("")
        _print_rules(["both empty", "missed", "spurious", "small", "tolerance", "lesions", "lesion match"])


def _print_cohort(found: dict[str, Any]) -> None:
    from .show import print_table

    if found["task"] == "segmentation":
        spans = ("voxels", "volume_ml", "components")
        rows = [
            [one["name"], _share(one), *(_span(one[s]) for s in spans), str(one["small"]), str(one["wide"])]
            for one in found["labels"]
        ]
        print_table(
            "labels: median (least, most) over scans that have the structure",
            ["structure", "scans with it", "voxels", "ml", "components", "small", "tolerance too wide"],
            rows,
        )
    else:
        rows = [[one["name"], _share(one)] for one in found["labels"]]
        print_table("labels", ["class" if found["task"] != "regression" else "number", "scans with it"], rows)
    for line in found["failures"]:
        typer.echo(f"left out: {line}")
    for one in found["labels"]:
        if one["wide"]:
            typer.echo(f"{one['name']}: the tolerance reaches across it in {one['wide']} scans; take a smaller one")
    for advice in found["recommended"]:
        typer.echo("")
        _print_advice(advice, advice["of"] or found["task"])
    if found["options"]:
        typer.echo(f"\nAdd to the command: {found['options']}")
    typer.echo("\nThese are guesses from labels alone; what they cannot show, such as tubular, goes with --structure.")


def _share(one: dict[str, Any]) -> str:
    return f"{one['present']} of {one['scans']}"


def _span(values: tuple[float, float, float]) -> str:
    if math.isnan(values[1]):
        return "-"
    least, middle, most = (f"{v:.0f}" if v >= 100 or v == int(v) else f"{v:.3g}" for v in values)
    return f"{middle} ({least}, {most})"
