"""Scores of whole volumes from overlapping windows, in an order that keeps little in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.samples import Samples
from ..data.sampling import neighbours
from ..errors import OptionError

Score = Callable[[Samples], Tensor]
"""From samples (B, C, *space) to scores (B, K, *space)."""

SLAB = 8
"""Slices that are given at once, at most, where windows overlap."""


def scored_slabs(
    score: Score,
    image: Tensor,
    *,
    window: Sequence[int],
    overlap: float | None = None,
    batch: int = 4,
    extra: dict[str, Tensor] | None = None,
    context: int = 0,
    margin: Sequence[int] = (),
) -> Iterator[tuple[int, Tensor]]:
    """Scores of a volume, a few slices of its last axis at a time.

    Windows overlap and are weighted by a Gaussian, so that a voxel counts most where it is central. A slab is
    given as soon as no further window reaches it: what is held at any time is one window's depth of scores,
    whatever the length of the volume. A window is what training saw: where the volume is smaller, it is
    filled up with 0 on both sides, as patches are.

    A network of valid convolutions scores less than it reads (`nets.margin`). Its windows tile the volume with what is
    scored, and reach beyond by the margin; where that is outside of the volume, its border is repeated, there as in
    place of 0.

    Args:
        score: The network. It may compute on another device than the image's; scores stay where it left them. Where
            there is a margin, they belong to the middle of what it is shown.
        image: (C, X, Y, Z).
        window: Two numbers: slices of the last axis are scored one by one in 2D; three: in 3D.
        overlap: Share of the window that neighbours have in common, from 0 to below 1; None as `usual_overlap` says.
        batch: Windows scored together.
        extra: Facts of the case, each (1, ...), repeated for each window.
        context: In 2D, neighbouring slices on each side that the network sees as further channels.
        margin: Voxels that it is shown around the window, on each side of each of the window's axes.

    Yields:
        First slice and float32 scores (K, X, Y, n) of n slices, without gaps and in order.

    Raises:
        OptionError: For an overlap or batch out of range.
    """
    overlap = usual_overlap(margin) if overlap is None else overlap
    if not 0 <= overlap < 1 or batch < 1:
        raise OptionError(
            f"windows overlap by a share from 0 to below 1 and are scored at least one at a time, "
            f"got an overlap of {overlap} and a batch of {batch}"
        )
    flat = len(window) == 2
    size = (int(window[0]), int(window[1]), 1 if flat else int(window[2]))
    around = tuple(int(m) for m in margin) + (0,) * (3 - len(margin))
    image, inside = filled(image, size, border=any(around))
    space = image.shape[1:]
    if flat and size[:2] == tuple(space[:2]):
        slabs = _slices(score, image, batch, extra or {}, context, around)
    else:
        slabs = _blended(score, image, size, flat, overlap, batch, extra or {}, context, around)
    x, y, z = inside
    for first, scores in slabs:
        low, high = max(z.start - first, 0), min(z.stop - first, scores.shape[-1])
        if low < high:
            yield first + low - z.start, scores[:, x, y, low:high]


def usual_overlap(margin: Sequence[int]) -> float:
    """Half a window; none where a margin lets a network see as much at a window's border as in its middle."""
    return 0.0 if any(margin) else 0.5


def volume_scores(score: Score, image: Tensor, **options: Any) -> Tensor:
    """All slabs together, (K, X, Y, Z); for volumes that fit into memory once a class."""
    return torch.cat([slab for _, slab in scored_slabs(score, image, **options)], dim=-1)


def mirrored(score: Score, axes: Sequence[int]) -> Score:
    """The mean score over mirror images along every choice of `axes` (0: the first of space), turned back.

    2 to the number of axes times the work. Only for axes along which training mirrored, too: elsewhere the network
    has never seen the other side.
    """
    flips = [[a + 2 for a in some] for n in range(len(axes) + 1) for some in itertools.combinations(axes, n)]

    def mean(samples: Samples) -> Tensor:
        total = score(samples)
        for flip in flips[1:]:
            total = total + score(samples.replace(image=samples.image.flip(flip))).flip(flip)
        return total / len(flips)

    return mean


def _slices(
    score: Score, image: Tensor, batch: int, extra: dict[str, Tensor], context: int, margin: tuple[int, ...]
) -> Iterator[tuple[int, Tensor]]:
    """One window covers a slice: nothing to blend, and slices can share a batch."""
    wide = (image.shape[1] + 2 * margin[0], image.shape[2] + 2 * margin[1])
    for first in range(0, image.shape[-1], batch):
        some = image[..., first : first + batch].movedim(-1, 0) if not context else _shown(image, first, batch, context)
        some = within(some, (-margin[0], -margin[1]), wide)
        yield first, score(_samples(some, extra)).float().movedim(0, -1)


def _blended(
    score: Score,
    image: Tensor,
    size: tuple[int, int, int],
    flat: bool,
    overlap: float,
    batch: int,
    extra: dict[str, Tensor],
    context: int,
    margin: tuple[int, ...],
) -> Iterator[tuple[int, Tensor]]:
    """Weighted means over all windows that see a voxel.

    Sums live in a ring of a window's depth: slice z in place z modulo depth, freed as soon as it is given.
    """
    space = image.shape[1:]
    tiled = any(margin) and not overlap
    xs, ys, zs = (positions(n, w, overlap, tiled=tiled) for n, w in zip(space, size, strict=True))
    corners = list(itertools.product(xs, ys))
    depth = size[2]
    wide = tuple(n + 2 * m for n, m in zip(size, margin, strict=True))
    shown = image if not context else torch.empty(0)
    weight = total = count = None

    for z, following in itertools.pairwise([*zs, space[2]]):
        for some in (corners[i : i + batch] for i in range(0, len(corners), batch)):
            boxes = [(slice(x, x + size[0]), slice(y, y + size[1])) for x, y in some]
            if context:
                shown = _shown(image, z, 1, context)[0][..., None]
            first = 0 if context else z
            starts = [(x - margin[0], y - margin[1], first - margin[2]) for x, y in some]
            windows = torch.stack([within(shown, start, wide) for start in starts])
            scores = score(_samples(windows[..., 0] if flat else windows, extra)).float()
            scores = scores[..., None] if flat else scores
            if weight is None or total is None or count is None:
                weight = gaussian(size, scores)
                total = scores.new_zeros((scores.shape[1], space[0], space[1], depth))
                count = scores.new_zeros((space[0], space[1], depth))
            for box, values in zip(boxes, scores, strict=True):
                for ring, own in _places(z, depth, depth):
                    total[(slice(None), *box, ring)].addcmul_(weight[..., own], values[..., own])
                    count[(*box, ring)] += weight[..., own]
            del windows, scores
        assert total is not None
        assert count is not None
        for first in range(z, following, SLAB):
            for ring, own in _places(first, min(SLAB, following - first), depth):
                yield first + own.start, total[..., ring] / count[..., ring]
                total[..., ring] = 0
                count[..., ring] = 0


def _shown(image: Tensor, first: int, number: int, context: int) -> Tensor:
    """Slices from `first` on with their neighbours as channels, (n, (2 * context + 1) * C, X, Y)."""
    depth = image.shape[-1]
    slices = range(first, min(first + number, depth))
    return torch.stack([image[..., neighbours(z, depth, context)].movedim(-1, 0).flatten(0, 1) for z in slices])


def _places(first: int, number: int, depth: int) -> list[tuple[slice, slice]]:
    """Where slices from `first` on lie in the ring: one or two of (places, slices counted from `first`)."""
    start = first % depth
    before = min(number, depth - start)
    found = [(slice(start, start + before), slice(0, before))]
    if before < number:
        found.append((slice(0, number - before), slice(before, number)))
    return found


def within(image: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """A box of the last axes of the image; beyond its border, the nearest voxel of the border stands."""
    for axis, (first, extent) in enumerate(zip(start, size, strict=True), start=image.dim() - len(size)):
        length = image.shape[axis]
        if first >= 0 and first + extent <= length:
            image = image.narrow(axis, first, extent)
        else:
            places = torch.arange(first, first + extent, device=image.device).clamp(0, length - 1)
            image = image.index_select(axis, places)
    return image


def filled(image: Tensor, size: Sequence[int], *, border: bool = False) -> tuple[Tensor, tuple[slice, ...]]:
    """The image (C, *space), filled up to at least `size` with 0 or its border, and where it lies therein."""
    missing = [max(w - n, 0) for n, w in zip(image.shape[1:], size, strict=True)]
    inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, image.shape[1:], strict=True))
    if not any(missing):
        return image, inside
    if border:
        full = [max(w, n) for n, w in zip(image.shape[1:], size, strict=True)]
        return within(image, [-(m // 2) for m in missing], full), inside
    room = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]
    return F.pad(image, room), inside


def positions(length: int, window: int, overlap: float, *, tiled: bool = False) -> list[int]:
    """Starts of windows that cover `length`, the last one ending at the end.

    Evenly spread, or with `tiled` a window apart, all but the last one: so a network that reads every f-th voxel reads
    the same ones from window to window, if f divides the window.
    """
    if length <= window:
        return [0]
    if tiled:
        return [*range(0, length - window, window), length - window]
    stride = max(1, int(window * (1 - overlap)))
    number = math.ceil((length - window) / stride) + 1
    return [round(i * (length - window) / (number - 1)) for i in range(number)]


def gaussian(size: Sequence[int], like: Tensor) -> Tensor:
    """Weight of a window's voxels: a Gaussian of an eighth of the window, at least 1e-3, largest 1."""
    weight = torch.ones((), device=like.device)
    for n in size:
        x = torch.arange(n, device=like.device) - (n - 1) / 2
        weight = weight[..., None] * torch.exp(-0.5 * (x / max(n / 8, 0.5)) ** 2)
    return (weight / weight.max()).clamp(min=1e-3)


def _samples(images: Tensor, facts: dict[str, Tensor]) -> Samples:
    repeated = {name: fact.expand(len(images), *fact.shape[1:]) for name, fact in facts.items()}
    return Samples(images.contiguous(), subject=[""] * len(images), extra=repeated)
