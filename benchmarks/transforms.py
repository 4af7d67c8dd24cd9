"""Augmentation of batches: preset `strong` against the same recipe as pipelines of MONAI and of TorchIO, per sample.

    python benchmarks/transforms.py [--threads 1] [--batches 40] [--repeats 4] [--device cpu] [--json FILE]

All get the same images and labels and take turns in one process, with the same probabilities, ranges, interpolation and
threads. The others' pose is one affine transform, their faster way, with the probability that rotation or scaling
happens; ours also marks the voxels that come from beyond the border. TorchIO knows no padding by the edge and lowers
the resolution of one axis at a time, which is less work; what it lacks (brightness, contrast) is done by its `Lambda`.

What a batch costs depends on what is drawn: each batch is drawn anew and timed several times with the same seed, the
shortest time counts, and the ratio is that of the sums. The others are also run by a DataLoader with up to as many
worker processes as there are threads; their best number counts. `--device cuda` compares with MONAI on the GPU, on
2 x 1 x 128^3, by the median of whole batches.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from shiftproof.data.samples import Samples
from shiftproof.transforms import preset
from shiftproof.versions import versions

CASES = {"2 x 1 x 64^3": (2, 1, 64, 64, 64), "8 x 1 x 128^2": (8, 1, 128, 128)}
GOALS = {"monai": 5.0, "torchio": 3.0}
CUDA_GOAL_MS = 8.0

Pipeline = Callable[[torch.Tensor, torch.Tensor], Any]
"""Changes one sample: image (1, *space) and label (1, *space)."""


def monai_strong(dimensions: int) -> Any:
    """nnU-Net's recipe in MONAI, for one sample {"image": (1, *space), "label": (1, *space)}."""
    from monai import transforms as m

    degrees = 180 if dimensions == 2 else 30
    linear = "bilinear" if dimensions == 2 else "trilinear"
    gamma: dict[str, Any] = {"gamma": (0.7, 1.5), "retain_stats": True}
    return m.Compose(
        [
            m.RandAffined(
                ["image", "label"],
                prob=1 - 0.8 * 0.8,
                rotate_range=[math.radians(degrees)] * (1 if dimensions == 2 else 3),
                scale_range=[(-0.3, 0.4)] * dimensions,
                mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
            m.RandGaussianNoised("image", prob=0.1, std=math.sqrt(0.1)),
            m.RandGaussianSmoothd("image", prob=0.2 * 0.5, **{f"sigma_{axis}": (0.5, 1.0) for axis in "xyz"}),
            m.RandScaleIntensityd("image", factors=0.25, prob=0.15),
            m.RandScaleIntensityFixedMeand("image", factors=0.25, preserve_range=True, prob=0.15),
            m.RandSimulateLowResolutiond("image", prob=0.25 * 0.5, upsample_mode=linear, zoom_range=(0.5, 1.0)),
            m.RandAdjustContrastd("image", prob=0.1, invert_image=True, **gamma),
            m.RandAdjustContrastd("image", prob=0.3, **gamma),
            *[m.RandFlipd(["image", "label"], prob=0.5, spatial_axis=axis) for axis in range(dimensions)],
        ]
    )


def torchio_strong(dimensions: int) -> Any:
    """nnU-Net's recipe in TorchIO, for one subject; a picture is a volume of one slice."""
    import torchio as t

    degrees = (0, 0, 0, 0, -180, 180) if dimensions == 2 else 30
    scales = (0.7, 1.4, 0.7, 1.4, 1, 1) if dimensions == 2 else (0.7, 1.4)
    axes = tuple(range(dimensions))
    gamma = t.RandomGamma(log_gamma=(math.log(0.7), math.log(1.5)), p=1)
    negative = t.Lambda(torch.neg, types_to_apply=[t.INTENSITY])
    return t.Compose(
        [
            t.RandomAffine(scales=scales, degrees=degrees, isotropic=dimensions == 3, default_pad_value=0, p=0.36),
            t.RandomNoise(std=(0, math.sqrt(0.1)), p=0.1),
            t.RandomBlur(std=(0.5, 1, 0.5, 1, 0, 0) if dimensions == 2 else (0.5, 1), p=0.2 * 0.5),
            t.Lambda(_brighter, types_to_apply=[t.INTENSITY], p=0.15),
            t.Lambda(_steeper, types_to_apply=[t.INTENSITY], p=0.15),
            t.RandomAnisotropy(axes=axes, downsampling=(1, 2), p=0.25 * 0.5),
            t.Compose([negative, gamma, negative], p=0.1),
            t.RandomGamma(log_gamma=(math.log(0.7), math.log(1.5)), p=0.3),
            t.RandomFlip(axes=axes, flip_probability=0.5),
        ]
    )


def _brighter(image: torch.Tensor) -> torch.Tensor:
    return image * random.uniform(0.75, 1.25)


def _steeper(image: torch.Tensor) -> torch.Tensor:
    mean = image.mean()
    return ((image - mean) * random.uniform(0.75, 1.25) + mean).clamp_(image.min(), image.max())


def run_monai(pipeline: Any, image: torch.Tensor, label: torch.Tensor) -> Any:
    return pipeline({"image": image, "label": label})


def run_torchio(pipeline: Any, image: torch.Tensor, label: torch.Tensor) -> Any:
    import torchio as t

    flat = image.ndim == 3
    image, label = (x.unsqueeze(-1) if flat else x for x in (image, label))
    moved = pipeline(t.Subject(image=t.ScalarImage(tensor=image), label=t.LabelMap(tensor=label)))
    return {name: moved[name].data for name in ("image", "label")}


class Repeated(Dataset):  # type: ignore[type-arg]
    """One sample again and again, changed by a pipeline."""

    def __init__(self, pipeline: Pipeline, image: torch.Tensor, label: torch.Tensor, count: int) -> None:
        self.pipeline, self.image, self.label, self.count = pipeline, image, label, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        changed = self.pipeline(self.image.clone(), self.label.clone())
        return torch.as_tensor(changed["image"]), torch.as_tensor(changed["label"]).to(self.label.dtype)


def seeded(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)


def compared(shape: tuple[int, ...], batches: int, repeats: int, threads: int) -> dict[str, Any]:
    """Mean milliseconds a batch, ours and the others', measured in turns."""
    batch, _, *space = shape
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator)
    label = torch.randint(0, 4, (batch, *space), generator=generator)
    samples = Samples(image, label)
    ours = preset("strong", dimensions=len(space), patch=space)
    monai = monai_strong(len(space))
    others: dict[str, Pipeline] = {
        "monai": partial(run_monai, monai),
        "torchio": partial(run_torchio, torchio_strong(len(space))),
    }

    def seconds(name: str, seed: int) -> float:
        seeded(seed)
        generator.manual_seed(seed)
        monai.set_random_state(seed)
        start = time.perf_counter()
        if name == "shiftproof":
            ours(samples, generator)
        else:
            for one in range(batch):
                others[name](image[one].clone(), label[one, None].clone())
        return time.perf_counter() - start

    names = ["shiftproof", *others]
    total = dict.fromkeys(names, 0.0)
    for seed in range(batches):
        best = dict.fromkeys(names, math.inf)
        for _ in range(repeats):
            best = {name: min(best[name], seconds(name, seed)) for name in names}
        total = {name: total[name] + best[name] for name in names}
    result: dict[str, Any] = {"shiftproof ms": 1000 * total["shiftproof"] / batches}
    for name, pipeline in others.items():
        of_workers = {0: total[name] / batches}
        for workers in range(1, threads + 1):
            dataset = Repeated(pipeline, image[0], label[0, None], 2 * batches * batch)
            of_workers[workers] = loaded(dataset, batch, workers)
        workers = min(of_workers, key=of_workers.__getitem__)
        result |= {f"{name} ms": 1000 * of_workers[workers], f"{name} workers": workers}
        result[f"{name} ratio"] = of_workers[workers] * batches / total["shiftproof"]
    return result


def loaded(dataset: Repeated, batch: int, workers: int) -> float:
    """Seconds a batch through worker processes, without their start."""
    loader = DataLoader(dataset, batch, num_workers=workers, persistent_workers=True, worker_init_fn=_one_thread)
    next(iter(loader))
    times = []
    for _ in range(2):
        start = time.perf_counter()
        count = sum(1 for _ in loader)
        times.append((time.perf_counter() - start) / count)
    return min(times)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def on_cuda(batches: int) -> None:
    """Median milliseconds of batches of 2 x 1 x 128^3, ours and MONAI's."""
    image = torch.randn(2, 1, 128, 128, 128, device="cuda")
    samples = Samples(image, torch.randint(0, 4, (2, 128, 128, 128), device="cuda"))
    ours, monai = preset("strong", dimensions=3, patch=(128,) * 3), monai_strong(3)
    generator = torch.Generator()
    times: dict[str, list[float]] = {"shiftproof": [], "monai": []}
    for seed in range(-5, batches):
        for name, measured in times.items():
            generator.manual_seed(seed + 5)
            monai.set_random_state(seed + 5)
            torch.cuda.synchronize()
            start = time.perf_counter()
            if name == "shiftproof":
                ours(samples, generator)
            else:
                for one in range(2):
                    monai({"image": image[one].clone(), "label": samples.label[one, None].clone()})  # type: ignore[index]
            torch.cuda.synchronize()
            if seed >= 0:
                measured.append(1000 * (time.perf_counter() - start))
    middle = {name: statistics.median(measured) for name, measured in times.items()}
    print(
        f"2 x 1 x 128^3 on {torch.cuda.get_device_name()}: shiftproof {middle['shiftproof']:.2f} ms "
        f"(mean {statistics.mean(times['shiftproof']):.2f}, goal {CUDA_GOAL_MS:g}), monai {middle['monai']:.2f} ms, "
        f"ratio {middle['monai'] / middle['shiftproof']:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    import monai
    import torchio

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    named = versions() | {"monai": monai.__version__, "torchio": torchio.__version__}
    print(", ".join(f"{k} {v}" for k, v in named.items()))
    print(f"{given.threads} threads, {given.batches} batches, load average {os.getloadavg()[0]:.1f}")
    if given.device == "cuda":
        on_cuda(given.batches)
        return
    results = {name: compared(shape, given.batches, given.repeats, given.threads) for name, shape in CASES.items()}
    for name, values in results.items():
        print(f"{name:14}  shiftproof {values['shiftproof ms']:7.2f} ms")
        for other, goal in GOALS.items():
            print(
                f"{'':14}  {other:10} {values[f'{other} ms']:7.2f} ms with {values[f'{other} workers']} workers, "
                f"ratio {values[f'{other} ratio']:.1f} (goal {goal:g})"
            )
    print(f"load average at the end {os.getloadavg()[0]:.1f}")
    if given.json:
        given.json.write_text(json.dumps({"threads": given.threads, "results": results}, indent=1))


if __name__ == "__main__":
    main()
