"""Sliding windows against plain loops, MONAI and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.tasks import windows
from shiftproof.tasks.windows import filled, gaussian, positions, scored_slabs, volume_scores


@pytest.fixture
def network() -> nn.Module:
    """Looks at a neighbourhood, so that what a window cuts off makes a difference."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 4, 5, padding=2), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1)).eval()


def scoring(network: nn.Module):
    def score(samples: Samples) -> torch.Tensor:
        with torch.no_grad():
            return network(samples.image)

    return score


def blended_by_hand(network: nn.Module, image: torch.Tensor, window: tuple[int, ...], starts) -> np.ndarray:
    """The definition: weighted mean over every window that sees a voxel, in float64 with whole volumes."""
    total = count = 0.0
    centre = [(n - 1) / 2 for n in window]
    grid = np.meshgrid(*(np.arange(n) for n in window), indexing="ij")
    weight = np.exp(sum(-0.5 * ((g - c) / (n / 8)) ** 2 for g, c, n in zip(grid, centre, window, strict=True)))
    weight = np.maximum(weight / weight.max(), 1e-3)
    for corner in itertools.product(*starts):
        box = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        with torch.no_grad():
            scores = network(image[(slice(None), *box)][None])[0].double().numpy()
        if isinstance(total, float):
            total = np.zeros((len(scores), *image.shape[1:]))
            count = np.zeros(image.shape[1:])
        total[(slice(None), *box)] += weight * scores
        count[box] += weight
    return total / count


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_slabs_are_the_weighted_mean_over_all_windows(network: nn.Module, batch: int) -> None:
    image = torch.randn(2, 19, 17, 29)
    found = volume_scores(scoring(network), image, window=(12, 10, 8), overlap=0.5, batch=batch)
    starts = tuple(positions(n, w, 0.5) for n, w in zip((19, 17, 29), (12, 10, 8), strict=True))
    expected = blended_by_hand(network, image, (12, 10, 8), starts)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_blending_agrees_with_monai(network: nn.Module) -> None:
    from monai.inferers import sliding_window_inference

    # Lengths for which even spread and MONAI's fixed stride give the same windows, of odd size, so that the
    # largest weight is 1 there, too.
    image = torch.randn(2, 25, 17, 29)
    found = volume_scores(scoring(network), image, window=(17, 17, 9), overlap=0.5)
    with torch.no_grad():
        theirs = sliding_window_inference(
            image[None], (17, 17, 9), 4, network, overlap=0.5, mode="gaussian", sigma_scale=0.125
        )
    np.testing.assert_allclose(found.numpy(), theirs[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("length", [1, 5, 8, 9, 16, 17, 40])
def test_slabs_come_in_order_without_gaps(network: nn.Module, length: int) -> None:
    image = torch.randn(2, 9, 9, length)
    ends = 0
    for first, slab in scored_slabs(scoring(network), image, window=(8, 8, 8)):
        assert first == ends
        assert slab.shape[:3] == (3, 9, 9)
        ends = first + slab.shape[-1]
    assert ends == length


def test_a_network_without_neighbourhood_gives_the_same_in_windows_and_whole() -> None:
    torch.manual_seed(1)
    network = nn.Conv3d(2, 3, 1)
    image = torch.randn(2, 21, 18, 33)
    with torch.no_grad():
        whole = network(image[None])[0]
    for window, overlap in itertools.product([(8, 8, 8), (32, 5, 4), (21, 18, 33)], [0.0, 0.3, 0.75]):
        found = volume_scores(scoring(network), image, window=window, overlap=overlap)
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)


def test_slices_in_2d_are_scored_one_by_one() -> None:
    torch.manual_seed(2)
    network = nn.Conv2d(1, 2, 3, padding=1)
    image = torch.randn(1, 16, 16, 7)
    with torch.no_grad():
        expected = torch.stack([network(image[None, ..., z])[0] for z in range(7)], dim=-1)
    one_window = volume_scores(scoring(network), image, window=(16, 16), batch=3)
    torch.testing.assert_close(one_window, expected)

    pointwise = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        expected = torch.stack([pointwise(image[None, ..., z])[0] for z in range(7)], dim=-1)
    several = volume_scores(scoring(pointwise), image, window=(8, 6), batch=3)
    torch.testing.assert_close(several, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [(8, 8, 8), (8, 8)])
def test_a_volume_smaller_than_the_window_is_filled_up_as_patches_are(window: tuple[int, ...]) -> None:
    from shiftproof.data.sampling import Patches, cut

    class Thin:
        """What `cut` reads of a case."""

        image = np.random.default_rng(0).normal(size=(1, 5, 8, 3)).astype(np.float32)
        label = target = None
        centres: dict = {}
        present = np.ones(1, bool)
        domain, subject = "A", "a"

    seen: list[torch.Tensor] = []

    def score(samples: Samples) -> torch.Tensor:
        seen.append(samples.image)
        return samples.image.repeat(1, 2, *[1] * (samples.image.dim() - 2))

    found = volume_scores(score, torch.from_numpy(Thin.image), window=window, batch=1)
    np.testing.assert_allclose(found[1].numpy(), Thin.image[0], rtol=1e-6)
    if len(window) == 3:
        patch = cut(Thin(), Patches(window, 0.0), [], np.random.default_rng(0))  # type: ignore[arg-type]
        torch.testing.assert_close(seen[0], patch.image, rtol=0, atol=0)
    else:
        assert all(s.shape == (1, 1, 8, 8) for s in seen)
        np.testing.assert_array_equal(seen[1][0, 0, 1:6].numpy(), Thin.image[0, ..., 1])


def test_facts_of_the_case_reach_every_window() -> None:
    def score(samples: Samples) -> torch.Tensor:
        assert samples.extra["present"].shape == (len(samples), 2)
        assert samples.extra["present"].tolist() == [[True, False]] * len(samples)
        assert samples.label is None
        assert samples.domain is None
        return samples.image

    facts = {"present": torch.tensor([[True, False]])}
    volume_scores(score, torch.zeros(2, 9, 9, 9), window=(4, 4, 4), extra=facts)


@pytest.mark.parametrize(
    ("length", "window", "overlap"),
    itertools.product([1, 7, 31, 64, 65, 200], [1, 5, 8, 64], [0, 0.3, 0.5, 0.9]),
)
def test_positions_cover_the_axis_with_the_overlap(length: int, window: int, overlap: float) -> None:
    starts = positions(length, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(length - window, 0)
    gaps = np.diff(starts)
    assert (gaps >= 1).all()
    assert (gaps <= max(1, int(window * (1 - overlap)))).all()


def test_the_weight_is_a_gaussian_with_a_floor() -> None:
    weight = gaussian((17, 1, 33), torch.zeros(1)).numpy()
    assert weight[8, 0, 16] == 1
    assert weight.min() == np.float32(1e-3)
    # One standard deviation, an eighth of the window, from the centre.
    np.testing.assert_allclose(
        gaussian((16,), torch.zeros(1))[5].item() / gaussian((16,), torch.zeros(1))[7].item(),
        np.exp(-0.5 * (1.25**2 - 0.25**2)),
        rtol=1e-5,
    )


def test_filling_up_splits_the_rest_with_the_larger_part_behind() -> None:
    image, inside = filled(torch.ones(1, 3, 4, 9), (6, 4, 8))
    assert image.shape == (1, 6, 4, 9)
    assert inside == (slice(1, 4), slice(0, 4), slice(0, 9))
    assert image.sum() == 3 * 4 * 9
    assert image[0, 1:4].sum() == 3 * 4 * 9


@pytest.mark.parametrize(("overlap", "batch"), [(1.0, 4), (-0.1, 4), (0.5, 0)])
def test_options_out_of_range_are_refused(overlap: float, batch: int) -> None:
    with pytest.raises(OptionError, match="overlap by a share"):
        volume_scores(lambda s: s.image, torch.zeros(1, 4, 4, 4), window=(2, 2, 2), overlap=overlap, batch=batch)


def test_what_is_held_does_not_grow_with_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors made by the ring: the same bytes for a volume four times as long."""
    held: dict[int, int] = {}
    for length in (32, 128):
        made = 0
        new_zeros = torch.Tensor.new_zeros

        def counted(self: torch.Tensor, *args, **options) -> torch.Tensor:
            nonlocal made
            result = new_zeros(self, *args, **options)  # noqa: B023
            made += result.numel() * result.element_size()
            return result

        monkeypatch.setattr(torch.Tensor, "new_zeros", counted)
        largest = 0
        image = torch.zeros(1, 16, 16, length)
        for _, slab in scored_slabs(lambda s: s.image.expand(-1, 8, -1, -1, -1), image, window=(16, 16, 16)):
            largest = max(largest, slab.numel())
        monkeypatch.undo()
        assert largest <= 8 * 16 * 16 * windows.SLAB
        held[length] = made
    assert held[32] == held[128] == (8 + 1) * 16 * 16 * 16 * 4
