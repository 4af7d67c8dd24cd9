"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..train import Trainer

COHORT = typer.Argument(..., help="The cohort's table: CSV or Parquet.", show_default=False)
DOMAIN = typer.Option("site", help="Column that names the domain.")
STEPS = typer.Option(2000, help="Training steps.")
SECONDS = typer.Option(None, help="Training budget in seconds; ends a run early. Such runs depend on the machine.")
BATCH = typer.Option(8, help="Patches in a batch.")
DEVICE = typer.Option("auto", help="cpu, cuda or auto.")
PRECISION = typer.Option("float32", help="float32 or bf16.")
RATE = typer.Option(1e-3, help="Learning rate.")
AVERAGE = typer.Option("none", help="Average of the weights that is kept: none, ema or swa.")
SELECTION = typer.Option("last", help='Weights that are kept: "last", "validation mean", "validation worst domain".')
PATIENCE = typer.Option(None, help="Validations without a better one before training stops.")
EVERY = typer.Option(250, help="Steps between validations.")
DIMENSIONS = typer.Option(None, help="2 or 3; planned from the training domains by default.")
SPACING = typer.Option(None, help="Voxel size in mm as 1,1,3; planned by default.")
PATCH = typer.Option(None, help="Patch size in voxels as 64,64; planned by default.")

PLAN = typer.Option(
    None,
    help="auto: network, batch and training from the scans and a memory budget, too; auto,memory_gb=8,base=16 with a "
    "budget and a width of your own. What other options say stays.",
)
CONTEXT = typer.Option(None, help="In 2D, slices on each side that are shown beside the predicted one (2.5D, cine).")
NETWORK = typer.Option(
    None, help="Network of rows that name none, with options: resnet,depth=34,width=0.5; see `shiftproof networks`."
)
WEIGHTS = typer.Option(None, help="Weights to start from: a model folder, a .safetensors file or a saved state dict.")


def trainer(**given: Any) -> Trainer:
    from ..train import Trainer

    return Trainer(**given)


def plan(
    dimensions: int | None,
    spacing: str | None,
    patch: str | None,
    context: int | None = None,
    text: str | None = None,
    typed: typer.Context | None = None,
) -> dict[str, Any]:
    """Options of the plan; of an automatic one with the trainer's settings that were `typed`, which stay."""
    from ..autoplan import parsed

    found = parsed(text)
    if found and typed is not None:
        found["keep"] = [name for name in ("batch", "rate") if is_typed(typed, name)]
    if context is not None:
        found["context"] = context
    if dimensions is not None:
        found["dimensions"] = dimensions
    if spacing:
        found["spacing_mm"] = numbers(spacing, float, "--spacing")
    if patch:
        found["patch"] = numbers(patch, int, "--patch")
    return found


def is_typed(context: typer.Context, option: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def row_defaults(text: str | None) -> dict[str, Any]:
    """What rows get that do not say it, where the plan is automatic."""
    from ..autoplan import ROW

    return dict(ROW) if text else {}


def networked(rows: list[Recipe], network: str | None, weights: Path | None) -> list[Recipe]:
    """The rows, with the network of the command line where they name none.

    Raises:
        OptionError: If the text is not NAME or NAME,OPTION=VALUE,...
    """
    import dataclasses
    import re

    from ..errors import OptionError

    if network is None and weights is None:
        return rows
    table: dict[str, Any] = {}
    if network is not None:
        # Commas within brackets belong to a list.
        name, *options = re.split(r",(?![^\[]*\])", network)
        table["name"] = name.strip()
        for option in options:
            key, equals, value = option.partition("=")
            if not equals:
                raise OptionError(f"--network is NAME or NAME,OPTION=VALUE,..., got {network!r}")
            table[key.strip()] = _value(value.strip())
    own = {} if weights is None else {"weights": str(Path(weights).resolve())}
    chosen = [{**({} if "name" in row.network else table), **own, **row.network} for row in rows]
    return [dataclasses.replace(row, network=given) for row, given in zip(rows, chosen, strict=True)]


def _value(text: str) -> Any:
    """A number, true or false, a list such as 2x2x1; else text."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        parts = text.split("x")
        return [int(part) for part in parts] if len(parts) > 1 and all(map(str.isdigit, parts)) else text


def numbers(text: str, kind: type, option: str) -> list[Any]:
    from ..errors import OptionError

    try:
        return [kind(part) for part in text.replace("x", ",").split(",")]
    except ValueError as error:
        raise OptionError(f"{option} expects numbers with commas between them, got {text!r}") from error


def table_of(cohort: Path) -> Path:
    """A folder stands for the table in it."""
    if cohort.is_dir():
        for name in ("table.csv", "table.parquet"):
            if (cohort / name).exists():
                return cohort / name
    return cohort


def names(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",") if part.strip()] if text else None


def held_out(text: str | None, domain: str) -> tuple[str, list[str] | None]:
    """`C,D` or `site=C,D`: the latter names the domain column too."""
    if text and "=" in text:
        domain, _, text = text.partition("=")
    return domain, names(text)
