"""What a step costs: `erm` against a bare loop, and each method against `erm`, side by side in one run.

Every round times one step of each contestant in turn on the same batch, so that a machine that slows down slows all
of them; the ratio of a round is formed within it, and the median over rounds is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from shiftproof.data.samples import Batch, Samples
from shiftproof.methods.method import Method, Setting
from shiftproof.recipe import Recipe, build
from shiftproof.train import Trainer, movers, phase_at
from shiftproof.training.steps import SCHEDULES, RunningStep
from shiftproof.versions import versions

ROWS: dict[str, tuple[str, dict, bool]] = {
    "erm": ("erm", {}, False),
    "dann, sources only": ("dann", {}, False),
    "dann, with a target batch": ("dann", {}, True),
    "dann, alternating, 1 critic step": ("dann", {"form": "alternating"}, False),
    "mldg, first order": ("mldg", {}, False),
    "mldg, exact": ("mldg", {"second_order": True}, False),
    "group_dro": ("group_dro", {}, False),
    "mean_teacher, sources only": ("mean_teacher", {}, False),
    "mean_teacher, with a target batch": ("mean_teacher", {}, True),
}


class Plan:
    """What `build` reads of a plan."""

    classes = ["background", "csf", "grey", "white"]
    channels = ["image"]
    target = {"task": "segmentation", "kind": "multi-class"}
    dimensions, patch, spacing_mm = 2, [64, 64], [1.0, 1.0]


def batch(size: int, side: int, targets: bool, device: str) -> Batch:
    random = torch.Generator().manual_seed(0)
    image = torch.randn(size, 1, side, side, generator=random)
    label = torch.randint(0, 4, (size, side, side), generator=random)
    source = Samples(
        image, label, torch.arange(size) % 3, [""] * size, {"ignore": torch.zeros(size, side, side, dtype=torch.bool)}
    )
    target = Samples(torch.randn(size, 1, side, side, generator=random), None, torch.full((size,), 3), [""] * size)
    return Batch(source, target if targets else None).to(device)


def contestant(name: str, options: dict, given: Batch, device: str) -> Callable[[int], None]:
    """A step through the frame."""
    domains = ["a", "b", "c"] + (["t"] if given.target is not None else [])
    method: Method = build(
        Recipe(name, method=name, options=options, target=given.target is not None),
        Plan(),  # type: ignore[arg-type]
        Setting(domains, 1, 2, 3),
    ).to(device)
    trainer = Trainer()
    moved = movers(method, trainer)
    method.train()

    def step(index: int) -> None:
        phase, within = phase_at(method.phases(), 0.5)
        method.update(
            given,
            RunningStep(
                index,
                0.5,
                phase,
                within,
                torch.Generator().manual_seed(index),
                moved,
                SCHEDULES["cosine"],
                trainer.clip,
                lambda draw: given,
                {},
            ),
        )

    return step


def bare(given: Batch, device: str) -> Callable[[int], None]:
    """What one would write by hand, with the same network, loss, optimiser and clipping."""
    method = build(Recipe("erm"), Plan(), Setting(["a", "b", "c"], 1, 2, 3)).to(device)  # type: ignore[arg-type]
    network, task = method.network, method.task
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    network.train()

    def step(index: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(network(given.source.image), given.source).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=9)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    steps = {"bare loop": bare(batch(given.batch, given.side, False, given.device), given.device)}
    for label, (name, options, targets) in ROWS.items():
        steps[label] = contestant(name, options, batch(given.batch, given.side, targets, given.device), given.device)
    times: dict[str, list[float]] = {label: [] for label in steps}
    order = list(steps)
    random = np.random.default_rng(0)
    for index in range(given.rounds + 2):
        random.shuffle(order)
        for label in order:
            started = time.perf_counter()
            steps[label](index)
            if given.device == "cuda":
                torch.cuda.synchronize()
            if index >= 2:
                times[label].append(time.perf_counter() - started)
    print(f"batch {given.batch} x 1 x {given.side} x {given.side}, {given.rounds} rounds, {given.device}, 1 thread")
    print(", ".join(f"{k} {v}" for k, v in versions().items()))
    print(f"{'step':36} {'ms':>8} {'ratio':>7}   against")
    for label in steps:
        reference = "bare loop" if label in ("bare loop", "erm") else "erm"
        ratio = statistics.median(a / b for a, b in zip(times[label], times[reference], strict=True))
        print(f"{label:36} {1000 * statistics.median(times[label]):8.1f} {ratio:7.3f}   {reference}")


if __name__ == "__main__":
    main()
