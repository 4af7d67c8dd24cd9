"""Augmentation by class: who gets the full one, who does not, and its limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.transforms import Compose, Spatial, preset
from shiftproof.transforms.policies import Policy
from shiftproof.transforms.policy_files import to_json
from shiftproof.transforms.pool import Pool
from shiftproof.transforms.rare import ForRare, is_rare

SIZE = {2: (10, 10), 3: (8, 8, 8)}
CHANGING = ("light", "strong", "heuristic", "random", "policy")


def patches(dimensions: int, count: int = 8, grown: int = 0) -> Samples:
    random = torch.Generator().manual_seed(dimensions)
    size = tuple(n + grown for n in SIZE[dimensions])
    return Samples(
        torch.randn(count, 2, *size, generator=random),
        torch.randint(0, 3, (count, *size), generator=random),
        domain=torch.arange(count),
        subject=[f"s{i}" for i in range(count)],
        extra={"drawn": torch.arange(count) % 3},
    )


def made(name: str, dimensions: int, **options: object):
    return preset(name, dimensions=dimensions, patch=SIZE[dimensions], **options)  # type: ignore[arg-type]


def same(a: Samples, b: Samples) -> bool:
    tensors = [(a.image, b.image), (a.label, b.label), (a.domain, b.domain)]
    tensors += [(a.extra[name], b.extra[name]) for name in a.extra]
    return a.extra.keys() == b.extra.keys() and a.subject == b.subject and all(torch.equal(x, y) for x, y in tensors)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", CHANGING)
def test_with_probability_one_it_is_the_plain_augmentation_bit_for_bit(name: str, dimensions: int):
    samples = patches(dimensions, grown=4)
    plain = made(name, dimensions)
    expected = plain(samples, seeded())
    asked = made(name, dimensions, rare=(1,), common=1.0)
    assert not isinstance(asked, ForRare)
    assert same(asked(samples, seeded()), expected)
    still = Spatial(dimensions, patch=SIZE[dimensions])
    assert same(ForRare(plain, still, rare=(1,), probability=1.0)(samples, seeded()), expected)
    # Every class is rare: likewise, whatever common ones would get.
    assert same(ForRare(plain, still, rare=(0, 1, 2), probability=0.0)(samples, seeded()), expected)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", CHANGING)
def test_common_patches_are_only_cut_and_rare_ones_are_changed_as_always(name: str, dimensions: int):
    samples = patches(dimensions, count=12, grown=4)
    expected = made(name, dimensions)(samples, seeded())
    result = made(name, dimensions, rare=(2,), common="none")(samples, seeded())
    rare = samples.extra["drawn"] == 2
    torch.testing.assert_close(result.image[rare], expected.image[rare])
    assert torch.equal(result.label[rare], expected.label[rare])
    window = (..., *[slice(2, n + 2) for n in SIZE[dimensions]])
    assert torch.equal(result.image[~rare], samples.image[window][~rare])
    assert torch.equal(result.label[~rare], samples.label[window][~rare])
    assert not result.extra["ignore"][~rare].any()
    assert result.subject == samples.subject
    assert torch.equal(result.domain, samples.domain)
    assert torch.equal(result.extra["drawn"], samples.extra["drawn"])


def test_no_class_rare_and_nothing_for_common_ones_is_no_augmentation():
    samples = patches(2)
    samples.extra["drawn"].zero_()
    result = made("strong", 2, common="none")(samples, seeded())
    assert torch.equal(result.image, samples.image)


def test_others_get_it_with_the_probability_that_was_asked_for():
    samples = Samples(torch.zeros(4000, 1, 4, 4), extra={"drawn": torch.zeros(4000, dtype=torch.long)})
    samples.label = torch.zeros(4000, 4, 4, dtype=torch.long)
    for asked, expected in ((0.25, 0.25), (None, 0.5), (0.0, 0.0)):
        transform = preset("heuristic", dimensions=2, patch=(4, 4), rare=(1,), common=asked)
        result = transform(samples, seeded())
        share = result.image.flatten(1).any(1).float().mean().item()
        assert share == pytest.approx(expected, abs=0.03)


def test_light_for_common_ones_is_the_light_augmentation():
    samples = patches(2, count=40)
    samples.extra["drawn"].zero_()
    transform = made("strong", 2, rare=(1,), common="light")
    drawn = transform.draw(samples, seeded())
    light = {name.removeprefix("weak."): value for name, value in drawn.items() if name.startswith("weak.")}
    assert torch.equal(transform.apply(samples, drawn).image, made("light", 2).apply(samples, light).image)


def test_it_is_decided_by_the_class_that_a_patch_was_drawn_around():
    samples = patches(2)
    samples.extra["centre"] = torch.full((8,), 2)  # the label in the middle is another matter
    assert is_rare(samples, (1,)).tolist() == [c == 1 for c in samples.extra["drawn"].tolist()]
    assert is_rare(samples, None).tolist() == [c > 0 for c in samples.extra["drawn"].tolist()]


def test_scans_are_told_by_their_label_and_unlabelled_ones_are_all_changed():
    scans = Samples(torch.zeros(4, 1, 4, 4), torch.tensor([0, 1, 2, 1]))
    assert is_rare(scans, (1,)).tolist() == [False, True, False, True]
    assert is_rare(scans, (0, 2)).tolist() == [True, False, True, False]
    findings = Samples(torch.zeros(3, 1, 4, 4), torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    assert is_rare(findings, (1,)).tolist() == [False, True, False]
    assert is_rare(findings, None).tolist() == [True, True, False]
    assert is_rare(patches(2).without_labels(), (1,)).all()
    masks = Samples(torch.zeros(3, 1, 4, 4), torch.zeros(3, 4, 4, dtype=torch.long))
    with pytest.raises(OptionError, match="what a patch was drawn around"):
        is_rare(masks, (1,))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_is_undone_for_each_patch_by_its_own_moves(dimensions: int):
    samples = patches(dimensions)
    transform = made("strong", dimensions, rare=(1,), common=0.5)
    drawn = transform.draw(samples, seeded(3))
    for name, value in drawn.items():  # what mirrors only comes back exactly
        if name.endswith(("angles", "chosen")):
            value.zero_()
        if name.endswith("scale"):
            value.fill_(1)
    moved = transform.apply(samples, drawn)
    assert not torch.equal(moved.image, samples.image)
    assert torch.equal(transform.inverse(moved, drawn).image, samples.image)


def test_processes_that_share_a_batch_draw_the_same():
    samples = patches(2)
    transform = made("policy", 2, rare=(1,), common=0.3)
    shapes = Samples(torch.empty(samples.image.shape, device="meta"), subject=[""] * 8)
    drawn = transform.draw(shapes, seeded())
    whole = transform.apply(samples, drawn)
    for rank in range(2):
        part = transform.apply(samples[slice(rank, None, 2)], {n: v[rank::2] for n, v in drawn.items()})
        torch.testing.assert_close(part.image, whole.image[rank::2], atol=1e-6, rtol=1e-6)


def test_its_source_is_as_large_as_the_larger_of_both():
    still, strong = Spatial(2, patch=(10, 10)), made("strong", 2)
    assert ForRare(strong, still).source_patch((10, 10)) == strong.source_patch((10, 10))
    assert ForRare(still, strong).source_patch((10, 10)) == strong.source_patch((10, 10))
    assert made("strong", 2, rare=(1,)).describe()[0][2] == "others with probability 0.5"


def test_options_that_make_no_sense_are_answered_in_a_line(tmp_path: Path):
    with pytest.raises(OptionError, match='"none" changes no sample, so "rare" has no effect'):
        made("none", 2, rare=(1,))
    with pytest.raises(
        OptionError, match='pool is no option of transforms = "light"; it belongs to "random", "policy"'
    ):
        made("light", 2, pool="talk")
    with pytest.raises(OptionError, match="a probability is a number"):
        made("light", 2, rare=(1,), common="lihgt")
    with pytest.raises(OptionError, match='common is "none", "light" or a probability, got True'):
        made("light", 2, rare=(1,), common=True)
    with pytest.raises(OptionError, match="between 0 and 1, got 1.5"):
        made("light", 2, rare=(1,), common=1.5)
    with pytest.raises(OptionError, match="full augmentation is between 0 and 1, got -0.1"):
        ForRare(Compose([]), Compose([]), probability=-0.1)
    pool = Pool("jcsa", dimensions=2, patch=SIZE[2])
    path = tmp_path / "policy.json"
    path.write_text(to_json(Policy(pool.groups, sets=2), pool), encoding="utf-8")
    with pytest.raises(OptionError, match="leave out common"):
        made("policy", 2, file=str(path), common=0.5)
    assert not isinstance(made("policy", 2, file=str(path), rare=(1,)), ForRare)
