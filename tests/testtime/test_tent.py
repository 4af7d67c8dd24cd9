from __future__ import annotations

import numpy as np
import pytest
import torch

from shiftproof.data.samples import Samples
from shiftproof.errors import MethodError
from shiftproof.tasks.segmentation import Segmentation
from shiftproof.testtime.tent import mean_entropy, tent

TASK = Segmentation(["background", "disc", "ring"])


@pytest.fixture
def trained(toys):
    method = toys.make("erm", norm="batch", sources=2)
    toys.drive(method, 60)
    return method.eval()


def dice(method, prediction, samples) -> float:
    found = method.task.measure(prediction, samples)
    return float(torch.stack(list(found.values())).nanmean())


def test_entropy_is_that_of_the_softmax():
    scores = torch.randn(2, 3, 5)
    p = np.exp(scores.numpy()) / np.exp(scores.numpy()).sum(1, keepdims=True)
    entropy = -(p * np.log(p)).sum(1)
    assert float(mean_entropy(TASK, scores, by_class=False)) == pytest.approx(entropy.mean(), rel=1e-5)
    answer = p.argmax(1)
    by_class = np.mean([entropy[answer == k].mean() for k in np.unique(answer)])
    assert float(mean_entropy(TASK, scores, by_class=True)) == pytest.approx(by_class, rel=1e-5)


def test_gradient_of_the_entropy_is_the_closed_form():
    """dH/dz_k = -p_k (log p_k + H)."""
    z = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(mean_entropy(TASK, z[..., None], by_class=False), z)
    p = z.detach().softmax(1)
    entropy = -(p * p.log()).sum()
    torch.testing.assert_close(g, -p * (p.log() + entropy))


def test_rate_zero_without_batch_norm_is_the_method_itself(toys):
    method = toys.make("erm", norm="instance")
    toys.drive(method, 3)
    method.eval()
    samples = toys.discs([0, 0], 5).without_labels()
    with torch.no_grad():
        assert torch.equal(tent(method, rate=0.0)(samples), method.predict(samples))


def test_it_moves_norms_only_and_leaves_the_method_alone(toys, trained):
    before = {n: t.clone() for n, t in trained.state_dict().items()}
    tent(trained, rate=0.1, steps=3)(toys.discs([0] * 4, 5).without_labels())
    for n, t in trained.state_dict().items():
        assert torch.equal(t, before[n])
    assert all(p.requires_grad for p in trained.parameters())


def test_episodic_predictions_do_not_depend_on_what_came_before(toys, trained):
    a, b = toys.discs([0] * 4, 5).without_labels(), toys.discs([0] * 4, 6, gain={0: 3.0}).without_labels()
    predict = tent(trained, rate=0.05, steps=2)
    alone = predict(b)
    predict(a)
    assert torch.equal(predict(b), alone)
    continual = tent(trained, rate=0.05, steps=2, episodic=False)
    continual(a)
    assert not torch.equal(continual(b), alone)


def test_entropy_falls_and_accuracy_returns_under_a_gain(toys, trained):
    """A scanner with another gain and offset: batch statistics and sharper answers bring the structures back."""
    samples = toys.discs([0] * 8, 321, gain={0: 4.0})
    samples = samples.replace(image=samples.image + 3.0)
    with torch.no_grad():
        plain = trained.predict(samples)
    adapted = tent(trained, rate=1e-2, steps=5)(samples.without_labels())
    statistics = tent(trained, rate=0.0)(samples.without_labels())
    assert dice(trained, adapted, samples) > dice(trained, plain, samples) + 0.2
    assert mean_entropy(TASK, adapted, by_class=True) < mean_entropy(TASK, statistics, by_class=True)


def test_it_works_inside_evaluation_without_gradients(toys, trained):
    with torch.no_grad():
        prediction = tent(trained)(Samples(toys.discs([0], 1).image))
    assert not prediction.requires_grad


def test_a_network_without_norms_is_refused(toys):
    with pytest.raises(MethodError, match='norm="batch"'):
        tent(toys.make("erm", norm="none"))


def test_an_episode_answers_after_its_update_and_continual_adaptation_before(toys):
    method = toys.make("erm", norm="instance")
    toys.drive(method, 3)
    method.eval()
    samples = toys.discs([0, 0], 5).without_labels()
    with torch.no_grad():
        plain = method.predict(samples)
    assert not torch.equal(tent(method, rate=0.1)(samples), plain)
    continual = tent(method, rate=0.1, episodic=False)
    assert torch.equal(continual(samples), plain)
    assert not torch.equal(continual(samples), plain)
