"""What commands share: JSON for machines, tables and progress for people."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ..files import strict

if TYPE_CHECKING:
    from ..study.grid import GridProgress
    from ..train import Progress

JSON = typer.Option(False, "--json", help="Print the result as JSON; progress goes to standard error.")


def print_json(value: Any) -> None:
    """Strict JSON: what is not a finite number becomes null."""
    typer.echo(json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> None:
    """Rows under a title: the first column to the left, the others, numbers unless `words`, to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or words else "right", overflow="fold")
    for row in rows:
        table.add_row(*[str(cell) for cell in row])
    console = Console()
    # Output that goes to a file or a pipe has no width of its own; a table must not be folded there.
    (console if console.is_terminal else Console(width=240)).print(table)


def tell(words: str) -> None:
    """A line on what is going on, for people."""
    print(words, file=sys.stderr, flush=True)


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar with rate and remaining time on standard error; a line now and then where it is no terminal.

    What it gives is called with (done, total) or (done, total, words).
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[words]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as display:
        task = display.add_task(what, total=None, words="")

        def update(done: int, total: int, words: str = "") -> None:
            display.update(task, completed=done, total=total, words=words)

        yield update


def _lines(what: str) -> Callable[..., None]:
    import time

    state = {"next": 0.0, "last": -1}
    started = time.monotonic()

    def update(done: int, total: int, words: str = "") -> None:
        now = time.monotonic()
        if (now < state["next"] and done < total) or done == state["last"]:
            return
        state["next"], state["last"] = now + 15, done
        left = (now - started) / done * (total - done) if done else math.nan
        tell(
            f"{what}: {done} of {total}, about {left:.0f} s left {words}" if done else f"{what}: {total} to do {words}"
        )

    return update


@contextlib.contextmanager
def training(what: str) -> Iterator[Callable[[Progress], None]]:
    with bar(what) as update:

        def progress(state: Progress) -> None:
            rate = state.step / max(state.seconds, 1e-9)
            losses = " ".join(f"{name} {value:.3f}" for name, value in state.losses.items())
            update(state.step, state.steps, f"{rate:.1f} steps/s, data {100 * state.waiting:.0f} %, {losses}")

        yield progress


@contextlib.contextmanager
def grid() -> Iterator[Callable[[GridProgress], None]]:
    with bar("steps") as update:

        def progress(state: GridProgress) -> None:
            failed = f", {len(state.failed)} failed" if state.failed else ""
            update(state.steps, state.total_steps, f"runs {state.done}/{state.total}{failed}")

        yield progress
