"""Learned augmentation: what it costs, and whether operations that destroy images lose their probability.

`cost` times rounds of steps, data included, of plain training with the same pool drawn uniformly ("random"), and of
learned augmentation with an update at every step and at the default distance. Every round times all contestants in
turn, in a random order; ratios are formed within a round, and their median is printed (goal for the default: 1.7).

`destroying` trains from equal probabilities of all operations of the pool "talk" and of 15 that leave nothing of an
image, and prints what became of them. Images are scikit-learn's handwritten digits (8 x 8 voxels, shown as 16 x 16) in
noise: asked for is the ink, voxel by voxel ("segmentation"), or the digit ("classification"). A fifth of the training
images tells which operations help; the score is that of images of the other half.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measured import heading

from shiftproof import catalogue, nets, tasks
from shiftproof.data.samples import Batch, Samples
from shiftproof.data.sampling import Feed, Patches
from shiftproof.methods.learned_augmentation import LearnedAugmentation
from shiftproof.methods.method import Method, Setting
from shiftproof.train import Trainer, movers
from shiftproof.training.steps import SCHEDULES, RunningStep
from shiftproof.transforms.policies import Policy
from shiftproof.transforms.pool import Pool

EVERY = next(int(o.default) for o in catalogue.options(LearnedAugmentation) if o.name == "policy_update_every")


def step_at(index: int, steps: int, trainer: Trainer, moved: dict) -> RunningStep:
    progress = index / max(steps - 1, 1)
    shared = torch.Generator().manual_seed(index)
    schedule = SCHEDULES[trainer.schedule]
    return RunningStep(index, progress, "main", progress, shared, moved, schedule, trainer.clip, None, {})  # type: ignore[arg-type]


# What it costs -----------------------------------------------------------------------------------------------


class Volume:
    """A preprocessed case in memory: noise with a box for a lesion."""

    def __init__(self, subject: str, side: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.subject, self.domain, self.target, self.labelled = subject, "a", None, True
        self.image = random.normal(size=(1, side, side, side)).astype(np.float32)
        self.label = np.zeros((side,) * 3, np.uint8)
        self.label[side // 2 : side // 2 + 6, side // 2 : side // 2 + 6, side // 2 : side // 2 + 6] = 1
        self.present, self.annotated = np.ones(1, bool), np.ones(2, bool)
        self.centres = {1: np.argwhere(self.label == 1)}


def contestant(name: str, options: dict[str, Any], given: argparse.Namespace) -> Callable[[int], None]:
    """A step as training takes it: patches are cut, augmented and learned from."""
    patch = (given.patch,) * given.dimensions
    torch.manual_seed(0)
    task = tasks.make({"task": "segmentation"}, ["background", "lesion"])
    network = nets.build("unet", dimensions=given.dimensions, channels=1, outputs=2, norm="instance")
    method: Method = catalogue.method(name)(network, task, Setting(["a"], 1, given.dimensions, 1, patch), **options)
    method = method.to(given.device)
    pool = Pool("talk", dimensions=given.dimensions, patch=patch)
    policy = Policy(pool.groups)
    reach = 1.5 if given.dimensions == 2 else 1.25  # as the package caps it
    source = tuple(min(n, int(np.ceil(reach * w))) for n, w in zip(pool.source_patch(patch), patch, strict=True))
    volumes: list[Any] = [Volume(f"s{i}", 64, i) for i in range(8)]
    streams = dict.fromkeys(method.needs.streams, volumes[6:])
    feed = Feed(volumes[:6], ["a"], Patches(patch, 0.5, source=source), size=given.batch, streams=streams)
    trainer = Trainer()
    moved = movers(method, trainer)
    method.train()

    def step(index: int) -> None:
        batch, under_way = feed.batch(index).to(given.device), step_at(index, 10**6, trainer, moved)
        if not method.needs.own_transforms:
            choices = policy.sample(torch.zeros(given.batch, dtype=torch.long), under_way.shared)
            batch.source = pool.apply(batch.source, pool.draw(batch.source, choices.index, under_way.shared))
        method.update(batch, under_way)

    return step


def cost(given: argparse.Namespace) -> dict[str, Any]:
    every: dict[str, Any] = {"policy_update_every": 1}
    rows = {
        'erm, transforms "random"': contestant("erm", {}, given),
        "learned, update at every step": contestant("learned_augmentation", every, given),
        f"learned, update every {EVERY} steps (default)": contestant("learned_augmentation", {}, given),
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    random, order = np.random.default_rng(0), list(rows)
    for turn in range(given.rounds + 1):
        random.shuffle(order)
        for name in order:
            started = time.perf_counter()
            for index in range(turn * EVERY, (turn + 1) * EVERY):  # a round holds an update of each
                rows[name](index)
            if given.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                times[name].append((time.perf_counter() - started) / EVERY)
    plain = times[next(iter(rows))]
    return {
        name: {
            "ms": 1000 * statistics.median(seconds),
            "ratio": statistics.median(s / p for s, p in zip(seconds, plain, strict=True)),
        }
        for name, seconds in times.items()
    }


# Operations that destroy -------------------------------------------------------------------------------------


def digits(seed: int, task: str) -> tuple[Samples, Samples, Samples]:
    """Training, validation and test images: 40, 10 and 50 %."""
    from sklearn.datasets import load_digits

    found, random = load_digits(), torch.Generator().manual_seed(seed)
    ink = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    ink = ink.repeat_interleave(2, 2).repeat_interleave(2, 3)
    image = ink + 0.3 * torch.randn(ink.shape, generator=random)
    image = (image - image.mean()) / image.std()
    label = (ink[:, 0] > 0.5).long() if task == "segmentation" else torch.tensor(found.target)
    order = torch.randperm(len(image), generator=random)
    whole = Samples(image[order], label[order], torch.zeros(len(image), dtype=torch.long))
    if task == "segmentation":
        whole.extra["drawn"] = torch.ones(len(image), dtype=torch.long)
    first, second = int(0.4 * len(image)), int(0.5 * len(image))
    return whole[:first], whole[first:second], whole[second:]


def learner(given: argparse.Namespace) -> LearnedAugmentation:
    torch.manual_seed(given.seed)
    flat: dict[str, Any] = {"dimensions": 2, "channels": 1}
    if given.task == "segmentation":
        task = tasks.make({"task": "segmentation"}, ["background", "ink"])
        network = nets.build("unet", outputs=2, widths=(4, 8), norm="none", **flat)
    else:
        task = tasks.make({"task": "classification"}, [str(digit) for digit in range(10)])
        network = nets.build("resnet", outputs=10, stem="small", width=0.125, norm="batch", **flat)
    options: dict[str, Any] = {"policy_rate": given.rate, "policy_update_every": given.every}
    return LearnedAugmentation(network, task, Setting(["a"], 1, 2, 1, (16, 16)), destroying=True, **options)


def destroying(given: argparse.Namespace) -> dict[str, Any]:
    train, validation, test = digits(given.seed, given.task)
    method = learner(given)
    before = method.policy.probabilities()[0][0].tolist()
    trainer = Trainer(rate=1e-2, schedule="cosine", weight_decay=1e-4)
    moved, random = movers(method, trainer), torch.Generator().manual_seed(given.seed)
    started = time.perf_counter()
    for index in range(given.steps):
        some, held = (s[torch.randint(len(s), (given.batch,), generator=random)] for s in (train, validation))
        method.train()
        method.update(Batch(some, streams={"validation": held}), step_at(index, given.steps, trainer, moved))
    seconds = time.perf_counter() - started
    with torch.no_grad():
        scores = method.task.measure(method.eval().predict(test), test)
    after = method.policy.probabilities()[0][0].tolist()
    names = method.pool.groups[0].names
    rows = [{"operation": n, "before": b, "after": a} for n, b, a in zip(names, before, after, strict=True)]
    return {
        "steps": given.steps,
        "seconds": seconds,
        "score": float(torch.stack([score.nanmean() for score in scores.values()]).mean()),
        "destroying": rows[-15:],
        "others": rows[:-15],
        "fell": sum(row["after"] < row["before"] for row in rows[-15:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "destroying"))
    parser.add_argument("--dimensions", type=int, default=3)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--batch", type=int, default=None, help="2 for cost, 16 for destroying")
    parser.add_argument("--rounds", type=int, default=15, help="of cost")
    parser.add_argument(
        "--task", choices=("segmentation", "classification"), default="segmentation", help="of destroying"
    )
    parser.add_argument("--steps", type=int, default=600, help="of destroying")
    parser.add_argument("--every", type=int, default=1, help="of destroying: steps between updates of the policy")
    parser.add_argument("--rate", type=float, default=0.05, help="of destroying: of the policy")
    parser.add_argument("--seed", type=int, default=0, help="of destroying")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of cost")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.batch = given.batch or (2 if given.what == "cost" else 16)
    torch.set_num_threads(given.threads)
    found = cost(given) if given.what == "cost" else destroying(given)
    if given.json:
        print(json.dumps(found))
        return
    print(heading(torch=torch.__version__))
    if given.what == "cost":
        size = " x ".join([str(given.patch)] * given.dimensions)
        print(f"batch {given.batch} of {size}, {given.rounds} rounds, {given.device}, {given.threads} thread(s)")
        print(f"{'a step of':48} {'ms':>9} {'ratio':>7}")
        for name, row in found.items():
            print(f"{name:48} {row['ms']:9.1f} {row['ratio']:7.2f}")
        return
    measure = "Dice" if given.task == "segmentation" else "accuracy"
    print(f"{given.task} of digits, {given.steps} steps of {given.batch}, {found['seconds']:.0f} s", end=", ")
    print(f"{measure} {found['score']:.3f}")
    print(f"{'destroying operation':24} {'before':>8} {'after':>8}")
    for row in found["destroying"]:
        print(f"{row['operation']:24} {row['before']:8.4f} {row['after']:8.4f}")
    print(f"{found['fell']} of 15 ended below their initial probability; most probable of the others:")
    for row in sorted(found["others"], key=lambda r: -r["after"])[:8]:
        print(f"{row['operation']:24} {row['before']:8.4f} {row['after']:8.4f}")


if __name__ == "__main__":
    main()
