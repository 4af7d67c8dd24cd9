"""Policies: what they begin with, what they draw, the gradient that they learn from, and their files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.transforms import preset
from shiftproof.transforms.drawn import FromPolicy
from shiftproof.transforms.groups import Group, Option, groups
from shiftproof.transforms.policies import POLICIES, Policy, conditioned
from shiftproof.transforms.policy_files import from_json, read_policy, to_json
from shiftproof.transforms.pool import Pool

PUBLISHED = {
    "nnunet": "scale .2 | rotate .1 .1 .1 | mirror .5 .5 .5 | gamma .3 .1 | brightness .05 .15 .15 | .2 | .1 | .1",
    "deepmedic": "scale .2 | rotate .2 .2 .2 | mirror .5 .05 .05 | gamma .05 .05 | .15 .05 .05 | .05 | .05 | .05",
    "weak": ".1 " * 15,
    "weaker": ".05 " * 15,
}
"""How probably each of the 15 groups acts, in their order."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(*logits: list[list[float]], temperature: float = 1.0) -> Policy:
    """A policy with these logits, (sets, options) of each group."""
    made = [Group(f"g{k}", tuple(Option(f"o{i}") for i in range(len(rows[0])))) for k, rows in enumerate(logits)]
    policy = Policy(made, sets=len(logits[0]), temperature=temperature)
    with torch.no_grad():
        for parameter, rows in zip(policy.logits, logits, strict=True):
            parameter.copy_(torch.tensor(rows))
    return policy


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_policies_act_as_often_as_published(name: str):
    expected = [float(word) for word in PUBLISHED[name].split() if word.startswith(".")]
    policy = Policy(groups("jcsa", 3), preset=name, sets=2)
    for (p, other), acts in zip(policy.probabilities(), expected, strict=True):
        assert 1 - p[0].item() == pytest.approx(acts, abs=1e-6)
        assert torch.allclose(p[1:], p[1])
        assert torch.equal(p, other)
    # The logits themselves: a_0 = 1, the others log(rho e / ((n - 1) (1 - rho))).
    first, rho = policy.logits[0][0].tolist(), expected[0]
    assert first[0] == 1
    assert first[1:] == pytest.approx([np.log(rho * np.e / (5 * (1 - rho)))] * 5)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("pool", ["talk", "jcsa", "views"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_preset_serves_every_pool(name: str, pool: str, dimensions: int):
    for destroying in (False, True):
        made = groups(pool, dimensions, destroying=destroying)
        for group, p in zip(made, Policy(made, preset=name).probabilities(), strict=True):
            assert p.shape == (1, len(group.options))
            assert p.sum().item() == pytest.approx(1, abs=1e-5)
            assert (p > 0).all()
            if name == "uniform":
                assert torch.allclose(p, torch.tensor(1 / len(group.options)))


def test_of_one_group_the_operations_have_their_proportion():
    (group,) = groups("talk", 3)
    (p,) = Policy([group], preset="nnunet").probabilities()
    share = {name: p[0, [o.name.startswith(name) for o in group.options]].sum().item() for name in ("scale", "rotate")}
    share["mirror sagittal"] = p[0, group.names.index("mirror sagittal")].item()
    assert share["rotate"] / share["scale"] == pytest.approx(3 * 0.1 / 0.2, rel=1e-3)  # each of three axes has 0.1
    assert share["mirror sagittal"] / share["scale"] == pytest.approx(0.5 / 0.2, rel=1e-3)
    # None of scale, three rotations, three mirrors, gamma, addition, multiplication (called contrast) and noise acts.
    idle = 0.8 * 0.9**3 * 0.5**3 * 0.7 * 0.95 * 0.85 * 0.9
    assert p[0, 0].item() == pytest.approx(idle, rel=1e-4)


def test_options_are_drawn_with_their_probabilities_for_each_kind_of_patches():
    policy = small([[0.0, 1.0, -1.0, 2.0], [1.0, 1.0, 1.0, -3.0]], [[0.5, 0.0], [-2.0, 2.0]])
    sets = torch.tensor([0, 1]).repeat(4000)
    index = policy.sample(sets, seeded()).index
    assert index.shape == (8000, 2)
    for k, p in enumerate(policy.probabilities()):
        for kind in range(2):
            seen = torch.bincount(index[sets == kind, k], minlength=p.shape[1]).numpy()
            assert stats.chisquare(seen, p[kind].double().numpy() / p[kind].double().sum().item() * 4000).pvalue > 1e-3
    # Groups are drawn apart from each other.
    table = np.histogram2d(index[sets == 0, 0], index[sets == 0, 1], bins=(4, 2))[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("winner", [0, 2])
def test_redrawn_noise_is_gumbel_noise_given_the_winner(winner: int):
    """Against the original: draw until the largest is the one that was chosen."""
    logits = np.array([0.3, -1.0, 1.2, 0.0])
    rows = torch.tensor(logits).expand(20000, 4)
    redrawn = conditioned(rows, torch.full((20000,), winner), seeded()).numpy()
    assert (redrawn.argmax(1) == winner).all()
    free = logits + np.random.default_rng(0).gumbel(size=(100_000, 4))
    kept = free[free.argmax(1) == winner]
    for option in range(4):
        assert stats.ks_2samp(redrawn[:, option], kept[:, option]).pvalue > 1e-3
    # Together, not only one by one: what is left of the winner's advance.
    ahead = [np.sort(r, 1)[:, -1] - np.sort(r, 1)[:, -2] for r in (redrawn, kept)]
    assert stats.ks_2samp(*ahead).pvalue > 1e-3


def by_loops(
    policy: Policy, index: np.ndarray, slopes: np.ndarray, sets: np.ndarray, centred: np.ndarray, seed: int
) -> list[np.ndarray]:
    """The catalogue's steps 4 to 6, sample by sample, from the same uniform numbers."""
    random, tau, found = seeded(seed), policy.temperature, []
    slopes = np.array([s - slopes[centred == c].mean() for s, c in zip(slopes, centred, strict=True)])
    for k, parameter in enumerate(policy.logits):
        a = parameter.detach().double().numpy()
        n = a.shape[1]
        first = torch.rand(len(index), 1, generator=random, dtype=torch.float64).numpy()
        second = torch.rand(len(index), n, generator=random, dtype=torch.float64).numpy()
        total = np.zeros_like(a)
        for b, j in enumerate(index[:, k]):
            own = a[sets[b]]
            u = np.empty(n)
            top = np.log(np.exp(own).sum()) - np.log(-np.log(first[b, 0]))
            for i in range(n):
                gumbel = own[i] - np.log(-np.log(second[b, i]))
                u[i] = top if i == j else -np.log(np.exp(-top) + np.exp(-gumbel))
            y = np.exp(u / tau) / np.exp(u / tau).sum()
            count = ((index[:, k] == j) & (sets == sets[b])).sum()
            total[sets[b]] += slopes[b] / count * y[j] * (np.eye(n)[j] - y) / tau
        found.append(total)
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_gradient_is_the_sum_over_samples_centred_and_without_duplicates(temperature: float):
    policy = small([[0.0, 1.0, -1.0], [1.0, 0.5, 0.0]], [[0.5, 0.0], [-1.0, 1.0]], temperature=temperature)
    sets = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1])
    choices = policy.sample(sets, seeded(1))
    slopes = torch.randn(8, generator=seeded(2), dtype=torch.float64)
    for centred in (None, torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])):
        found = policy.weight_gradient(choices, slopes, sets, seeded(3), centred=centred)
        expected = by_loops(
            policy,
            choices.index.numpy(),
            slopes.numpy(),
            sets.numpy(),
            (sets if centred is None else centred).numpy(),
            3,
        )
        for gradient, numbers, logits in zip(found, expected, policy.logits, strict=True):
            assert gradient.shape == logits.shape
            assert gradient.dtype == logits.dtype
            np.testing.assert_allclose(gradient, numbers, rtol=1e-5, atol=1e-7)


def test_the_weight_of_a_sample_has_the_derivative_of_the_relaxed_choice():
    """Two samples of different options, whose slopes stay as they are when centred; by automatic differentiation."""
    policy = small([[0.2, -0.4, 0.9]], temperature=0.7)
    choices = policy.sample(torch.zeros(2, dtype=torch.long), seeded(4))
    choices.index[:, 0] = torch.tensor([2, 0])
    slopes = torch.tensor([1.5, -1.5])
    (found,) = policy.weight_gradient(choices, slopes, torch.zeros(2, dtype=torch.long), seeded(5))
    rows = policy.logits[0].detach().double().expand(2, 3)
    noise = conditioned(rows, choices.index[:, 0], seeded(5)) - rows
    leaf = policy.logits[0].detach().double().requires_grad_()
    relaxed = ((leaf + noise) / 0.7).softmax(-1)
    (slopes[0] * relaxed[0, 2] + slopes[1] * relaxed[1, 0]).backward()
    np.testing.assert_allclose(found, leaf.grad, rtol=1e-5)


def test_what_helps_all_samples_alike_teaches_nothing():
    policy = small([[0.0, 1.0], [0.0, 0.0]])
    sets = torch.tensor([0, 0, 1, 1])
    choices = policy.sample(sets, seeded())
    (found,) = policy.weight_gradient(choices, torch.tensor([3.0, 3.0, -2.0, -2.0]), sets, seeded())
    assert not found.any()
    (found,) = policy.weight_gradient(choices, torch.tensor([3.0, 3.0, -2.0, -2.0]), sets, seeded(), centred=sets * 0)
    assert found.any()


def test_each_kind_of_patches_moves_its_own_logits_only():
    policy = small([[0.0, 0.0, 0.0]] * 2)
    sets = torch.ones(6, dtype=torch.long)
    choices = policy.sample(sets, seeded())
    (found,) = policy.weight_gradient(choices, torch.arange(6.0), sets, seeded())
    assert not found[0].any()
    assert found[1].any()


@pytest.mark.parametrize("pool", ["talk", "jcsa"])
def test_options_that_harm_end_below_where_they_began(pool: str):
    """Slopes as if samples weighed less were better wherever a destroying operation acted."""
    made = groups(pool, 2, destroying=True)
    policy = Policy(made)
    begun = policy.probabilities()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    harmful = [torch.tensor([i >= len(g.options) - 15 for i in range(len(g.options))]) for g in made]
    if pool == "jcsa":
        harmful = [h if g.name == "destroying" else torch.zeros_like(h) for g, h in zip(made, harmful, strict=True)]
    random, sets = seeded(), torch.zeros(16, dtype=torch.long)
    for _ in range(150):
        choices = policy.sample(sets, random)
        hurt = torch.stack([h[choices.index[:, k]] for k, h in enumerate(harmful)]).any(0)
        slopes = hurt.double() + 0.3 * torch.randn(16, generator=random)
        found = policy.weight_gradient(choices, slopes, sets, random)
        for parameter, gradient in zip(policy.logits, found, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for p, before, h in zip(policy.probabilities(), begun, harmful, strict=True):
        assert (p[0, h] < before[0, h]).all()


def test_entropy_is_that_of_the_probabilities():
    policy = small([[0.0, 1.0, 3.0]], [[0.0, 0.0]])
    p = policy.probabilities()[0][0].double().numpy()
    assert policy.entropies().tolist()[0] == pytest.approx([stats.entropy(p), np.log(2)], rel=1e-5)


def test_a_policy_goes_on_from_its_state():
    made = groups("jcsa", 2)
    first, second = Policy(made, sets=2, preset="weak"), Policy(made, sets=2)
    with torch.no_grad():
        for parameter in first.logits:
            parameter.add_(torch.randn(parameter.shape, generator=seeded()))
    second.load_state_dict(first.state_dict())
    sets = torch.tensor([0, 1] * 10)
    assert torch.equal(first.sample(sets, seeded(3)).index, second.sample(sets, seeded(3)).index)


def test_impossible_policies_are_refused():
    made = groups("jcsa", 2)
    with pytest.raises(OptionError, match='no preset of a policy "nnnet".*nnunet'):
        Policy(made, preset="nnnet")
    with pytest.raises(OptionError, match="at least 1 kind of patches, got 0"):
        Policy(made, sets=0)
    with pytest.raises(OptionError, match="temperature of a policy must be above 0, got 0"):
        Policy(made, temperature=0)


def learned(pool: Pool, sets: int = 1) -> Policy:
    policy = Policy(pool.groups, sets=sets)
    with torch.no_grad():
        for parameter in policy.logits:
            parameter.copy_(torch.randn(parameter.shape, generator=seeded()))
    return policy


def test_a_policy_is_the_same_after_its_file(tmp_path: Path):
    pool = Pool("jcsa", dimensions=3, patch=(8, 8, 8))
    policy = learned(pool, sets=2)
    text = to_json(policy, pool, history={"step": [0]}, provenance={"network": "unet"})
    content = json.loads(text)
    assert content["pool"] == "jcsa"
    assert content["sets"] == ["common", "rare"]
    assert [g["name"] for g in content["groups"]][:2] == ["scale", "rotate frontal"]
    assert content["history"] == {"step": [0]}
    assert content["provenance"] == {"network": "unet"}
    again = from_json(text, pool)
    for p, q in zip(policy.probabilities(), again.probabilities(), strict=True):
        torch.testing.assert_close(p, q)
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "policy.json").write_text(text, encoding="utf-8")
    for place in (tmp_path / "run", model, model / "policy.json"):
        assert read_policy(place) == content


def test_options_that_other_patches_cannot_take_are_dropped_in_proportion():
    cube = Pool("talk", dimensions=3, patch=(8, 8, 8))
    flat = Pool("talk", dimensions=3, patch=(8, 8, 4))
    policy = learned(cube)
    (p,), (q,) = policy.probabilities(), from_json(to_json(policy, cube), flat).probabilities()
    kept = [cube.groups[0].names.index(name) for name in flat.groups[0].names]
    assert len(kept) == 42
    torch.testing.assert_close(q[0], p[0, kept] / p[0, kept].sum())
    with pytest.raises(OptionError, match='made for other patches: it has no probability for "rotate frontal 90"'):
        from_json(to_json(learned(flat), flat), cube)


def test_files_that_are_no_policy_for_this_are_answered_in_a_line(tmp_path: Path):
    pool = Pool("jcsa", dimensions=2, patch=(8, 8))
    text = to_json(learned(pool), pool)
    with pytest.raises(OptionError, match='pool "jcsa" in 2D does not fit the pool "talk" in 2D'):
        from_json(text, Pool("talk", dimensions=2, patch=(8, 8)))
    with pytest.raises(OptionError, match="in 2D does not fit .* in 3D"):
        from_json(text, Pool("jcsa", dimensions=3, patch=(8, 8, 8)))
    broken = json.loads(text)
    broken["groups"][0]["probabilities"][0][0] += 0.5
    alone = json.loads(text)
    alone["groups"][0] |= {"options": ["identity"], "probabilities": [[1.0]]}
    for wrong, words in (
        ("{", "not the content"),
        ("[]", "not the content"),
        ("{}", "not the content"),
        (text.replace('"format": 1', '"format": 9'), "its format is 9"),
        (json.dumps(broken), "group scale needs a probability for each option"),
        (text.replace('"name": "scale"', '"title": "scale"'), "not the content .*KeyError: 'name'"),
        (json.dumps(json.loads(text) | {"provenance": [1]}), r"its provenance is a table, got \[1\]"),
        (json.dumps(alone), "group scale needs at least 2 options"),
        (json.dumps(json.loads(text) | {"groups": {}}), "it has no groups of options"),
    ):
        (tmp_path / "policy.json").write_text(wrong, encoding="utf-8")
        with pytest.raises(OptionError, match=words):
            read_policy(tmp_path)
    with pytest.raises(OptionError, match="there is no policy"):
        read_policy(tmp_path / "nowhere.json")


def test_a_policy_for_two_kinds_of_patches_gives_each_its_own():
    pool = Pool("jcsa", dimensions=2, patch=(8, 8))
    policy = Policy(pool.groups, sets=2)
    with torch.no_grad():
        for group, logits in zip(pool.groups, policy.logits, strict=True):
            logits[:, 0] = 50  # identity
            if group.name == "mirror frontal":
                logits[1] = torch.tensor([0.0, 50.0])
    samples = Samples(torch.randn(6, 1, 8, 8), torch.zeros(6, 8, 8, dtype=torch.long))
    samples.extra["drawn"] = torch.tensor([0, 1, 2, 0, 0, 2])
    for rare, kinds in ((None, [0, 1, 1, 0, 0, 1]), ((2,), [0, 0, 1, 0, 0, 1])):
        result = FromPolicy(pool, policy, rare=rare)(samples, seeded())
        for b, kind in enumerate(kinds):
            expected = samples.image[b].flip(-1) if kind else samples.image[b]
            assert torch.equal(result.image[b], expected)
    with pytest.raises(OptionError, match="2 kinds, common and rare; this policy has 3"):
        FromPolicy(pool, Policy(pool.groups, sets=3))


def test_a_saved_policy_is_used_by_a_recipe(tmp_path: Path):
    pool = Pool("talk", dimensions=2, patch=(8, 8))
    policy = Policy(pool.groups)
    with torch.no_grad():
        policy.logits[0][0, pool.groups[0].names.index("mirror frontal")] = 50
    path = tmp_path / "policy.json"
    path.write_text(to_json(policy, pool), encoding="utf-8")
    transform = preset("policy", dimensions=2, patch=(8, 8), file=str(path))
    samples = Samples(torch.randn(4, 1, 8, 8), torch.zeros(4, 8, 8, dtype=torch.long))
    assert torch.equal(transform(samples, seeded()).image, samples.image.flip(-1))
    with pytest.raises(OptionError, match="leave one of them out"):
        preset("policy", dimensions=2, patch=(8, 8), file=str(path), preset="weak")
