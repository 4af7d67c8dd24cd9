"""Which subjects and which patches make a batch: a function of the seed and the step's number alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch

from ..errors import OptionError, SplitError
from ..names import choose
from .samples import Batch, Samples
from .store import IGNORE, Case

Batches = Literal["mixed", "balanced", "one domain"]
Background = Literal["anywhere", "background"]


def seeded(*numbers: int) -> np.random.Generator:
    """Random numbers that depend on `numbers` and on nothing else."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def seed_of(*numbers: int) -> int:
    """A 63-bit seed from `numbers`, for torch."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Patches:
    """How patches are cut.

    Args:
        size: Two numbers: slices of the last axis, cut to this size; three: blocks.
        foreground: Share of patches with a voxel of a structure at their centre, structures drawn with equal
            probability; or a share for each class index. A case that lacks the structure that was drawn gives one of
            the others that are named.
        background: Where the other patches come from: "anywhere", or "background", centred on a voxel without a
            structure inside of what the scan shows, as DeepMedic draws them.
        context: In 2D, neighbouring slices on each side that are shown as further channels.
        whole: Whether a scan has one label, so that a network is shown all of it.
        source: Size of what is cut, where augmentation turns and zooms it and then cuts patches of `size` out of the
            middle; None is `size` itself. Likewise where a network reads more than it scores.
        beyond: What the image holds beyond its border: zeros, or its border's values.
    """

    size: tuple[int, ...]
    foreground: float | Mapping[int, float] = 1 / 3
    context: int = 0
    whole: bool = False
    source: tuple[int, ...] | None = None
    background: Background = "anywhere"
    beyond: Literal["zeros", "border"] = "zeros"

    def __post_init__(self) -> None:
        shares = self.foreground.values() if isinstance(self.foreground, Mapping) else [self.foreground]
        if any(not 0 <= share <= 1 for share in shares) or sum(shares) > 1 + 1e-9:
            raise OptionError(
                f"sampling.foreground is a share between 0 and 1, or one of each structure, up to 1 together; "
                f"got {self.foreground}"
            )
        choose(self.background, get_args(Background), "value of sampling.background")

    def drawn(self, present: Sequence[int], random: np.random.Generator) -> int:
        """Class on a voxel of which a patch is centred; 0 where on none of a structure.

        Args:
            present: Classes of structures that the case has.
            random: Where one number is drawn for whether, and one for which.
        """
        if not isinstance(self.foreground, Mapping):
            chosen = random.random() < self.foreground and len(present) > 0
            return present[int(random.integers(len(present)))] if chosen else 0
        if random.random() >= sum(self.foreground.values()):
            return 0
        shares = np.array([self.foreground.get(k, 0.0) for k in present])
        return int(random.choice(np.array(present), p=shares / shares.sum())) if shares.sum() > 0 else 0


@dataclass
class Feed:
    """Batches of patches, and read-only passes over whole subjects.

    A batch depends on (seed, index, draw) only: nothing has to be saved to resume, and processes agree without
    speaking. Over time each subject of a group is drawn equally often, without replacement within an epoch.

    Args:
        source: Labelled training cases.
        domains: Training domains, sources first, then targets; `Samples.domain` counts along it.
        patches: How patches are cut.
        size: Samples in the source batch; the target batch and each stream have the same size.
        target: Cases of the target domains, without labels.
        streams: Further cases by name.
        batches: See `Needs.batches`.
        seed: Seed.

    Raises:
        SplitError: If there is no labelled case in a source domain, or a target case has a label.
    """

    source: list[Case]
    domains: list[str]
    patches: Patches
    size: int = 8
    target: list[Case] = field(default_factory=list)
    streams: Mapping[str, list[Case]] = field(default_factory=dict)
    batches: Batches = "mixed"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.source:
            raise SplitError("there is no training case; check the cohort's domains, labels and split column")
        unlabelled = [c.subject for c in self.source if not c.labelled]
        if unlabelled:
            raise SplitError(f"training cases without a label: {', '.join(unlabelled[:5])}; leave them out")
        if any(c.labelled for c in self.target):
            raise SplitError("target cases must come without labels: use Cohort.without_labels()")
        for name, cases in self.streams.items():
            both = sorted({c.subject for c in self.source} & {c.subject for c in cases})
            if both:
                raise SplitError(
                    f'subjects of the stream "{name}" that are trained on, too: {", ".join(both[:5])}; what learns '
                    "from both sees one of them as new, so give each subject one side"
                )
        groups: dict[str, list[Case]] = {d: [] for d in self.domains}
        for case in self.source:
            if case.domain not in groups:
                raise SplitError(f'domain "{case.domain}" is not a training domain ({", ".join(self.domains)})')
            groups[case.domain].append(case)
        self._by_domain = [cases for cases in groups.values() if cases]
        if self.batches == "balanced" and self.size < len(self._by_domain):
            raise OptionError(
                f"a balanced batch of {self.size} cannot hold each of {len(self._by_domain)} domains; "
                f"use a batch of at least {len(self._by_domain)}"
            )

    def batch(self, index: int, draw: int = 0, rank: int = 0, processes: int = 1) -> Batch:
        """The batch of step `index`; `draw` counts further batches within the step.

        Of several processes each gets the samples `rank, rank + processes, ...` of the same batch.
        """
        own = slice(rank, None, processes)
        placed = list(enumerate(self._source_cases(index, draw)))[own]
        source = [self._patch(case, index, draw, 0, j) for j, case in placed]
        others = {name: cases for name, cases in {"": self.target, **self.streams}.items() if cases}
        drawn = {}
        for number, (name, cases) in enumerate(others.items(), start=1):
            placed = list(enumerate(self._cycled(cases, index * self.size, self.size, number, draw)))[own]
            drawn[name] = Samples.joined([self._patch(c, index, draw, number, j) for j, c in placed])
        target = drawn.pop("", None)
        return Batch(Samples.joined(source), target, drawn)

    def pass_over(self, cases: Sequence[Case]) -> Iterator[Samples]:
        """Every case once, whole: its slices as a batch in 2D, the volume as a batch of one in 3D."""
        for case in cases:
            yield case_samples(case, self.patches, self.domains)

    def _source_cases(self, index: int, draw: int) -> list[Case]:
        if self.batches == "mixed":
            return self._cycled(self.source, index * self.size, self.size, 0, draw)
        groups = self._by_domain
        if self.batches == "one domain":
            # Domains take turns in an order that is drawn anew for each round.
            turn = seeded(self.seed, 11, index // len(groups), draw).permutation(len(groups))[index % len(groups)]
            return self._cycled(groups[turn], index // len(groups) * self.size, self.size, 100 + int(turn), draw)
        chosen: list[Case] = []
        share, rest = divmod(self.size, len(groups))
        for g, cases in enumerate(groups):
            # What is left over after equal shares goes around the domains.
            first, end = (i * share + (i * rest - g + len(groups) - 1) // len(groups) for i in (index, index + 1))
            chosen += self._cycled(cases, first, end - first, 100 + g, draw)
        return chosen

    def _cycled(self, cases: list[Case], first: int, number: int, stream: int, draw: int) -> list[Case]:
        """Cases `first` to `first + number` of an endless series of shuffled epochs."""
        chosen = []
        for position in range(first, first + number):
            epoch, place = divmod(position, len(cases))
            order = seeded(self.seed, 7, stream, draw, epoch).permutation(len(cases))
            chosen.append(cases[order[place]])
        return chosen

    def _patch(self, case: Case, index: int, draw: int, stream: int, place: int) -> Samples:
        return cut(case, self.patches, self.domains, seeded(self.seed, 3, stream, draw, index, place))


def cut(case: Case, patches: Patches, domains: Sequence[str], random: np.random.Generator) -> Samples:
    """One patch of a case, a batch of one.

    Where the case is smaller than the patch, the image is filled with 0 and the label says nothing ("ignore").
    """
    space = case.image.shape[1:]
    flat = len(patches.size) == 2
    size = (*patches.size, 1) if flat else patches.size
    places = case.centres
    drawn = patches.drawn([k for k, where in sorted(places.items()) if k > 0 and len(where)], random)
    where = places[drawn] if drawn else case.elsewhere if patches.background == "background" else ()
    centre = where[random.integers(len(where))] if len(where) else None
    starts = []
    for axis, (n, w) in enumerate(zip(space, size, strict=True)):
        if n <= w:
            starts.append(-((w - n) // 2))
        elif centre is None:
            starts.append(int(random.integers(n - w + 1)))
        else:
            starts.append(int(np.clip(centre[axis] - w // 2, 0, n - w)))
    if patches.source is not None:
        margins = [math.ceil((s - w) / 2) for s, w in zip(patches.source, patches.size, strict=True)] + [0] * flat
        starts = [start - m for start, m in zip(starts, margins, strict=True)]
        size = tuple(w + 2 * m for w, m in zip(size, margins, strict=True))
    box = tuple(slice(max(s, 0), min(s + w, n)) for s, w, n in zip(starts, size, space, strict=True))
    room = [(max(-s, 0), max(s + w - n, 0)) for s, w, n in zip(starts, size, space, strict=True)]

    mode: Any = "edge" if patches.beyond == "border" else "constant"
    if patches.context:
        around = neighbours(starts[2], space[2], patches.context)
        shown = np.asarray(case.image[(slice(None), *box[:2])])[..., around]
        image = stacked(np.pad(shown, [(0, 0), *room[:2], (0, 0)], mode))[..., None]
    else:
        image = np.pad(np.asarray(case.image[(slice(None), *box)]), [(0, 0), *room], mode)
    label = None
    if case.label is not None:
        label = np.pad(np.asarray(case.label[box]), room, constant_values=IGNORE)
        label = label[..., 0] if flat else label
    samples = _samples(
        case, image[None, ..., 0] if flat else image[None], None if label is None else label[None], domains
    )
    if label is not None:
        samples.extra["drawn"] = torch.tensor([drawn])
    return samples


def case_samples(case: Case, patches: Patches, domains: Sequence[str] = ()) -> Samples:
    """A whole case, as a network reads it: its `views` where it has one label, else slices or the volume."""
    if patches.whole:
        return _samples(case, views(case.image, patches.size, patches.context), None, domains)
    return whole(case, len(patches.size), domains, patches.context)


def neighbours(z: int, depth: int, context: int) -> list[int]:
    """Slices that are shown with slice `z`; at the ends the last one stands in for those beyond."""
    return [min(max(i, 0), depth - 1) for i in range(z - context, z + context + 1)]


def stacked(image: np.ndarray) -> np.ndarray:
    """(C, X, Y, n) neighbouring slices as channels (n * C, X, Y), slice by slice."""
    return np.moveaxis(image, -1, 0).reshape(-1, *image.shape[1:3])


def views(image: np.ndarray, size: Sequence[int], context: int = 0) -> np.ndarray:
    """What a network is shown of a whole scan, where it has one label.

    Args:
        image: (C, X, Y, Z).
        size: The patch: two numbers, every slice is a view; three, the volume is one.
        context: See `Patches`.

    Returns:
        (n, C, *size): the middle, filled up with 0 where the scan is smaller.
    """
    for axis, w in enumerate(size, start=1):
        start = max((image.shape[axis] - w) // 2, 0)
        image = image[(slice(None),) * axis + (slice(start, start + w),)]
        missing = w - image.shape[axis]
        if missing > 0:
            room = [(0, 0)] * image.ndim
            room[axis] = (missing // 2, missing - missing // 2)
            image = np.pad(image, room)
    if len(size) == 3:
        return image[None]
    depth = image.shape[3]
    return np.stack([stacked(image[..., neighbours(z, depth, context)]) for z in range(depth)])


def whole(case: Case, dimensions: int, domains: Sequence[str] = (), context: int = 0) -> Samples:
    """A case as samples: its slices as a batch in 2D, the volume as a batch of one in 3D."""
    image, label = np.asarray(case.image)[None], None if case.label is None else np.asarray(case.label)[None]
    if dimensions == 2:
        depth = image.shape[-1]
        image = np.stack([stacked(image[0][..., neighbours(z, depth, context)]) for z in range(depth)])
        label = None if label is None else np.moveaxis(label[0], -1, 0)
    return _samples(case, image, label, domains)


def _samples(case: Case, image: np.ndarray, label: np.ndarray | None, domains: Sequence[str]) -> Samples:
    number = len(image)
    domain = None
    if case.domain in domains:
        domain = torch.full((number,), list(domains).index(case.domain))
    extra = {"present": torch.from_numpy(np.tile(case.present, (number, 1)))}
    indices = None
    if label is not None:
        ignored = label == IGNORE
        indices = torch.from_numpy(np.where(ignored, 0, label).astype(np.int64))
        extra["ignore"] = torch.from_numpy(ignored)
        extra["annotated"] = torch.from_numpy(np.tile(case.annotated, (number, 1)))
        middle = tuple(n // 2 for n in label.shape[1:])
        extra["centre"] = indices[(slice(None), *middle)]
    if case.target is not None:
        # Several findings may be unknown: those count for nothing, whatever stands in their place.
        value = np.nan_to_num(case.target) if case.target.ndim else case.target
        indices = torch.from_numpy(np.tile(value, (number, *[1] * value.ndim)))
        if value.ndim:
            extra["annotated"] = torch.from_numpy(np.tile(case.annotated, (number, 1)))
    image = np.ascontiguousarray(image, dtype=np.float32)
    # A memory-mapped file is read-only; torch wants memory of its own.
    image = image if image.flags.writeable else image.copy()
    return Samples(torch.from_numpy(image), indices, domain, [case.subject] * number, extra)
