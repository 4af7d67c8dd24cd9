"""Prediction of a large volume: `scored_slabs` against MONAI's `sliding_window_inference`, with the same network.

    python benchmarks/prediction.py [--size 256] [--window 64] [--repeats 2] [--threads 1]

Both get the volume in memory, windows of one size (overlap a quarter, one at a time, Gaussian weights) and end with a
label of one byte a voxel. Every measurement has a process of its own, and they take turns. Memory is the peak beyond
what the process held with the network and the volume loaded, and once more beyond what the network itself needs for a
window, which is common to both and grows with the network. Goals: no slower, at most half of the memory. Where other
work shares the machine, CPU seconds are the fairer measure. With the sizes given here both have the same windows;
elsewhere ours are spread evenly, of MONAI's only the last is moved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measured import Memory, fresh, heading, timed

OVERLAP = 0.25
CLASSES = 4
BEYOND = "MiB beyond the network's"


def child(name: str, label: Path, size: int, window: int, threads: int) -> dict[str, float]:
    """Seconds and MiB of one contestant, whose result is written to `label`."""
    from shiftproof import nets

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = nets.build("unet", dimensions=3, channels=1, outputs=CLASSES, widths=[4, 8]).eval()
    image = torch.randn(1, size, size, size)
    predict = ours if name == "shiftproof" else monai
    with torch.no_grad():
        some = image[None, :, :window, :window, :window].clone()
        network(some)
        with Memory() as alone:
            network(some)
        with Memory() as memory:
            found: list[torch.Tensor] = []
            busy = time.process_time()
            seconds = timed(lambda: found.append(predict(network, image, window)))
            busy = time.process_time() - busy
    found[0].numpy().tofile(label)
    return {"seconds": seconds, "CPU seconds": busy, "MiB": memory.peak, BEYOND: memory.peak - alone.peak}


def ours(network: torch.nn.Module, image: torch.Tensor, window: int) -> torch.Tensor:
    from shiftproof.data.samples import Samples
    from shiftproof.tasks.windows import scored_slabs

    def score(samples: Samples) -> torch.Tensor:
        found = network(samples.image)
        assert isinstance(found, torch.Tensor)
        return found

    label = torch.empty(image.shape[1:], dtype=torch.uint8)
    for first, scores in scored_slabs(score, image, window=[window] * 3, overlap=OVERLAP, batch=1):
        label[..., first : first + scores.shape[-1]] = scores.argmax(0)
    return label


def monai(network: torch.nn.Module, image: torch.Tensor, window: int) -> torch.Tensor:
    from monai.inferers import sliding_window_inference

    scores = sliding_window_inference(image[None], [window] * 3, 1, network, overlap=OVERLAP, mode="gaussian")
    assert isinstance(scores, torch.Tensor)
    return scores[0].argmax(0).to(torch.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, label = given.child
        print(json.dumps(child(name, Path(label), given.size, given.window, given.threads)))
        return
    import monai as peer

    print(heading(monai=peer.__version__))
    print(f"{given.size}^3, windows of {given.window}^3, {CLASSES} classes, {given.threads} threads")
    sizes = ["--size", str(given.size), "--window", str(given.window), "--threads", str(given.threads)]
    names = ("shiftproof", "monai")
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: f"{folder}/{name}" for name in names}
        rounds = [{n: fresh(__file__, "--child", n, paths[n], *sizes) for n in names} for _ in range(given.repeats)]
        labels = [np.fromfile(path, np.uint8) for path in paths.values()]
    for name in names:
        of = [r[name] for r in rounds]
        print(
            f"{name:10}  {statistics.median(f['seconds'] for f in of):6.1f} s, "
            f"{statistics.median(f['MiB'] for f in of):6.0f} MiB, "
            f"{statistics.median(f[BEYOND] for f in of):6.0f} {BEYOND}"
        )
    for what, goal in (("seconds", 1.0), ("CPU seconds", 1.0), ("MiB", 0.5), (BEYOND, 0.5)):
        ratios = [r["shiftproof"][what] / r["monai"][what] for r in rounds]
        print(f"{what}: ours to MONAI's {statistics.median(ratios):.2f} (each round: "
              f"{', '.join(f'{x:.2f}' for x in ratios)}; goal at most {goal:g})")  # fmt: skip
    print(f"voxels with the same label: {(labels[0] == labels[1]).mean():.3f}, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
