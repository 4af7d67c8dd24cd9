"""shiftproof policy: what an augmentation policy holds, and the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from .show import JSON, print_json, print_table
from .views import views

app = typer.Typer(
    help="Policies of augmentation and of test-time views: saved, published, learned.", no_args_is_help=True
)
app.command("views")(views)


@app.command("show")
def show(
    path: Path = typer.Argument(
        ..., help="policy.json, or the folder of a model that learned its augmentation.", show_default=False
    ),
    json: bool = JSON,
) -> None:
    """A policy: how probable each option is, and how undecided each group."""
    from ..transforms.policy_files import read_policy

    content = read_policy(path)
    if json:
        print_json(content)
        return
    where = f'pool "{content["pool"]}", {content["dimensions"]}D'
    print_table(f"policy for {where}", ["group", *content["sets"], "entropy"], overview(content), words=True)
    typer.echo("")
    title = "most probable options (all with --json)"
    print_table(title, ["option", "group", *content["sets"], "at first"], likeliest(content))
    if "views" in content:
        typer.echo("")
        shown = [[name, *values] for name, _, *values in likeliest(content["views"], identity=True)]
        print_table("most probable views of predictions", ["view", "probability", "at first"], shown)
    for name, value in content.get("provenance", {}).items():
        typer.echo(f"{name}: {value}")


@app.command("presets")
def presets(json: bool = JSON) -> None:
    """Published policies: how probably each group acts, before anything is learned."""
    from ..transforms.policies import POLICIES, Policy
    from ..transforms.pool import Pool

    pool = Pool("jcsa", dimensions=3, patch=(64, 64, 64))
    acting = {name: [1 - float(p[0, 0]) for p in Policy(pool.groups, preset=name).probabilities()] for name in POLICIES}
    names = [group.name for group in pool.groups]
    if json:
        print_json({name: dict(zip(names, values, strict=True)) for name, values in acting.items()})
        return
    rows = [[name, *(f"{acting[preset][i]:.2f}" for preset in POLICIES)] for i, name in enumerate(names)]
    print_table("probability that a group acts", ["group", *POLICIES], rows)
    typer.echo('in a recipe: transforms = "policy", transforms_options = {preset = "nnunet"}')


def overview(content: Mapping[str, Any]) -> list[list[str]]:
    """Of each group how probably it acts, by kind of patches, and its entropy as a share of the largest."""
    import math

    rows = []
    for group in content["groups"]:
        acts, undecided = [], []
        for p in group["probabilities"]:
            acts.append(f"{1 - p[0]:.2f}")
            undecided.append(-sum(v * math.log(v) for v in p if v > 0) / math.log(len(p)))
        rows.append([group["name"], *acts, ", ".join(f"{value:.2f}" for value in undecided)])
    return rows


def likeliest(content: Mapping[str, Any], count: int = 20, *, identity: bool = False) -> list[list[str]]:
    """The options that are chosen most often, with the probabilities that they began with where that is known."""
    first = (content.get("history") or {}).get("probabilities") or [None]
    found = []
    for g, group in enumerate(content["groups"]):
        for o, name in enumerate(group["options"]):
            if name == "identity" and not identity:
                continue
            now = [p[o] for p in group["probabilities"]]
            before = ", ".join(f"{p[o]:.3f}" for p in first[0][g]) if first[0] else ""
            found.append((max(now), [name, group["name"], *(f"{p:.3f}" for p in now), before]))
    return [row for _, row in sorted(found, key=lambda pair: -pair[0])[:count]]
