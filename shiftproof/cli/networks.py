"""shiftproof networks: what is trained."""

from __future__ import annotations

from typing import Any

import typer

from .show import JSON


def networks(
    name: str = typer.Argument(None, help="One network, with its options.", show_default=False),
    json: bool = JSON,
) -> None:
    """Networks: which tasks they serve, whether methods can reach their features, their options and papers."""
    from ..nets import NETWORKS
    from .methods import print_options
    from .show import print_json, print_table

    if name is None:
        found = [described(n) for n in NETWORKS]
        if json:
            print_json(found)
            return
        rows = [[n["name"], ", ".join(n["tasks"]), "yes" if n["cut"] else "no", n["summary"]] for n in found]
        title = "networks (shiftproof networks NAME for options and paper; use: --network NAME,OPTION=VALUE)"
        print_table(title, ["name", "tasks", "features", "what it is"], rows)
        return
    found_one = described(name)
    if json:
        print_json(found_one)
        return
    typer.echo(found_one["documentation"])
    print_options(found_one["options"])


def described(name: str) -> dict[str, Any]:
    """One network, for people and machines.

    Raises:
        OptionError: For an unknown name.
    """
    import inspect

    from .. import catalogue, nets

    network = nets.find(name)
    documentation = inspect.getdoc(network) or ""
    sizes = ("dimensions", "channels", "outputs")
    options = [
        {"name": o.name, "type": o.type, "default": o.default, "help": o.help}
        for o in catalogue.options(network)
        if o.name not in sizes
    ]
    return {
        "name": name,
        "summary": documentation.split("\n")[0],
        "tasks": list(nets.KINDS[name]),
        "cut": nets.cuttable(network),
        "options": options,
        "documentation": documentation,
    }
