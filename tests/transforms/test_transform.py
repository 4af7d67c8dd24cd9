"""Draw, then apply: replay, order of samples, who is chosen, what stays untouched."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.transforms import PRESETS, Chance, Compose, Normal, Seed, Spatial, Uniform, Varied, preset
from shiftproof.transforms.acquisition import bias_field, blur, gaussian_noise, low_resolution, rician_noise
from shiftproof.transforms.intensity import brightness, contrast, gamma, inverted_gamma, shift

SPACES = [(14, 12), (10, 8, 9)]


def samples(batch: int, *space: int, channels: int = 2) -> Samples:
    random = torch.Generator().manual_seed(0)
    return Samples(
        torch.randn((batch, channels, *space), generator=random),
        torch.randint(0, 3, (batch, *space), generator=random),
        torch.arange(batch) % 2,
        [f"s{i}" for i in range(batch)],
        {"ignore": torch.rand((batch, *space), generator=random) < 0.1, "centre": torch.arange(batch)},
    )


def everything(dimensions: int, probability: float) -> Compose:
    """Every transform that there is, with one probability for all."""
    terms = {2: 9, 3: 19}[dimensions]
    return Compose(
        [
            Spatial(
                dimensions,
                rotation=Chance(probability, Uniform(-30, 30, size=1 if dimensions == 2 else 3)),
                scale=Chance(probability, Uniform(0.8, 1.2, size=dimensions)),
                translation=Chance(probability, Uniform(-2, 2, size=dimensions)),
                elastic=Chance(probability, Uniform(0.5, 1)),
                mirror_axes=range(dimensions),
                mirror_probability=probability,
            ),
            Varied(gaussian_noise, probability, variance=Uniform(0, 0.1, shared=True), seed=Seed()),
            Varied(rician_noise, probability, variance=Uniform(0, 0.1), seed=Seed()),
            Varied(blur, probability, channel_probability=probability, sigma=Uniform(0.5, 1, size=dimensions)),
            Varied(brightness, probability, factor=Uniform(0.75, 1.25)),
            Varied(shift, probability, amount=Normal(0.2)),
            Varied(contrast, probability, factor=Uniform(0.75, 1.25)),
            Varied(low_resolution, probability, zoom=Uniform(0.5, 0.8)),
            Varied(bias_field, probability, coefficients=Normal(0.1, size=terms, shared=True)),
            Varied(inverted_gamma, probability, exponent=Uniform(0.7, 1.5, around=1)),
            Varied(gamma, probability, exponent=Uniform(0.7, 1.5, around=1)),
        ]
    )


def equal(one: Samples, other: Samples) -> bool:
    return (
        torch.equal(one.image, other.image)
        and torch.equal(one.label, other.label)
        and one.extra.keys() == other.extra.keys()
        and all(torch.equal(one.extra[name], other.extra[name]) for name in one.extra)
    )


@pytest.mark.parametrize("space", SPACES)
def test_a_replay_of_what_was_drawn_gives_equal_bits(space: tuple[int, ...]):
    batch, transform = samples(5, *space), everything(len(space), 0.6)
    kept = copy.deepcopy(batch)
    drawn = transform.draw(batch, torch.Generator().manual_seed(1))
    once = transform.apply(batch, drawn)
    assert equal(once, transform.apply(batch, drawn))
    assert equal(once, transform(batch, torch.Generator().manual_seed(1)))
    assert not equal(once, transform(batch, torch.Generator().manual_seed(2)))
    assert equal(batch, kept)
    assert once.subject == batch.subject
    assert torch.equal(once.domain, batch.domain)


@pytest.mark.parametrize("space", SPACES)
def test_permuting_the_batch_and_the_parameters_permutes_the_result(space: tuple[int, ...]):
    batch, transform = samples(6, *space), everything(len(space), 0.5)
    drawn = transform.draw(batch, torch.Generator().manual_seed(3))
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    permuted = transform.apply(batch[order], {name: value[order] for name, value in drawn.items()})
    expected = transform.apply(batch, drawn)[order]
    torch.testing.assert_close(permuted.image, expected.image, atol=1e-5, rtol=1e-5)
    assert torch.equal(permuted.label, expected.label)
    assert torch.equal(permuted.extra["ignore"], expected.extra["ignore"])


@pytest.mark.parametrize("space", SPACES)
def test_probability_zero_is_the_identity_bit_for_bit(space: tuple[int, ...]):
    batch = samples(4, *space)
    assert equal(everything(len(space), 0.0)(batch, torch.Generator().manual_seed(0)), batch)


@pytest.mark.parametrize("space", SPACES)
def test_samples_that_are_not_chosen_keep_their_bits_and_the_others_change(space: tuple[int, ...]):
    batch = samples(24, *space)
    for transform in everything(len(space), 0.5).transforms:
        drawn = transform.draw(batch, torch.Generator().manual_seed(5))
        result = transform.apply(batch, drawn)
        if isinstance(transform, Varied):
            chosen = drawn["chosen"]
        else:
            still = (drawn["angles"] == 0).all(1) & (drawn["scale"] == 1).all(1) & (drawn["translation"] == 0).all(1)
            still &= (drawn["elastic"].flatten(1) == 0).all(1) & ~drawn["mirror"].any(1)
            chosen = ~still[:, None].expand(-1, 2)
        same = (result.image == batch.image).flatten(2).all(2)
        assert torch.equal(same, ~chosen), transform
        assert 0 < same.sum() < same.numel()


def test_frequencies_of_what_is_drawn_are_the_probabilities():
    count = 4000
    batch = Samples(torch.zeros(count, 2, 1, 1))
    drawn = preset("strong", dimensions=2, patch=(1, 1)).draw(batch, torch.Generator().manual_seed(0))

    def near(event: torch.Tensor, probability: float) -> bool:
        """Within 4.5 standard deviations of a binomial."""
        return (
            abs(event.float().mean().item() - probability) < 4.5 * (probability * (1 - probability) / len(event)) ** 0.5
        )

    assert near((drawn["0.angles"] != 0).any(1), 0.2)
    assert near((drawn["0.scale"] != 1).any(1), 0.2)
    assert near(drawn["0.mirror"][:, 0], 0.5)
    assert near(drawn["0.mirror"][:, 1], 0.5)
    assert near(drawn["0.mirror"].all(1), 0.25)
    for position, probability in ((1, 0.1), (2, 0.2 * 0.5), (3, 0.15), (4, 0.15), (5, 0.25 * 0.5), (6, 0.1), (7, 0.3)):
        assert near(drawn[f"{position}.chosen"][:, 0], probability), position
    # Channels of a chosen sample are drawn on their own where they have a probability, and go together elsewhere.
    assert near(drawn["2.chosen"].all(1), 0.2 * 0.25)
    assert torch.equal(drawn["7.chosen"][:, 0], drawn["7.chosen"][:, 1])
    assert torch.equal(drawn["1.variance"][:, 0], drawn["1.variance"][:, 1])
    assert not torch.equal(drawn["1.seed"][:, 0], drawn["1.seed"][:, 1])
    assert near(drawn["7.exponent"][:, 0] < 1, 0.5)
    for name, low, high in (
        ("1.variance", 0, 0.1),
        ("2.sigma", 0.5, 1),
        ("3.factor", 0.75, 1.25),
        ("4.factor", 0.75, 1.25),
        ("5.zoom", 0.5, 1),
        ("6.exponent", 0.7, 1.5),
        ("7.exponent", 0.7, 1.5),
    ):
        value = drawn[name]
        assert low <= value.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < value.max() <= high


def test_what_one_transform_draws_does_not_shift_the_next_ones_numbers():
    """Equal seeds compare presets that differ in a probability on the same draws of everything else."""
    batch = samples(3, 8, 8)
    drawn = [
        Compose([Varied(brightness, p, factor=Uniform(0, 2)), Varied(shift, 0.5, amount=Normal(1))]).draw(
            batch, torch.Generator().manual_seed(0)
        )
        for p in (0.0, 1.0)
    ]
    assert torch.equal(drawn[0]["1.amount"], drawn[1]["1.amount"])


def test_absent_channels_stay_zero():
    batch = samples(6, 10, 10, channels=3)
    present = torch.tensor([[True, False, True], [True, True, False]] * 3)
    batch = batch.replace(image=batch.image * present[..., None, None], extra={"present": present})
    result = everything(2, 1.0)(batch, torch.Generator().manual_seed(0))
    assert (result.image[~present] == 0).all()
    assert (result.image[present] != batch.image[present]).flatten(1).any(1).all()


def test_images_without_labels_are_transformed_as_those_with():
    batch, transform = samples(4, 10, 12), everything(2, 0.7)
    drawn = transform.draw(batch, torch.Generator().manual_seed(0))
    bare = transform.apply(batch.without_labels(), drawn)
    assert bare.label is None
    assert "ignore" not in bare.extra
    assert torch.equal(bare.image, transform.apply(batch, drawn).image)


def test_compose_undoes_moves_and_leaves_intensities():
    batch = samples(2, 9, 9)
    transform = Compose(
        [Spatial(2, mirror_axes=(0, 1), mirror_probability=1), Varied(brightness, 1, factor=Uniform(2, 2))]
    )
    drawn = transform.draw(batch, torch.Generator().manual_seed(0))
    back = transform.inverse(transform.apply(batch, drawn), drawn)
    assert torch.equal(back.image, 2 * batch.image)
    assert torch.equal(back.label, batch.label)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("space", SPACES)
def test_presets_can_be_pickled_and_go_on_alike(name: str, space: tuple[int, ...]):
    transform = preset(name, dimensions=len(space), patch=space)
    other = pickle.loads(pickle.dumps(transform))
    batch = samples(4, *space)
    assert equal(transform(batch, torch.Generator().manual_seed(0)), other(batch, torch.Generator().manual_seed(0)))
    assert repr(other) == repr(transform)


def test_half_precision_images_stay_what_they_are():
    batch = samples(4, 10, 10)
    batch = batch.replace(image=batch.image.bfloat16())
    result = everything(2, 0.8)(batch, torch.Generator().manual_seed(0))
    assert result.image.dtype == torch.bfloat16
    assert result.image.isfinite().all()


def test_a_probability_that_is_none_is_refused():
    with pytest.raises(OptionError, match="probability of gaussian noise is between 0 and 1, got 1.5"):
        Varied(gaussian_noise, 1.5, variance=Uniform(0, 1), seed=Seed())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("space", SPACES)
def test_a_gpu_gives_what_the_cpu_gives_but_for_the_noise(space: tuple[int, ...]):
    batch, transform = samples(6, *space), everything(len(space), 0.5)
    transform.transforms = [t for t in transform.transforms if getattr(t, "operation", None) is not gaussian_noise]
    transform.transforms = [t for t in transform.transforms if getattr(t, "operation", None) is not rician_noise]
    drawn = transform.draw(batch, torch.Generator().manual_seed(3))
    there = transform.apply(batch.to("cuda"), drawn)
    assert equal(there, transform.apply(batch.to("cuda"), drawn))
    here = transform.apply(batch, drawn)
    torch.testing.assert_close(there.image.cpu(), here.image, atol=5e-3, rtol=0)
    # Positions midway between two voxels may be rounded either way.
    assert (there.label.cpu() == here.label).float().mean() > 0.99
    assert (there.extra["ignore"].cpu() == here.extra["ignore"]).float().mean() > 0.99
