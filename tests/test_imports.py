"""Imports point one way, and the command line starts without the heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import shiftproof

ROOT = Path(shiftproof.__file__).parent

# What a package may import of the others, besides modules of the same rank and below.
RANKS = [
    {"errors", "files", "names", "versions"},
    {"data"},
    {"losses", "metrics", "transforms", "statistics"},
    {"parts", "tasks", "nets"},
    {"catalogue", "methods"},
    {"autoplan", "recipe", "testtime", "validate"},
    {"training", "train", "deploy", "evaluate", "experiment", "patching", "soundness"},
    {"study", "report", "compare", "scenarios"},
    {"cli", "api", "__main__"},
]


def rank(name: str) -> int:
    return next(i for i, names in enumerate(RANKS) if name in names)


def imports(path: Path) -> set[str]:
    """First names below `shiftproof` that a module imports, at any depth; type-checking imports left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = path.relative_to(ROOT.parent).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in checking or not node.level:
            continue
        base = list(package[: len(package) - node.level + 1])
        full = base + (node.module.split(".") if node.module else [])
        found |= {full[1]} if len(full) > 1 else {alias.name for alias in node.names}
    return found


def test_every_part_has_a_rank():
    parts = {p.name.removesuffix(".py") for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__"} == {name for names in RANKS for name in names} & parts - {"__init__"}


def test_imports_point_one_way():
    wrong = []
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        own = parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for other in imports(path):
            if rank(other) > rank(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not wrong


def test_a_method_never_imports_another():
    for path in (ROOT / "methods").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        siblings = {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        }
        assert siblings <= {"method"}, path.name


def test_a_report_never_meets_a_network():
    for path in (ROOT / "report").glob("*.py"):
        assert not imports(path) & {"nets", "methods", "train", "deploy", "experiment"}, path.name


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom shiftproof.cli.app import app\n"
        "heavy = {'torch', 'numpy', 'pandas', 'SimpleITK', 'scipy', 'matplotlib', 'monai'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
