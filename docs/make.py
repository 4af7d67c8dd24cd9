"""A page per method, made from its docstring: `python docs/make.py` writes them, `--check` compares."""

from __future__ import annotations

import sys
from pathlib import Path

from shiftproof.catalogue import OWN_TRANSFORMS
from shiftproof.cli.methods import described, names

HERE = Path(__file__).parent / "methods"


def page(name: str) -> str:
    """Markdown of one method: its words, then its options as a table."""
    found = described(name)
    body, _, _ = found["documentation"].partition("\nArgs:")
    raises = found["documentation"].partition("\nRaises:")[2]
    lines = [f"# {name}", "", f"*{found['setting']}; needs {found['needs']}.*", "", *paragraphs(body), ""]
    if found["options"]:
        lines += ["## Options", "", "| option | type | default | effect |", "|---|---|---|---|"]
        lines += [
            f"| `{o['name']}` | {o['type'].replace('|', '/')} | `{o['default']!r}` | {o['help']} |"
            for o in found["options"]
        ]
        lines.append("")
    if raises:
        lines += ["## Refuses", "", *[" ".join(raises.split())], ""]
    lines += ["## Use", "", "```", *usage(name, found["setting"]), "```", ""]
    return "\n".join(lines)


def paragraphs(text: str) -> list[str]:
    """Docstring paragraphs as Markdown; the paper gets a line of its own."""
    found: list[str] = []
    for block in text.strip().split("\n\n"):
        words = " ".join(block.split())
        found += ["**Paper.** " + words.removeprefix("Paper: ") if words.startswith("Paper:") else words, ""]
    return found[:-1]


def usage(name: str, setting: str) -> list[str]:
    if setting == "test-time adaptation":
        return [f"shiftproof study COHORT --methods erm/light,erm/light+{name}"]
    row = name if name in OWN_TRANSFORMS else f"{name}/light"
    lines = [f"shiftproof train COHORT --method {row} --hold-out site=C"]
    if "adaptation" in setting:
        lines.append(f"shiftproof study COHORT --methods erm/light,{row},{row}+target")
    else:
        lines.append(f"shiftproof study COHORT --methods erm/light,{row}")
    return lines


def index() -> str:
    rows = [f"| [{n}]({n}.md) | {described(n)['setting']} | {described(n)['summary']} |" for n in names()]
    return "\n".join(["# Methods", "", "| name | setting | what it is |", "|---|---|---|", *rows, ""])


def pages() -> dict[str, str]:
    return {f"{n}.md": page(n) for n in names()} | {"README.md": index()}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    stale = [f for f, text in pages().items() if not (HERE / f).exists() or (HERE / f).read_text() != text]
    if "--check" in sys.argv:
        if stale:
            sys.exit(f"stale pages: {', '.join(stale)}; run python docs/make.py")
        return
    for name, text in pages().items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
