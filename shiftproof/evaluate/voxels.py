"""Logits of some voxels of each true class, taken while a scan is segmented; of a whole scan where it has one label."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from torch import Tensor

from ..data.cohort import Row
from ..data.images import array_of, compare_geometry, read_image
from ..data.labels import IGNORE, LabelMap
from ..data.preprocess import Preprocessed
from ..data.resample import resample_label
from ..errors import GeometryError, OptionError
from ..statistics.margins import signed_margins, switch_margins

CAP = 20_000
"""Voxels of a scan and class at most: else large structures of few scans would be all that is seen."""

Logit = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """A class that samples truly belong to.

    Args:
        name: What it is called; of a structure that is absent from a sample "not NAME".
        column: Of the logits.
        present: Of structures or findings that may occur together: whether it is there. The other logit is 0.
        switch: Whether they may.
    """

    name: str
    column: int
    present: bool = True
    switch: bool = False

    def margins(self, logits: Logit) -> NDArray[np.float64]:
        """(N,) of the logits (N, K) of samples of this class."""
        if self.switch:
            return switch_margins(logits[:, self.column], self.present)
        return signed_margins(logits, self.column)


def truths_of(target: Mapping[str, Any], classes: Sequence[str]) -> list[Truth]:
    """The classes whose margins can be read of a task, in the words of a plan.

    Raises:
        OptionError: For a regression, which has no classes.
    """
    if target["task"] == "regression":
        raise OptionError("margins are of classes, and this model predicts a number; use a segmentation or classes")
    if target["kind"] == "multi-label":
        names = list(classes[1:]) if target["task"] == "segmentation" else list(classes)
        return [
            Truth(name if there else f"not {name}", k, there, True)
            for k, name in enumerate(names)
            for there in (False, True)
        ]
    return [Truth(name, k) for k, name in enumerate(classes)]


@dataclass
class CaseLogits:
    """Logits of one scan.

    Args:
        subject, domain: Whose.
        scan: Number of the scan within its subject, from 1.
        side: "train", "validation" or "test".
        logits: By the name of the truth, (n, K) float32; a truth that does not occur is absent.
    """

    subject: str
    domain: str
    scan: int
    side: str
    logits: dict[str, Logit] = field(default_factory=dict)


class Reservoir:
    """An even sample without replacement of what comes, of at most `cap` lines.

    Each line draws a number, and the lines with the smallest stay: what is kept does not depend on how the lines came
    in pieces, only on their order.
    """

    def __init__(self, cap: int, random: np.random.Generator) -> None:
        self.cap, self.random = cap, random
        self.drawn = np.zeros(0)
        self.lines: Logit | None = None

    def add(self, lines: Logit) -> None:
        drawn = self.random.random(len(lines))
        if self.lines is not None:
            drawn, lines = np.concatenate([self.drawn, drawn]), np.concatenate([self.lines, lines])
        if len(drawn) > self.cap:
            kept = np.sort(np.argpartition(drawn, self.cap)[: self.cap])
            drawn, lines = drawn[kept], lines[kept]
        self.drawn, self.lines = drawn, lines


class VoxelLogits:
    """What `deploy.segment` shows of one scan, sampled by true class on the grid that the network works on.

    A class that the scan's domain does not annotate has no voxels, nor has then the background, which may hold it;
    ignored voxels count for nothing.

    Args:
        row: The scan, with its label.
        labels: What values of the label mean.
        truths: As `truths_of` has them.
        cap: Voxels of a class at most.
        seed: Of the draw.
        scan: Number of the scan within its subject.
    """

    def __init__(
        self, row: Row, labels: LabelMap, truths: Sequence[Truth], *, cap: int = CAP, seed: int = 0, scan: int = 1
    ) -> None:
        assert row.label is not None
        self.name = str(row.label)
        self.image = read_image(row.label)
        self.label = labels.encode(array_of(self.image), row.domain, name=self.name)
        self.parts = np.array(labels.parts) if labels.kind == "multi-label" else None
        annotated = labels.annotated(row.domain)
        shift = 0 if self.parts is None else 1
        self.truths = [t for t in truths if annotated[t.column + shift] and (t.switch or t.column or all(annotated))]
        own = zlib.crc32(f"{row.subject}/{scan}".encode())
        self.held = {t.name: Reservoir(cap, np.random.default_rng([seed, own, k])) for k, t in enumerate(truths)}
        self.shown: NDArray[np.integer] | None = None

    def see(self, prepared: Preprocessed, first: int, scores: Tensor) -> None:
        """Scores (K, X, Y, n) from slice `first` on."""
        if self.shown is None:
            self.shown = self._on_grid(prepared)
        label = self.shown[..., first : first + scores.shape[-1]]
        lines = scores.detach().float().cpu().numpy()
        for truth in self.truths:
            where = self._where(truth, label)
            if where.any():
                self.held[truth.name].add(np.ascontiguousarray(lines[:, where].T))

    @property
    def logits(self) -> dict[str, Logit]:
        return {name: one.lines for name, one in self.held.items() if one.lines is not None}

    def _where(self, truth: Truth, label: NDArray[np.integer]) -> NDArray[np.bool_]:
        if self.parts is None:
            return np.asarray(label == truth.column)
        known = label != IGNORE
        inside = self.parts[np.where(known, label, 0), truth.column]
        return np.asarray(known & (inside if truth.present else ~inside))

    def _on_grid(self, prepared: Preprocessed) -> NDArray[np.integer]:
        """The label as training reads it: turned, cropped and resampled with the image."""
        geometry = prepared.geometry
        grid: sitk.Image = geometry.place(np.zeros(geometry.cropped, np.uint8))
        difference = compare_geometry(grid, self.image)
        if difference:
            raise GeometryError(
                f"{self.name} does not share the grid of its image: {difference}; resample the label to the image"
            )
        return np.asarray(resample_label(geometry.forward(self.label), geometry.shape))


def scan_logits(row: Row, scores: Logit, truths: Sequence[Truth]) -> dict[str, Logit]:
    """Of a scan with one label: scores (K,) under the class that it has, or under each finding that is annotated."""
    assert row.target is not None
    found = {}
    for truth in truths:
        target = row.target[truth.column] if truth.switch else row.target
        if (target == float(truth.present)) if truth.switch else (int(target) == truth.column):
            found[truth.name] = scores[None].astype(np.float32)
    return found
