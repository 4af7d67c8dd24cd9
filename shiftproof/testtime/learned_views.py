"""Learned views: predictions of a few views of an image, averaged; which views, a policy says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .. import nets
from ..data.samples import Samples
from ..errors import OptionError
from ..losses.precision import precise
from ..methods.method import Method
from ..parts.view_policy import ViewPolicy
from ..tasks.task import Predict, Prediction
from ..transforms.policy_files import policy_hash as hash_of
from ..transforms.policy_files import read_policy
from ..transforms.views import Views, initial, likeliest, preset_views

FEW = {"deepmedic": 4}
USUAL = 8


def learned_views(
    method: Method,
    *,
    keep: int | None = None,
    policy_file: str | None = None,
    policy_hash: str | None = None,
    preset: Literal["nnunet", "deepmedic"] | None = None,
    mirror_axes: tuple[int, ...] | None = None,
) -> Predict:
    """A predictor that averages the scores of several views of each image.

    Views are scaled, rotated, mirrored or changed in intensity, without chance. The most probable ones of a policy are
    predicted, voxels are put back, and logits are averaged with the policy's probabilities. The policy is the one that
    the method learned ("learned_augmentation" with `views`), a file (`learn_views` makes one for any trained method),
    or published initial values. Each view costs a prediction. Whole images are classified by the mean score.

    Paper: Z. Li et al., "Joint optimization of class-specific training- and test-time data augmentation in
    segmentation", IEEE Transactions on Medical Imaging 42 (2023). Deviations: each window is shown in all views before
    the next one, instead of sliding windows over each view of the scan; a view counts for the voxels that it held, and
    where no view held a voxel the method's own prediction stands; quarter turns are left out for windows of unequal
    sides, whose place the next probable view takes; of a preset only the views that it names are used.

    Args:
        method: A trained method.
        keep: How many views, the most probable ones; None takes 8, or 4 of the preset "deepmedic". 1 of a preset is the
            method's own prediction.
        policy_file: A saved policy of views to use, or of an augmentation that was learned together with views. It is
            read whenever the method is made ready to predict.
        policy_hash: What the file's content must amount to; a study notes it, so that a row means one policy.
        preset: Published views instead: "nnunet" (identity, mirrorings and half turns) or "deepmedic" (identity and
            mirrorings of one axis). None takes what was learned, or "nnunet" where nothing was.
        mirror_axes: Axes that may be mirrored; None takes all. Leave out left-right where the label tells sides apart.

    Raises:
        OptionError: If a number or name is none of these, or the policy is of other views.
    """
    if keep is not None and keep < 1:
        raise OptionError(f"learned_views averages at least 1 view, got {keep}")
    if policy_file is not None and preset is not None:
        raise OptionError("learned_views takes a policy_file or a preset, not both")
    task, setting = method.task, method.setting
    fields, margin = task.spatial, nets.margin_of(method.network)
    own = getattr(method, "views", None)
    learned: dict[str, float] | None = None
    if policy_file is not None:
        hash_of(policy_file, expected=policy_hash)
        learned = read_views(policy_file, setting.dimensions, task.name)
    elif preset is None and isinstance(own, ViewPolicy):
        learned = own.probabilities()
    number = keep or FEW.get(preset or "", USUAL)
    known: dict[tuple[int, ...], tuple[Views, dict[str, float]]] = {}

    def views_of(space: Sequence[int]) -> Views:
        frame: dict[str, Any] = {"spacing_mm": setting.spacing_mm, "orientation": setting.orientation}
        return Views(space, fields=fields, mirror_axes=mirror_axes, **frame)

    def chosen(space: tuple[int, ...]) -> tuple[Views, dict[str, float]]:
        """The views of images of a size, and what each of them weighs."""
        if space not in known:
            views = views_of(space)
            names = views.names
            if any(margin):
                smaller = views_of([n - 2 * m for n, m in zip(space, margin, strict=True)])
                names = tuple(name for name in names if name in smaller.names)
            shares = learned
            if shares is None:
                name = preset or "nnunet"
                first = dict(zip(names, initial(names, name).tolist(), strict=True))
                shares = {view: first[view] for view in preset_views(names, name)}
            known[space] = views, likeliest([(n, shares[n]) for n in names if n in shares], number)
        return known[space]

    @torch.no_grad()
    def predict(samples: Samples) -> Prediction:
        views, weights = chosen(tuple(samples.image.shape[2:]))
        total = held = torch.zeros(())
        for name, weight in weights.items():
            scores, there = _seen(method, samples, views, views.place(name))
            part = weight * there
            total, held = total + part * scores, held + part
        if bool((held == 0).any()):
            own = precise(task.scores(method.predict(samples)))
            return torch.where(held > 0, total / held.clamp_min(1e-12), own)
        return total / held

    chosen(setting.patch or (16,) * setting.dimensions)  # what cannot be is refused here rather than at the first image
    return predict


def _seen(method: Method, samples: Samples, views: Views, place: int) -> tuple[Tensor, Tensor]:
    """Scores (B, K, ...) of one view, put back, and which of them it holds (B, 1, ...), 1 or 0."""
    places = [place] * len(samples)
    scores = precise(method.task.scores(method.predict(views.shown(samples, places))))
    if method.task.name != "segmentation":
        return scores, torch.ones_like(scores[:, :1])
    scores, held = views.restored(scores, places)
    return scores, held[:, None].to(scores.dtype)


def read_views(path: str, dimensions: int, task: str) -> dict[str, float]:
    """Probabilities of views by name, from a policy's file or the folder of a model that learned views.

    Raises:
        OptionError: If there are none, or they are not for these images.
    """
    content = read_policy(path)
    content = content.get("views") or content
    if content["pool"] != "views":
        raise OptionError(
            f'{path} is a policy for the pool "{content["pool"]}", which holds operations drawn by chance; expected '
            "one of views, as learn_views or learned_augmentation with views saves it"
        )
    if content["dimensions"] != dimensions:
        raise OptionError(f"{path} holds views of {content['dimensions']}D images, and this method is {dimensions}D")
    Views((16,) * dimensions, destroying=bool(content.get("destroying"))).pool.require_invertible(task)
    (group,) = content["groups"]
    return dict(zip(group["options"], group["probabilities"][0], strict=True))
