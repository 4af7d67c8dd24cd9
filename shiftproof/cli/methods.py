"""shiftproof methods: the catalogue."""

from __future__ import annotations

from typing import Any

import typer

from .show import JSON


def methods(
    name: str = typer.Argument(None, help="One method, with its options.", show_default=False),
    json: bool = JSON,
) -> None:
    """Methods: what they are, what they need, their options and papers."""
    from .show import print_json, print_table

    if name is None:
        found = [described(n) for n in names()]
        if json:
            print_json(found)
            return
        rows = [[m["name"], m["setting"], m["needs"], m["summary"]] for m in found]
        print_table(
            "methods (shiftproof methods NAME for options and paper)", ["name", "setting", "needs", "what it is"], rows
        )
        return
    found_one = described(name)
    if json:
        print_json(found_one)
        return
    typer.echo(found_one["documentation"])
    print_options(found_one["options"])


def print_options(options: list[dict[str, Any]]) -> None:
    """A table of options, if there are any."""
    from .show import print_table

    if options:
        typer.echo("")
        rows = [[o["name"], o["type"], str(o["default"]), o["help"]] for o in options]
        print_table("options", ["name", "type", "default", "effect"], rows)


def names() -> list[str]:
    from ..catalogue import METHODS, TEST_TIME

    return [*METHODS, *TEST_TIME]


def described(name: str) -> dict[str, Any]:
    """One entry of the catalogue, for people and machines.

    Raises:
        OptionError: For an unknown name.
    """
    import inspect

    from .. import catalogue
    from ..names import choose

    choose(name, names(), "method")
    if name in catalogue.TEST_TIME:
        target: Any = catalogue.test_time(name)
        setting, needs = "test-time adaptation", "a trained method"
    else:
        target = catalogue.method(name)
        uses = {"unused": "generalisation", "optional": "generalisation or adaptation", "required": "adaptation"}
        setting = uses[target.needs.target]
        needs = f"{target.needs.sources} training domains" if target.needs.sources > 1 else "labelled images"
    documentation = inspect.getdoc(target) or ""
    options = [
        {"name": o.name, "type": o.type, "default": o.default, "help": o.help} for o in catalogue.options(target)
    ]
    summary = documentation.split("\n")[0]
    return {
        "name": name,
        "summary": summary,
        "setting": setting,
        "needs": needs,
        "options": options,
        "documentation": documentation,
    }
