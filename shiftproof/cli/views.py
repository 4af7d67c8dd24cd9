"""shiftproof policy views: which views of an image a trained model answers best."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON


def views(
    model: Path = typer.Argument(..., help="Model folder.", show_default=False),
    cohort: Path = o.COHORT,
    out: Path = typer.Option(..., help="File for the policy.", show_default=False),
    subjects: str = typer.Option(
        None, help="Whom to learn from, as site=A,B; by default the validation subjects that the model folder knows."
    ),
    domain: str = o.DOMAIN,
    steps: int = typer.Option(1000, help="Patches to learn from."),
    number: int = typer.Option(10, help="Views of each patch."),
    rate: float = typer.Option(5e-3, help="Learning rate of the probabilities."),
    preset: str = typer.Option("nnunet", help="Probabilities at first: nnunet or deepmedic."),
    mirror_axis: list[int] = typer.Option(None, help="Axis that may be mirrored, can be given several times; or all."),
    seed: int = typer.Option(0, help="Seed."),
    workers: int = typer.Option(1, help="Processes that preprocess."),
    device: str = o.DEVICE,
    json: bool = JSON,
) -> None:
    """Learns test-time views for a trained model, whose weights stay: its predictions of them are averaged.

    Used by a row with test_time = "learned_views", test_time_options = { policy_file = OUT }.
    """
    from ..data.cohort import Cohort
    from ..deploy.model import load_model
    from ..evaluate.views import learned_views_of
    from ..names import choose
    from ..transforms.views import PRESETS
    from .show import bar, print_json, print_table

    choose(preset, PRESETS, "preset of views")
    table = Cohort.read(o.table_of(cohort), domain=domain)
    with bar("patches") as update:
        policy = learned_views_of(
            load_model(model, device=device), table, out, store=out.parent / "store", subjects=subjects, steps=steps,
            number=number, rate=rate, preset=preset, mirror_axes=mirror_axis or None,  # type: ignore[arg-type]  # checked
            seed=seed, workers=workers, progress=update,
        )  # fmt: skip
    found = policy.probabilities()
    if json:
        print_json({"policy": str(out), "views": found})
        return
    best = sorted(found.items(), key=lambda pair: -pair[1])[:8]
    print_table("most probable views", ["view", "probability"], [[name, f"{share:.3f}"] for name, share in best])
    typer.echo(f"\npolicy: {out}")
