"""All commands. Each module defines one; its imports wait until it runs."""

from __future__ import annotations

import typer

from . import (
    cohort,
    compare,
    deliver,
    demo,
    evaluate,
    learning,
    logits,
    methods,
    metrics,
    networks,
    policy,
    power,
    predict,
    report,
    scenario,
    study,
    train,
)

app = typer.Typer(
    name="shiftproof",
    help="Medical-image models that hold up at the next hospital: train the remedies under one protocol, compare "
    "them honestly on sites that training never saw, deploy the winner together with its limits.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    # Brackets in help texts are brackets.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.add_typer(cohort.app, name="cohort")
app.command("train")(train.train)
app.command("study")(study.study)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("power")(power.power)
app.command("report")(report.report)
app.command("deliver")(deliver.deliver)
app.command("predict")(predict.predict)
app.command("methods")(methods.methods)
app.command("metrics")(metrics.metrics)
app.command("logits")(logits.logits)
app.command("learning-curves")(learning.learning_curves)
app.add_typer(policy.app, name="policy")
app.command("scenario")(scenario.scenario)
app.command("networks")(networks.networks)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and end.", is_eager=True),
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("shiftproof"))
        raise typer.Exit
