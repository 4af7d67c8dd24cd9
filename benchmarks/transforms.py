"""Augmentation of batches: preset `strong` against the same recipe as a MONAI pipeline that is run per sample.

    python benchmarks/transforms.py [--threads 1] [--batches 60] [--repeats 5] [--json FILE]

Both get the same images and labels and take turns in one process; MONAI's transforms have the same probabilities and
ranges. MONAI's pose is one `RandAffined`, its faster way, with the probability that rotation or scaling happens; ours
also marks the voxels that come from beyond the border. What a batch costs depends on what is drawn: each batch is
drawn anew and timed several times with the same seed, the shortest time counts, and the ratio is that of the sums.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch

from shiftproof.data.samples import Samples
from shiftproof.transforms import preset

CASES = {"2 x 1 x 64^3": (2, 1, 64, 64, 64), "8 x 1 x 128^2": (8, 1, 128, 128)}


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


def compared(shape: tuple[int, ...], batches: int, repeats: int) -> dict[str, float]:
    """Mean milliseconds a batch, ours and MONAI's, measured in turns."""
    batch, _, *space = shape
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator)
    label = torch.randint(0, 4, (batch, *space), generator=generator)
    samples = Samples(image, label)
    ours, theirs = preset("strong", dimensions=len(space), patch=space), monai_strong(len(space))

    def run_ours(seed: int) -> float:
        generator.manual_seed(seed)
        start = time.perf_counter()
        ours(samples, generator)
        return time.perf_counter() - start

    def run_theirs(seed: int) -> float:
        theirs.set_random_state(seed)
        start = time.perf_counter()
        for one in range(batch):
            theirs({"image": image[one].clone(), "label": label[one, None].clone()})
        return time.perf_counter() - start

    seconds = {"shiftproof": 0.0, "monai": 0.0}
    for seed in range(batches):
        best = {"shiftproof": float("inf"), "monai": float("inf")}
        for _ in range(repeats):
            best["shiftproof"] = min(best["shiftproof"], run_ours(seed))
            best["monai"] = min(best["monai"], run_theirs(seed))
        seconds = {name: seconds[name] + best[name] for name in seconds}
    result = {f"{name} ms": 1000 * total / batches for name, total in seconds.items()}
    return {**result, "ratio": seconds["monai"] / seconds["shiftproof"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    import monai

    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, monai {monai.__version__}, {options.threads} threads, {options.batches} batches")
    results = {name: compared(shape, options.batches, options.repeats) for name, shape in CASES.items()}
    for name, values in results.items():
        print(
            f"{name:14}  shiftproof {values['shiftproof ms']:7.2f} ms  monai {values['monai ms']:7.2f} ms  "
            f"ratio {values['ratio']:.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "results": results}, indent=1))


if __name__ == "__main__":
    main()
