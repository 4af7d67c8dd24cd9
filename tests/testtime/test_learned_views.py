"""Predictions averaged over views, and views learned for a trained network."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from shiftproof import catalogue, nets, tasks
from shiftproof.data.samples import Samples
from shiftproof.errors import LabelError, OptionError
from shiftproof.methods.method import Setting
from shiftproof.parts.view_policy import ViewPolicy
from shiftproof.recipe import Recipe
from shiftproof.tasks.multi_label import MultiLabelSegmentation
from shiftproof.testtime.learned_views import learned_views
from shiftproof.testtime.learning_views import learn_views
from shiftproof.transforms.policies import Policy
from shiftproof.transforms.policy_files import to_json
from shiftproof.transforms.pool import Pool
from shiftproof.transforms.views import Views

both = pytest.mark.parametrize("dimensions", [2, 3])


def trained(toys, dimensions=2, steps=3, norm="batch", **options):
    method = toys.make("erm", norm=norm, sources=2, dimensions=dimensions, **options)
    toys.drive(method, steps)
    return method.eval()


def own(method, samples):
    with torch.no_grad():
        return method.task.scores(method.predict(samples))


def policy_file(tmp_path, shares: dict[str, float], space=(16, 16), name="views.json", **options):
    """A file with these probabilities, all other views 0."""
    policy = ViewPolicy(Views(space, **options))
    logits = torch.full((1, len(policy.views.names)), -1e4)
    for view, share in shares.items():
        logits[0, policy.views.place(view)] = float(np.log(share))
    with torch.no_grad():
        policy.policy.logits[0].copy_(logits)
    path = tmp_path / name
    path.write_text(policy.as_json())
    return str(path)


@both
def test_identity_alone_is_the_methods_own_prediction(toys, dimensions):
    method = trained(toys, dimensions)
    samples = toys.discs([0, 0], 5, dimensions=dimensions).without_labels()
    for options in ({}, {"preset": "nnunet"}, {"preset": "deepmedic"}):
        assert torch.equal(learned_views(method, keep=1, **options)(samples), own(method, samples))


def test_identity_alone_of_a_file_and_of_a_whole_image_is_the_own_prediction(toys, tmp_path):
    path = policy_file(tmp_path, {"identity": 0.9, "mirror frontal": 0.1})
    method, samples = trained(toys), toys.discs([0, 0], 5)
    assert torch.equal(learned_views(method, keep=1, policy_file=path)(samples), own(method, samples))
    classifier = whole_image("multi-class")
    assert torch.equal(learned_views(classifier, keep=1)(samples), own(classifier, samples))


def whole_image(kind: str, dimensions: int = 2):
    task = tasks.make({"task": "classification", "kind": kind}, ["a", "b", "c"])
    torch.manual_seed(0)
    network = nets.build("resnet", dimensions=dimensions, channels=1, outputs=task.outputs, stem="small", width=0.0625)
    return catalogue.method("erm")(network, task, Setting(["a", "b"], 1, dimensions, 2, (16,) * dimensions)).eval()


@both
def test_exact_views_are_averaged_as_numpy_does(toys, tmp_path, dimensions):
    """Logits of mirrored, turned and brightened images, undone by NumPy and weighted."""
    method = trained(toys, dimensions)
    samples = toys.discs([0, 0], 5, dimensions=dimensions)
    turn, plane = ("turn in plane +90", (2, 3)) if dimensions == 2 else ("turn sagittal +90", (4, 2))
    shares = {"mirror frontal": 0.5, turn: 0.3, "multiply +0.25": 0.2}
    path = policy_file(tmp_path, shares, (16,) * dimensions)
    found = learned_views(method, policy_file=path, keep=3)(samples)
    image = samples.image.numpy()

    def scored(array: np.ndarray) -> np.ndarray:
        return own(method, Samples(torch.from_numpy(np.ascontiguousarray(array)))).numpy()

    expected = 0.5 * np.flip(scored(np.flip(image, 3)), 3)
    expected = expected + 0.3 * np.rot90(scored(np.rot90(image, 1, plane)), -1, plane)
    expected = expected + 0.2 * scored(image * np.float32(1.25))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    only = learned_views(method, policy_file=path, keep=2)(samples)
    fewer = (expected - 0.2 * scored(image * np.float32(1.25))) / 0.8
    np.testing.assert_allclose(only.numpy(), fewer, atol=2e-5)


def test_where_a_view_held_nothing_the_others_count_and_where_none_did_the_own_prediction(toys, tmp_path):
    method, samples = trained(toys), toys.discs([0], 5)
    plain = own(method, samples)
    within = (torch.arange(16) - 7.5).abs() / 8 * 1.45 <= 1
    held = within[:, None] & within
    alone = learned_views(method, policy_file=policy_file(tmp_path, {"scale +0.45": 1.0}), keep=1)(samples)
    assert torch.equal(alone[..., ~held], plain[..., ~held])
    assert not torch.isclose(alone[..., held], plain[..., held]).all()
    two = policy_file(tmp_path, {"scale +0.45": 0.75, "mirror frontal": 0.25})
    mirrored = own(method, Samples(samples.image.flip(3))).flip(3)
    mixed = learned_views(method, policy_file=two, keep=2)(samples)
    torch.testing.assert_close(mixed[..., ~held], mirrored[..., ~held])
    expected = 0.75 * alone + 0.25 * mirrored
    torch.testing.assert_close(mixed[..., held], expected[..., held], atol=1e-5, rtol=1e-4)


@both
def test_it_works_on_windows_of_any_size(toys, tmp_path, dimensions):
    """Quarter turns fit windows of equal sides only; elsewhere the next probable view takes their place."""
    method = trained(toys, dimensions)
    turn = "turn in plane +90" if dimensions == 2 else "turn longitudinal +90"
    path = policy_file(tmp_path, {turn: 0.8, "mirror sagittal": 0.2}, (16,) * dimensions)
    predict = learned_views(method, policy_file=path, keep=1)
    for space in ((16, 16, 8), (16, 8, 16), (24, 16, 16)):
        image = torch.randn(2, 1, *space[:dimensions])
        found = predict(Samples(image))
        expected = own(method, Samples(image.flip(2))).flip(2)
        if space[0] == space[1]:
            expected = own(method, Samples(image.rot90(1, (2, 3)).contiguous())).rot90(-1, (2, 3))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["multi-class", "ordinal", "multi-label"])
@both
def test_whole_images_are_answered_with_the_mean_score(kind, dimensions, tmp_path):
    method = whole_image(kind, dimensions)
    path = policy_file(tmp_path, {"mirror frontal": 0.75, "add +0.25": 0.25}, (16,) * dimensions)
    image = torch.randn(3, 1, *[16] * dimensions)
    found = learned_views(method, policy_file=path, keep=4)(Samples(image))
    expected = 0.75 * own(method, Samples(image.flip(3))) + 0.25 * own(method, Samples(image + 0.25))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert method.task.answer(found).shape[0] == 3


def test_it_serves_structures_that_overlap_and_deep_supervision(toys):
    parts = [[False, False], [True, False], [True, True]]
    task = MultiLabelSegmentation(["background", "disc", "ring"], parts)
    network = nets.build("unet", dimensions=2, channels=1, outputs=2, widths=[4, 8, 8], deep_supervision=True)
    method = catalogue.method("erm")(network, task, Setting(["a", "b"], 1, 2, 2, (16, 16))).eval()
    samples = toys.discs([0, 0], 1)
    found = learned_views(method)(samples)
    assert found.shape == (2, 2, 16, 16)
    flips = [(), (2,), (3,), (2, 3)]
    expected = sum(own(method, Samples(samples.image.flip(axes))).flip(axes) for axes in flips) / 4
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@both
def test_networks_that_score_the_middle_only_are_shown_views_of_all_that_they_read(dimensions):
    task = tasks.make({"task": "segmentation"}, ["background", "disc", "ring"])
    torch.manual_seed(0)
    network = nets.build(
        "deepmedic", dimensions=dimensions, channels=1, outputs=3, variant="reduced", features=[4] * 8, hidden=6
    )
    size = 3 + 2 * nets.margin_of(network)[0]
    setting = Setting(["a", "b"], 1, dimensions, 2, (size,) * dimensions)
    method = catalogue.method("erm")(network, task, setting).eval()
    image = torch.randn(1, 1, *[size] * dimensions)
    found = learned_views(method, preset="deepmedic")(Samples(image))
    flips = [(), *((axis,) for axis in range(2, 2 + dimensions))]
    expected = sum(own(method, Samples(image.flip(axes))).flip(axes) for axes in flips) / len(flips)
    assert found.shape == (1, 3, *[3] * dimensions)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_mirroring_can_be_left_out_for_one_axis(toys):
    method, samples = trained(toys), toys.discs([0], 1)
    found = learned_views(method, preset="deepmedic", mirror_axes=(1,))(samples)
    expected = (own(method, samples) + own(method, Samples(samples.image.flip(3))).flip(3)) / 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_it_is_pure_and_leaves_the_method_alone(toys):
    method = trained(toys)
    before = {n: t.clone() for n, t in method.state_dict().items()}
    predict, samples = learned_views(method), toys.discs([0, 0], 1).without_labels()
    state = torch.get_rng_state()
    first = predict(samples)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(predict(samples), first)
    torch.testing.assert_close(predict(samples[:1]), first[:1])
    assert not first.requires_grad
    assert all(torch.equal(t, before[n]) for n, t in method.state_dict().items())


def test_what_cannot_be_is_refused_in_one_line(toys, tmp_path):
    method = trained(toys)
    with pytest.raises(OptionError, match="at least 1 view, got 0"):
        learned_views(method, keep=0)
    with pytest.raises(OptionError, match="a policy_file or a preset, not both"):
        learned_views(method, policy_file="x", preset="nnunet")
    with pytest.raises(OptionError, match="there is no policy"):
        learned_views(method, policy_file=str(tmp_path / "none.json"))
    talk = Pool("talk", dimensions=2, patch=(16, 16))
    (tmp_path / "talk.json").write_text(to_json(Policy(talk.groups), talk))
    with pytest.raises(OptionError, match='is a policy for the pool "talk".*expected one of views'):
        learned_views(method, policy_file=str(tmp_path / "talk.json"))
    path = policy_file(tmp_path, {"identity": 0.9, "mirror frontal": 0.1})
    row = Recipe("a", test_time="learned_views", test_time_options={"policy_file": path}).pinned()
    learned_views(method, **row.test_time_options)
    policy_file(tmp_path, {"identity": 0.8, "mirror frontal": 0.2})
    with pytest.raises(OptionError, match=r"views.json has changed since it was chosen"):
        learned_views(method, **row.test_time_options)
    deep = policy_file(tmp_path, {"identity": 1.0}, (16, 16, 16))
    with pytest.raises(OptionError, match="views of 3D images, and this method is 2D"):
        learned_views(method, policy_file=deep)
    lost = policy_file(tmp_path, {"identity": 1.0}, destroying=True)
    with pytest.raises(OptionError, match="operations that segmentation cannot invert: constant -1, .*leave out"):
        learned_views(method, policy_file=lost)
    with pytest.raises(OptionError, match=r"mirror_axes are among \(0, 1\) in 2D"):
        learned_views(method, mirror_axes=(2,))


# Learning ----------------------------------------------------------------------------------------------------


def patches(toys, size=2):
    return (toys.discs([0] * size, 40 + i) for i in itertools.count())


class Sided(torch.nn.Module):
    """A network that sees what is right in one direction only: it answers well after mirroring."""

    def forward(self, image):
        half = image.shape[2] // 2
        seen = torch.cat([torch.zeros_like(image[:, :, :half]), image[:, :, half:]], 2)
        return torch.cat([-seen, seen - 0.5], 1) * 8


def sided_samples(number: int, seed: int) -> Samples:
    """Bright squares in the first half of the first axis, where the network is blind."""
    random = torch.Generator().manual_seed(seed)
    image = 0.2 * torch.randn(number, 1, 16, 16, generator=random)
    label = torch.zeros(number, 16, 16, dtype=torch.long)
    for b in range(number):
        x, y = torch.randint(1, 3, (1,), generator=random), torch.randint(1, 10, (1,), generator=random)
        label[b, x : x + 5, y : y + 5] = 1
    return Samples(image + label[:, None], label)


def sided():
    task = tasks.make({"task": "segmentation"}, ["background", "square"])
    return catalogue.method("erm")(Sided(), task, Setting(["a"], 1, 2, 1, (16, 16))).eval()


def test_learning_raises_views_that_help_and_the_average_is_better(tmp_path):
    method = sided()
    seen = (sided_samples(1, i) for i in range(150))
    policy = learn_views(method, seen, steps=150, number=16, rate=0.05, preset="uniform")
    found = policy.probabilities()
    first = 1 / len(found)
    assert found["mirror sagittal"] > 2 * first
    assert found["turn in plane 180"] > 2 * first
    assert found["identity"] < first
    assert found["mirror frontal"] < first
    (tmp_path / "views.json").write_text(policy.as_json())
    samples = sided_samples(8, 1000)
    better = learned_views(method, policy_file=str(tmp_path / "views.json"), keep=2)(samples)
    plain, good = (float(method.task.measure(p, samples)["square"].nanmean()) for p in (own(method, samples), better))
    assert plain < 0.3
    assert good > 0.8


def test_learning_lowers_every_view_that_destroys_the_image(toys):
    method = trained(toys, steps=60, norm="instance")
    policy = learn_views(method, patches(toys), steps=120, number=24, rate=0.05, preset="uniform", destroying=True)
    found = policy.probabilities()
    first, names = 1 / len(found), policy.views.names[-15:]
    assert names[0] == "constant -2"
    assert all(found[name] < first for name in names), {n: found[n] for n in names if found[n] >= first}
    assert sum(found[name] for name in names) < 0.5 * 15 * first


def test_weights_modes_and_running_statistics_stay_as_they_are(toys):
    method = trained(toys)
    method.train()
    before = {n: t.clone() for n, t in method.state_dict().items()}
    learn_views(method, patches(toys), steps=3, number=4, rate=0.1)
    assert method.training
    assert all(m.training for m in method.modules())
    assert all(torch.equal(t, before[n]) for n, t in method.state_dict().items())
    assert all(p.grad is None for p in method.parameters())


def test_it_is_a_function_of_its_seed(toys):
    method = trained(toys)

    def learned(seed: int) -> dict[str, float]:
        return learn_views(method, patches(toys), steps=4, number=6, rate=0.1, seed=seed).probabilities()

    assert learned(0) == learned(0)
    assert learned(0) != learned(1)


def test_a_rate_of_zero_keeps_the_preset(toys):
    found = learn_views(trained(toys), patches(toys), steps=3, number=6, rate=0.0).probabilities()
    assert found["identity"] == pytest.approx(0.2, abs=1e-6)


def test_samples_that_cannot_be_learned_from_are_refused(toys):
    method = trained(toys)
    with pytest.raises(LabelError, match="given no samples"):
        learn_views(method, [])
    with pytest.raises(LabelError, match="needs labelled patches"):
        learn_views(method, [toys.discs([0], 0).without_labels()])
    with pytest.raises(OptionError, match=r"patches of one size, got \(16, 12\) after \(16, 16\)"):
        learn_views(method, [toys.discs([0], 0), toys.discs([0], 0).central((16, 12))])
    with pytest.raises(OptionError, match="at least 2 views"):
        learn_views(method, patches(toys), number=1)
