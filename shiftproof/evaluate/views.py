"""Views of a model folder, learned on subjects that its weights were not trained on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from ..data.cohort import Cohort
from ..data.samples import Samples
from ..data.sampling import Feed
from ..data.store import Store
from ..deploy.model import Model, digest
from ..errors import ModelError, SplitError
from ..files import write_text
from ..parts.view_policy import ViewPolicy
from ..patching import patches_of
from ..testtime.learning_views import learn_views
from .sides import recorded, selected


def learned_views_of(
    model: Model,
    cohort: Cohort,
    out: Path,
    *,
    store: Path,
    subjects: str | None = None,
    steps: int = 1000,
    number: int = 10,
    rate: float = 5e-3,
    preset: Literal["nnunet", "deepmedic"] = "nnunet",
    mirror_axes: Sequence[int] | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[..., None] | None = None,
) -> ViewPolicy:
    """The probabilities of views that suit a trained model, written as a policy's file; see `learn_views`.

    Args:
        model: Its weights stay as they are.
        cohort: With labels; scans of the domains that it was trained on.
        out: The file.
        store: Folder for preprocessed scans.
        subjects: A selection of subjects such as "site=A,B", none of whom it was trained on; by default those that the
            model folder knows as its validation subjects.
        steps, number, rate, preset, mirror_axes, seed: As of `learn_views`.
        workers: Processes that preprocess.
        progress: Called with steps done and in total.

    Raises:
        ModelError: If the folder holds a network alone, without a recipe.
        SplitError: If there is nobody to learn from, or somebody whom the model was trained on.
    """
    if model.method is None or model.recipe is None:
        raise ModelError(
            f"{model.folder} has no recipe, as models of this package have; views cannot be learned for it"
        )
    chosen = unseen(model, cohort, subjects)
    cases = Store(store).prepare(chosen, model.plan, workers=workers)
    domains = sorted({case.domain for case in cases})
    feed = Feed(cases, domains, patches_of(model.recipe, model.plan), size=1, seed=seed)

    def patches() -> Iterator[Samples]:
        for step in itertools.count():
            if progress is not None:
                progress(min(step, steps), steps)
            yield feed.batch(step).source.to(model.device)

    axes = None if mirror_axes is None else tuple(mirror_axes)
    policy = learn_views(
        model.method, patches(), steps=steps, number=number, rate=rate, preset=preset, mirror_axes=axes, seed=seed
    )
    facts = {"model": model.hash, "domains": domains, "subjects": len(chosen.subjects), "steps": steps, "seed": seed}
    write_text(Path(out), policy.as_json(method="learned_views", **facts))
    return policy


def unseen(model: Model, cohort: Cohort, subjects: str | None) -> Cohort:
    """Labelled subjects that views may be learned on; see `learned_views_of`."""
    labelled, known = cohort.only_labelled(), recorded(model)
    if subjects is not None:
        found = selected(labelled, subjects)
    else:
        found = labelled.of_subjects([s for s in labelled.subjects if digest(s) in known.get("validation", set())])
    both = [s for s in found.subjects if digest(s) in known.get("train", set())]
    if both:
        raise SplitError(
            f"{model.folder} was trained on subjects of this selection: {', '.join(both[:5])}; "
            "views are learned on others"
        )
    if not found.subjects:
        raise SplitError(
            f"no labelled subject of {cohort.root} is known to {model.folder} as one of its validation subjects; "
            f"select some, such as {cohort.domain}={cohort.domains[0]}"
        )
    return found
