"""One scan: from raw images to its label, in its exact geometry."""

from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ..data.images import array_of, image_of, is_picture, read_image
from ..data.overlaps import code_type, coded
from ..data.plan import Preprocessed, preprocess
from ..data.samples import Samples
from ..errors import ModelError, StorageError
from ..files import replacing
from ..tasks.windows import mirrored, scored_slabs
from .model import Model
from .streaming import upsampled

See = Callable[[Preprocessed, int, Tensor], None]
"""Shown a scan as the network reads it, a first slice and the scores (K, X, Y, n) from there on, in order."""

CERTAIN = 255
"""What stands for a probability of 1 in a file of probabilities; its header says so, readers give 0 to 1."""


@dataclass(frozen=True)
class Segmented:
    """One prediction.

    Args:
        label: On the grid of the scan: class indices, uint8; of structures that may overlap a bit for each, see
            `coded`.
        probabilities: Of each class, uint8 from 0 to `CERTAIN`, on the same grid; None where not asked for.
    """

    label: sitk.Image
    probabilities: list[sitk.Image] | None = None


def label_of(
    model: Model,
    images: Mapping[str, Path | sitk.Image | None],
    *,
    batch: int = 4,
    overlap: float | None = None,
    flips: bool = False,
    see: See | None = None,
) -> sitk.Image:
    """Class indices of one scan, uint8, in its exact geometry; overlapping structures as `coded` has them.

    Scores are made and resampled slice by slice: besides the image itself, memory holds a window's depth of
    scores, never a class at full resolution.

    Args:
        model: From `load_model`.
        images: A file or an image for each channel of the model; None where the scan lacks it.
        batch: Windows scored together.
        overlap: Share of a window that neighbours have in common; by default as `usual_overlap` says.
        flips: Whether scores are averaged over mirror images along the axes that training mirrored.
        see: Called with the scores as they come, before they are resampled and become a label.

    Raises:
        ModelError: If the channels are not the model's, or its scores are not finite.
        ImageError: If an image cannot be used.
        OptionError: If flips are asked for and training mirrored nothing.
    """
    return segment(model, images, batch=batch, overlap=overlap, flips=flips, see=see).label


def segment(
    model: Model,
    images: Mapping[str, Path | sitk.Image | None],
    *,
    probabilities: bool = False,
    batch: int = 4,
    overlap: float | None = None,
    flips: bool = False,
    see: See | None = None,
) -> Segmented:
    """As `label_of`, with the probability of each class on request: a byte a voxel and class."""
    prepared = preprocess(images_of(model, images), None, model.plan)
    geometry, task, plan = prepared.geometry, model.task, model.plan
    score = mirrored(scores_by(model), model.mirror_axes) if flips else scores_by(model)
    several = plan.target.get("kind") == "multi-label"
    number = task.outputs
    image = torch.from_numpy(prepared.image)
    extra = {"present": torch.from_numpy(prepared.present)[None]}
    slabs = scored_slabs(
        score,
        image,
        window=plan.patch,
        batch=batch,
        overlap=overlap,
        extra=extra,
        context=plan.context,
        margin=model.margin,
    )

    if see is not None:
        slabs = _shown(slabs, prepared, see)

    # Slices lie together in memory, as they are written.
    x, y, z = geometry.cropped
    label = np.empty((z, x, y), code_type(number) if several else np.uint8)
    certain = np.empty((number, z, x, y), np.uint8) if probabilities else None
    for i, scores in upsampled(slabs, (x, y, z), image.shape[-1]):
        label[i] = coded(task.answer(scores[None])[0].cpu().numpy())
        if certain is not None:
            shares = task.probabilities(scores[None])[0]
            certain[:, i] = (shares * CERTAIN).round().to(torch.uint8).cpu().numpy()

    placed = geometry.place(label.transpose(1, 2, 0))
    if certain is None:
        return Segmented(placed)
    if several:
        return Segmented(placed, [geometry.place(one.transpose(1, 2, 0)) for one in certain])
    # What was cropped away is background for certain; `place` fills with 0.
    rest = geometry.place(CERTAIN - certain[0].transpose(1, 2, 0))
    background = image_of(CERTAIN - array_of(rest), like=rest)
    return Segmented(placed, [background, *(geometry.place(one.transpose(1, 2, 0)) for one in certain[1:])])


def _shown(slabs: Iterator[tuple[int, Tensor]], prepared: Preprocessed, see: See) -> Iterator[tuple[int, Tensor]]:
    for first, scores in slabs:
        see(prepared, first, scores)
        yield first, scores


def images_of(model: Model, images: Mapping[str, Path | sitk.Image | None]) -> dict[str, sitk.Image | None]:
    """The images of a scan, read where they are files.

    Raises:
        ModelError: If the channels are not the model's.
    """
    if set(images) != set(model.channels):
        raise ModelError(
            f"the model reads the channels {', '.join(model.channels)}, got {', '.join(images) or 'none'}; "
            "name the scan's images after them"
        )
    return {c: read_image(given) if isinstance(given, str | Path) else given for c, given in images.items()}


def scores_by(model: Model) -> Callable[[Samples], Tensor]:
    """What windows are scored by; raises ModelError for scores that are not finite."""

    @torch.no_grad()
    def score(samples: Samples) -> Tensor:
        scores = model.task.scores(model.predict(samples.to(model.device)))
        if not bool(torch.isfinite(scores).all()):
            raise ModelError(
                f"{model.folder} gives scores that are not finite; look at the scan's intensities, "
                "or train the model anew"
            )
        return scores

    return score


def write_probabilities(images: Sequence[sitk.Image], path: Path) -> None:
    """A 4D NIfTI file, a volume for each class; its header scales bytes to probabilities."""
    flat = is_picture(images[0])
    joined = sitk.JoinSeries([image[:, :, 0] if flat else image for image in images])
    with replacing(path) as temporary:
        plain = temporary.with_name(temporary.name.removesuffix(".gz") + ".plain.nii")
        try:
            sitk.WriteImage(joined, str(plain))
            with open(plain, "r+b") as file:
                file.seek(112)  # scl_slope and scl_inter
                file.write(struct.pack("<ff", 1 / CERTAIN, 0.0))
            with open(plain, "rb") as file, gzip.open(temporary, "wb", compresslevel=6) as target:
                shutil.copyfileobj(file, target)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise StorageError(f"cannot write {path}: {reason}; is the disk full?") from error
        finally:
            plain.unlink(missing_ok=True)
