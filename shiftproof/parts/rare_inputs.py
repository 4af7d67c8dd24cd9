"""What the methods share that change images for the sake of rare classes: which classes, and which patches."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.samples import Batch, Samples
from ..errors import MethodError, OptionError
from ..losses.rare import rare_indices
from ..tasks.classification import Classification
from ..tasks.task import Task


def rare_classes(task: Task, rare: Sequence[str] | None, *, asymmetric: bool) -> tuple[int, ...] | None:
    """Indices of the rare classes into `task.classes`; None for the symmetric form.

    Args:
        task: Segmentation or classification.
        rare: Names; None takes all structures, or all findings that may occur together. Where one class is chosen for
            an image none is a background, and the asymmetric form needs the names.
        asymmetric: Whether the asymmetric form is asked for.

    Raises:
        OptionError: For a name that is no class, or names that are missing.
    """
    found = rare_indices(rare, task.classes, background=task.name == "segmentation")
    if not asymmetric:
        return None
    if rare is None and isinstance(task, Classification) and task.kind != "multi-label":
        raise OptionError(
            f"the asymmetric form asks which of the classes {', '.join(task.classes)} are rare; add "
            f'rare = ["{task.classes[-1]}"] to the options of the method, or use the symmetric form'
        )
    return found


def patches_of(batch: Batch, *, plain: bool) -> Samples:
    """The source patches, augmented or, if `plain`, as they were before.

    Raises:
        MethodError: If those are asked for and are not there.
    """
    if not plain:
        return batch.source
    if batch.plain is None:
        raise MethodError("plain = true needs the patches before augmentation, which this training does not give")
    return batch.plain
