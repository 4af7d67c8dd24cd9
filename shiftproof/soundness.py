"""What can be found wrong with a recipe before any run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from . import catalogue, tasks
from .autoplan import completed
from .data.plan import Plan
from .errors import OptionError
from .names import choose
from .patching import patches_of, setting_of, transform_of
from .recipe import Recipe, build_network, check_needs
from .train import Trainer

MANY = 64
"""Training domains where their number is not known: a method that holds some of them out must not be refused."""


def require_sound(recipe: Recipe, plan: Plan, sources: Sequence[str] | None = None) -> None:
    """What can be found wrong with a recipe before any run: unknown options and classes, values of the wrong kind.

    Args:
        recipe: A row.
        plan: It is trained with.
        sources: Labelled training domains, the fewest of all divisions; None where they are not known.

    Raises:
        OptionError: With the row's name.
    """
    recipe = completed(recipe, plan)
    try:
        cls = catalogue.method(recipe.method)
        options = catalogue.check_options(recipe.method, cls, dict(recipe.options))
        setting = setting_of(recipe, plan, ["a", "b"], 2)
        task = tasks.make(plan.target, plan.classes, loss=recipe.loss, options=recipe.loss_options)
        domains = [f"domain {i}" for i in range(MANY)] if sources is None else list(sources)
        known = setting_of(recipe, plan, domains, len(domains))
        check_needs(recipe, cls, task.name, known)
        with torch.device("meta"):  # takes no memory
            network = build_network(recipe, task, setting, plan, weights=False)
        method = cls(network, task, known, **options)  # with its own checks: rare classes, lengths, shares
        method.require_files()
        if recipe.test_time is not None:
            adapt = catalogue.test_time(recipe.test_time)
            adapt(method, **catalogue.check_options(recipe.test_time, adapt, dict(recipe.test_time_options)))
        if recipe.network.get("weights") is not None:
            build_network(recipe, task, setting, plan)
        task.loss(*task.blank((2,) * plan.dimensions))
        if "seed" in recipe.training:
            raise OptionError("seeds are the study's, the same for every row; remove training.seed")
        for key in recipe.training:
            choose(key, [f.name for f in dataclasses.fields(Trainer)], "setting of the trainer")
        Trainer(**recipe.training)
        transform_of(recipe, plan)
        patches_of(recipe, plan)
        batches = recipe.sampling.get("batches", "mixed")
        choose(str(batches), ("mixed", "balanced", "one domain"), "value of sampling.batches")
    except (OptionError, TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f'row "{recipe.name}": {error}') from error


def require_batch(recipe: Recipe, trainer: Trainer, domains: Sequence[str]) -> None:
    """What can be found wrong with a batch's size before any run.

    Raises:
        OptionError: If a batch has to hold every training domain and is smaller than their number, or the method mixes
            samples and there are too few.
    """
    cls = catalogue.method(recipe.method)
    batches = recipe.sampling.get("batches", cls.needs.batches)
    size = int(recipe.training.get("batch", trainer.batch))
    if batches == "balanced" and size < len(domains):
        raise OptionError(
            f'row "{recipe.name}": a batch of {size} cannot hold each of the {len(domains)} training domains, which '
            f"{recipe.method} compares; use a batch of at least {len(domains)}"
        )
    least = cls.least_batch(**catalogue.check_options(recipe.method, cls, dict(recipe.options)))
    if size < least:
        raise OptionError(
            f'row "{recipe.name}": {recipe.method} mixes samples of a batch with each other and needs {least} of them, '
            f"got {size}; use a larger batch"
        )
