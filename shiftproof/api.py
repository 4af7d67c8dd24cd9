"""What a user calls: one function a command, under the same name.

They live here and not in the package's top, where `study` and `report` are the packages that do the work. Nothing
heavy is imported before a function is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compare import compare as compare
    from .data.checks import check as check
    from .data.cohort import Cohort as Cohort
    from .data.importers import import_cohort as import_cohort
    from .data.importers import import_folders as import_folders
    from .deploy.model import load_model as load_model
    from .deploy.predictor import predict as predict
    from .evaluate import evaluate as evaluate
    from .evaluate.logits import logits as logits
    from .recipe import Recipe as Recipe
    from .report import report as report
    from .report.learning import learning_curves as learning_curves
    from .statistics import plan_power as power  # noqa: F401
    from .study.deliver import deliver as deliver
    from .study.halving import Rung as Rung
    from .study.halving import halve as halve
    from .study.run import study as study
    from .study.single import train as train
    from .train import Trainer as Trainer

FUNCTIONS = {
    "Cohort": "shiftproof.data.cohort:Cohort",
    "import_cohort": "shiftproof.data.importers:import_cohort",
    "import_folders": "shiftproof.data.importers:import_folders",
    "check": "shiftproof.data.checks:check",
    "Recipe": "shiftproof.recipe:Recipe",
    "Trainer": "shiftproof.train:Trainer",
    "train": "shiftproof.study.single:train",
    "study": "shiftproof.study.run:study",
    "evaluate": "shiftproof.evaluate:evaluate",
    "logits": "shiftproof.evaluate.logits:logits",
    "halve": "shiftproof.study.halving:halve",
    "Rung": "shiftproof.study.halving:Rung",
    "compare": "shiftproof.compare:compare",
    "power": "shiftproof.statistics:plan_power",
    "report": "shiftproof.report:report",
    "learning_curves": "shiftproof.report.learning:learning_curves",
    "deliver": "shiftproof.study.deliver:deliver",
    "load_model": "shiftproof.deploy.model:load_model",
    "predict": "shiftproof.deploy.predictor:predict",
    "make_scenario": "shiftproof.scenarios:make",
}

__all__ = list(FUNCTIONS)


def __getattr__(name: str) -> Any:
    if name not in FUNCTIONS:
        raise AttributeError(f"shiftproof.api has no {name}; it has {', '.join(FUNCTIONS)}")
    module, attribute = FUNCTIONS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
