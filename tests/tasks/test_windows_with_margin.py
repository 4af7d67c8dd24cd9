"""Windows of networks that score less than they read, against one pass over the whole padded volume."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shiftproof import nets
from shiftproof.data.samples import Samples
from shiftproof.data.sampling import Patches, cut
from shiftproof.tasks.windows import mirrored, scored_slabs, usual_overlap, volume_scores, within


def valid(dimensions: int, channels: int = 2) -> nn.Module:
    """Scores shrink by 3 voxels on each side, and do not depend on where a window lies."""
    torch.manual_seed(0)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    return nn.Sequential(conv(channels, 4, 5), nn.Tanh(), conv(4, 3, 3)).double()


def scoring(network: nn.Module, seen: list[Samples] | None = None):
    def score(samples: Samples) -> torch.Tensor:
        if seen is not None:
            seen.append(samples)
        with torch.no_grad():
            return network(samples.image)

    return score


def padded(image: torch.Tensor, *widths: int) -> torch.Tensor:
    return torch.from_numpy(np.pad(image.numpy(), [(0, 0), *((w, w) for w in widths)], mode="edge"))


@pytest.mark.parametrize("shape", [(21, 17, 19), (8, 8, 8), (5, 20, 3), (1, 1, 1)])
@pytest.mark.parametrize("overlap", [None, 0.5])
def test_windows_in_3d_give_the_scores_of_the_volume_with_its_border_repeated(
    shape: tuple[int, ...], overlap: float | None
) -> None:
    network, image = valid(3), torch.randn(2, *shape, dtype=torch.double)

    found = volume_scores(scoring(network), image, window=(8, 7, 6), margin=(3, 3, 3), overlap=overlap, batch=3)

    with torch.no_grad():
        expected = network(padded(image, 3, 3, 3)[None])[0]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [(8, 7), (12, 11), (16, 16), (12, 30)])
def test_windows_in_2d_give_the_scores_of_each_slice_with_its_border_repeated(window: tuple[int, ...]) -> None:
    network, image = valid(2), torch.randn(2, 12, 11, 5, dtype=torch.double)

    found = volume_scores(scoring(network), image, window=window, margin=(3, 3), batch=2)

    with torch.no_grad():
        expected = network(padded(image, 3, 3, 0).movedim(-1, 0))
    torch.testing.assert_close(found.double(), expected.movedim(0, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [(8, 7), (12, 11)])
def test_neighbouring_slices_have_margins_of_their_own(window: tuple[int, ...]) -> None:
    network, image = valid(2, channels=6), torch.randn(2, 12, 11, 4, dtype=torch.double)

    found = volume_scores(scoring(network), image, window=window, margin=(3, 3), context=1)

    for z in range(4):
        beside = [image[..., min(max(z + d, 0), 3)] for d in (-1, 0, 1)]
        with torch.no_grad():
            expected = network(padded(torch.cat(beside), 3, 3)[None])[0]
        torch.testing.assert_close(found[..., z].double(), expected, atol=1e-5, rtol=0)


def test_axes_have_margins_of_their_own() -> None:
    torch.manual_seed(0)
    network, image = nn.Conv3d(1, 2, (1, 3, 5)).double(), torch.randn(1, 9, 8, 7, dtype=torch.double)

    found = volume_scores(scoring(network), image, window=(4, 4, 4), margin=(0, 1, 2))

    with torch.no_grad():
        expected = network(padded(image, 0, 1, 2)[None])[0]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_windows_tile_the_volume_once() -> None:
    seen: list[Samples] = []
    image = torch.randn(2, 24, 16, 8, dtype=torch.double)

    slabs = list(scored_slabs(scoring(valid(3), seen), image, window=(8, 8, 8), margin=(3, 3, 3), batch=100))

    assert sum(len(s) for s in seen) == 3 * 2 * 1
    assert {tuple(s.image.shape[1:]) for s in seen} == {(2, 14, 14, 14)}
    assert [first for first, _ in slabs] == [0]
    # Where they do not fit, the last one alone is moved back to the end.
    seen.clear()
    row = torch.arange(20.0, dtype=torch.double).view(1, 20, 1, 1).expand(2, 20, 8, 8)
    list(scored_slabs(scoring(valid(3), seen), row, window=(8, 8, 8), margin=(3, 3, 3), batch=100))
    assert [s.image[:, 0, 3, 0, 0].tolist() for s in seen] == [[0, 8, 12]]
    assert usual_overlap((0, 3)) == 0
    assert usual_overlap(()) == usual_overlap((0, 0, 0)) == 0.5


def test_no_margin_changes_nothing() -> None:
    network = nn.Conv3d(1, 2, 3, padding=1)
    image = torch.randn(1, 11, 6, 9)

    plain = volume_scores(scoring(network), image, window=(8, 8, 8))

    torch.testing.assert_close(
        volume_scores(scoring(network), image, window=(8, 8, 8), margin=(0, 0, 0), overlap=0.5), plain, rtol=0, atol=0
    )
    # As ever, what a volume lacks of a window is 0.
    corner = torch.zeros(1, 1, 11, 8, 9)
    corner[:, :, :, 1:7] = image
    with torch.no_grad():
        expected = network(corner)[0, :, :, 1:7]
    whole = volume_scores(scoring(network), image, window=(11, 8, 9))
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("start", "size"), [((-2, 3), (4, 2)), ((5, -1), (9, 9)), ((0, 0), (6, 5)), ((7, 9), (2, 1))])
def test_a_box_beyond_the_border_repeats_it(start: tuple[int, ...], size: tuple[int, ...]) -> None:
    image = torch.arange(60.0).reshape(2, 6, 5)
    wide = np.pad(image.numpy(), [(0, 0), (20, 20), (20, 20)], mode="edge")
    box = tuple(slice(20 + s, 20 + s + n) for s, n in zip(start, size, strict=True))

    np.testing.assert_array_equal(within(image, start, size).numpy(), wide[(slice(None), *box)])


class Thin:
    """What `cut` reads of a case that is smaller than the patch."""

    image = np.random.default_rng(0).normal(size=(1, 5, 8, 3)).astype(np.float32)
    label = target = None
    centres: dict[int, Any] = {}
    present = np.ones(1, bool)
    domain, subject = "A", "a"


@pytest.mark.parametrize("window", [(8, 8, 8), (8, 8)])
def test_a_window_is_what_training_saw(window: tuple[int, ...]) -> None:
    seen: list[Samples] = []
    wide = tuple(n + 6 for n in window)
    # Of a slice it is known which one is drawn if there is only one.
    case = Thin() if len(window) == 3 else type("Slice", (Thin,), {"image": Thin.image[..., :1]})()

    volume_scores(scoring(valid(len(window), 1).float(), seen), torch.from_numpy(case.image), window=window,
                  margin=(3,) * len(window))  # fmt: skip

    patches = Patches(window, 0.0, source=wide, beyond="border")
    torch.testing.assert_close(seen[0].image, cut(case, patches, [], np.random.default_rng(0)).image, rtol=0, atol=0)  # type: ignore[arg-type]


def test_mirror_images_are_turned_back_around_what_is_scored() -> None:
    network, image = valid(3), torch.randn(2, 12, 10, 9, dtype=torch.double)

    found = volume_scores(mirrored(scoring(network), (0, 2)), image, window=(8, 8, 8), margin=(3, 3, 3))

    expected = 0
    for axes in ((), (1,), (3,), (1, 3)):
        with torch.no_grad():
            expected = expected + network(padded(image.flip(axes), 3, 3, 3)[None])[0].flip(axes) / 4
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_deepmedic_in_windows_of_fifteen_voxels_scores_as_in_one(dimensions: int) -> None:
    """Low resolutions repeat a voxel 3 and 5 times: windows of a multiple of 15 count alike. Only the hidden layer
    of kernel 3 sees that a window ends."""
    torch.manual_seed(0)
    factors = (3,) if dimensions == 3 else (3, 5)
    network = nets.build("deepmedic", dimensions=dimensions, channels=1, outputs=2, factors=factors,
                         features=(3,) * 8, hidden=5).eval()  # fmt: skip
    tile = math.prod(factors)
    shape = (2 * tile, 2 * tile, 1 if dimensions == 2 else tile)
    image, margin = torch.randn(1, *shape), nets.margin_of(network)

    found = volume_scores(scoring(network), image, window=(tile,) * dimensions, margin=margin)

    around = (*margin, 0)[:3]
    given = padded(image, *around)[None]
    with torch.no_grad():
        expected = network(given if dimensions == 3 else given[..., 0])[0]
    expected = expected if dimensions == 3 else expected[..., None]
    inner = torch.ones(shape, dtype=torch.bool)
    inner[tile - 1 : tile + 1] = inner[:, tile - 1 : tile + 1] = False
    torch.testing.assert_close(found[:, inner], expected[:, inner], atol=1e-5, rtol=1e-4)
    assert (found - expected).abs().max() > 0
