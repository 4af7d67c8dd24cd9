"""How a network is trained: what a method needs, what it may know, what it moves, and its one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from ..data.samples import Batch, Samples
from ..tasks.task import Prediction, Task

Losses = dict[str, Tensor]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """What a method may know of the data.

    Args:
        domains: Training domains, sources first, then targets. A held-out domain is not among them.
        channels: Channels of the image.
        dimensions: 2 or 3.
        sources: How many of `domains` are labelled sources.
        patch: Voxels of a training patch, as the network reads it; empty where that is not known.
        spacing_mm: Of its voxels, one number an axis; likewise.
        orientation: Where the axes point to, such as "LPS"; "" for pictures, and where that is not known.
    """

    domains: list[str]
    channels: int
    dimensions: int
    sources: int
    patch: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    orientation: str = ""


@dataclass(frozen=True)
class Needs:
    """What a method asks for; checked once, before training.

    Args:
        tasks: Names of the tasks that it can train.
        sources: Least number of labelled training domains.
        target: Whether unlabelled target images are used.
        streams: Further samples in each batch, by name. "validation": labelled patches of training subjects that
            are taken out of the source, so that nothing is learned from their labels but what the method asks.
        extra: Facts that sampling writes into `Samples.extra`: "centre".
        network: Options for the network's factory, such as `{"norm": "batch"}`.
        batches: How source batches are made up. "mixed": as the subjects come; "balanced": equally many
            of each domain; "one domain": each batch from one domain.
        features: Whether `encode` and `decode` are called apart, which a network must then allow.
        own_transforms: Whether the method augments by itself: it is given patches as they were cut, of the size that
            `Method.source_patch` asks for.
        plain: Whether `Batch.plain` is wanted, the source patches without augmentation.
    """

    tasks: tuple[str, ...] = ("segmentation", "classification", "regression")
    sources: int = 1
    target: Literal["unused", "optional", "required"] = "unused"
    streams: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    network: Mapping[str, Any] = field(default_factory=dict)
    batches: Literal["mixed", "balanced", "one domain"] = "mixed"
    features: bool = False
    own_transforms: bool = False
    plain: bool = False


@dataclass(frozen=True)
class Part:
    """What one descent moves. Parts may overlap; each keeps moments of its own.

    Args:
        modules: Whose parameters move.
        optimizer: "adamw", "adam", "sgd", "nesterov", "rmsprop" or "deepmedic"; None takes the trainer's.
        options: Further options of the optimiser: betas, weight_decay, momentum.
        rate: Learning rate; None takes the trainer's. Likewise `clip`.
        schedule: Factor of the rate by progress in [0, 1]; None takes the trainer's.
        clip: Largest norm of the part's gradient.
        after: Called after each move: a projection of the weights, a running average.
    """

    modules: Sequence[nn.Module]
    optimizer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    rate: float | None = None
    schedule: Callable[[float], float] | None = None
    clip: float | None = None
    after: Callable[[], None] | None = None


class Reader(Protocol):
    """Read-only passes over what a method may see, in a fixed order, without augmentation."""

    def source(self) -> Iterator[Samples]:
        """Every labelled training subject once, in batches."""
        ...

    def target(self) -> Iterator[Samples]:
        """Every unlabelled target subject once, in batches; nothing where there is no target."""
        ...


class Step(Protocol):
    """One step, as its method sees it: the method decides when to descend, the step how.

    Where several processes train, each sees its own share of the joint batch. A mean over samples in a loss needs no
    care: gradients are averaged by the shares. What else a method computes of a batch, and what it remembers, it
    passes through `mean` or `gather`: then it is of the joint batch, and the same in every process.

    Attributes:
        index: Number of the step, from 0.
        progress: 0 at the first step of the run, 1 at the last.
        phase: Name of the current phase; `phase_progress` runs from 0 to 1 within it.
        shared: A generator that is the same in every process: for episodes and splits.
        weight: This process's share of the samples of the joint batch; 1 where there is one process.
    """

    index: int
    progress: float
    phase: str
    phase_progress: float
    shared: torch.Generator

    @property
    def weight(self) -> float: ...
    def rate(self, part: str = "all") -> float: ...
    def parameters(self, part: str = "all") -> list[nn.Parameter]: ...
    def gradient(self, loss: Tensor, part: str = "all", keep: bool = False) -> list[Tensor | None]: ...
    def derivative(
        self, loss: Tensor, by: Sequence[Tensor], *, keep: bool = False, differentiable: bool = False
    ) -> list[Tensor | None]: ...
    def move(self, gradients: list[Tensor | None], part: str = "all") -> None: ...
    def descend(self, loss: Tensor, part: str = "all", keep: bool = False) -> None: ...
    def draw(self) -> Batch: ...
    def mean(self, x: Tensor) -> Tensor: ...
    def gather(self, x: Tensor) -> Tensor: ...
    def own(self, x: Tensor) -> Tensor: ...
    def mirrored(self, x: Tensor) -> Tensor: ...
    def noise(self, like: Tensor) -> Tensor: ...
    def log(self, name: str, value: Tensor | float) -> None: ...


class Method(nn.Module):
    """One way to train a network on several domains.

    A subclass states its `needs`, takes its options as keyword-only arguments, and overrides `losses`
    (one descent) or `update` (several). Everything that training must remember is a parameter, a buffer
    or part of `get_extra_state`: then it is saved and restored without further words.

    The network is reached through `encode`, `decode` and `forward` only, so that the samples' domain and
    functional weights act in one place.
    """

    needs: ClassVar[Needs] = Needs()

    def __init__(self, network: nn.Module, task: Task, setting: Setting) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.setting = setting

    # The doors to the network ------------------------------------------------------------------

    def encode(self, samples: Samples, weights: Weights | None = None, **options: Any) -> list[Tensor]:
        """Feature maps, finest first, each (B, C, *space)."""
        return self._call("encode", self.task.inputs(samples), options, weights)

    def decode(
        self, features: list[Tensor], samples: Samples, weights: Weights | None = None, **options: Any
    ) -> Prediction:
        """The prediction that belongs to `encode`'s features of the same samples."""
        return self._call("decode", (features,), options, weights)

    def forward(self, samples: Samples, weights: Weights | None = None) -> Prediction:
        return self._call("forward", self.task.inputs(samples), {}, weights)

    def _call(self, door: str, inputs: tuple, options: Mapping[str, Any], weights: Weights | None) -> Any:
        if weights is None:
            # The module itself is called for "forward", so that hooks of the user's network run.
            call = self.network if door == "forward" else getattr(self.network, door)
            return call(*inputs, **options)
        # A virtual step must leave no trace: batch norm writes its running statistics into copies.
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        replaced = {f"network.{name}": tensor for name, tensor in {**buffers, **weights}.items()}
        return torch.func.functional_call(_Door(self.network), replaced, (door, *inputs), dict(options))

    # What a method says ------------------------------------------------------------------------

    def error(self, samples: Samples, weights: Weights | None = None) -> Tensor:
        """The task's loss of `forward`, (B,); never of `predict`."""
        return self.task.loss(self(samples, weights), samples)

    def losses(self, batch: Batch, step: Step) -> Losses:
        """Weighted losses by name; their sum is minimised."""
        raise TypeError(f"{type(self).__name__} must override losses or update")

    def update(self, batch: Batch, step: Step) -> Losses:
        """One step. The default descends once on the sum of `losses`."""
        losses = self.losses(batch, step)
        step.descend(torch.stack(list(losses.values())).sum())
        return losses

    def parts(self) -> dict[str, Part]:
        """What the descents move, by name."""
        return {"all": Part([self])}

    def phases(self) -> dict[str, float]:
        """Stages by name with their share of the run; the shares add up to 1."""
        return {"main": 1.0}

    def begin(self, phase: str, reader: Reader) -> None:
        """Called before the first step of each phase, with read-only passes over the training data.

        What it computes must be kept as state (buffers, extra state): a resumed run does not call it again.
        """

    def require_files(self) -> None:
        """Called before any run: files that training starts from must be there and fit.

        Raises:
            OptionError: If one does not.
        """

    def predict(self, samples: Samples) -> Prediction:
        """What is used after training; pure."""
        return self(samples)

    # What it leaves, and how large its patches are cut -------------------------------------------

    def files(self) -> dict[str, str]:
        """Further text files of the model folder, by name: what a method learned besides weights."""
        return {}

    @classmethod
    def source_patch(cls, setting: Setting, **options: Any) -> tuple[int, ...]:
        """How large a source has to be cut for a method that augments by itself; see `Needs.own_transforms`.

        Args:
            setting: With the patch that the network reads.
            options: The method's own, resolved.
        """
        return setting.patch

    @classmethod
    def least_batch(cls, **options: Any) -> int:
        """How many samples a batch needs.

        Args:
            options: The method's own, resolved.
        """
        return 1


class _Door(nn.Module):
    """`functional_call` reaches `forward` only; this leads it to the network's other doors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, door: str, *inputs: Any, **options: Any) -> Any:
        return self.network(*inputs) if door == "forward" else getattr(self.network, door)(*inputs, **options)
