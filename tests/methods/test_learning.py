"""Each method does what it is for, on toy domains with a known shift."""

from __future__ import annotations

import torch

from shiftproof.data.samples import Samples
from shiftproof.train import Trainer

GAINS = {0: 1.0, 1: 1.6, 2: 2.4}


def share_between_domains(method, toys, **looks) -> float:
    """Share of the variance of pooled features that lies between domains: 0 where they are alike, 1 where each
    domain is a point of its own."""
    with torch.no_grad():
        samples = toys.discs([0, 1, 2] * 60, 90001, **looks)
        pooled = method.eval().encode(samples)[-1].flatten(2).mean(2)
        centre = pooled.mean(0)
        between = sum(((pooled[samples.domain == d].mean(0) - centre) ** 2).sum() for d in range(3)) / 3
        return float(between / ((pooled - centre) ** 2).sum(1).mean())


def test_dann_takes_the_domain_out_of_the_features(toys):
    looks = {"offset": {0: 0.0, 1: 0.4, 2: 0.8}}
    trainer = Trainer(rate=3e-3, schedule="constant", clip=None, weight_decay=0.0)
    before, after = [], []
    for seed in range(2):
        erm = toys.make("erm", seed=seed)
        dann = toys.make("dann", seed=seed, hidden=32, form="alternating", critic_steps=3, weight=0.3)
        toys.drive(erm, 250, trainer=trainer, **looks)
        toys.drive(dann, 250, trainer=trainer, **looks)
        before.append(share_between_domains(erm, toys, **looks))
        after.append(share_between_domains(dann, toys, **looks))
    assert min(before) > 0.6
    assert sum(after) < 0.75 * sum(before)


def test_mldg_makes_a_step_for_some_domains_help_the_others(toys):
    """What the objective rewards: the gradients of different domains agree more than under ERM."""

    def agreement(method) -> float:
        method.train()
        total = 0.0
        for seed in range(20):
            parts = toys.discs([0, 1, 2] * 2, 7000 + seed, gain=GAINS).by_domain()
            weights = list(method.network.parameters())
            grads = [
                torch.cat([g.flatten() for g in torch.autograd.grad(method.error(p).mean(), weights)]) for p in parts
            ]
            total += sum(float(grads[i] @ grads[j]) for i in range(3) for j in range(i))
        return total

    erm, mldg = toys.make("erm"), toys.make("mldg", inner_rate=0.05, second_order=True)
    toys.drive(erm, 60, gain=GAINS)
    toys.drive(mldg, 60, gain=GAINS)
    assert agreement(mldg) > agreement(erm)


def test_group_dro_serves_the_worst_domain_better_than_erm(toys):
    """One domain of four is inverted: pooled training gives way to the majority."""
    gains = {0: 1.0, 1: 1.0, 2: 1.0, 3: -1.0}

    def worst(method) -> float:
        with torch.no_grad():
            samples = toys.discs([0, 1, 2, 3] * 20, 5555, gain=gains)
            error = method.eval().error(samples)
            return max(float(error[samples.domain == d].mean()) for d in range(4))

    erm, dro = toys.make("erm", sources=4), toys.make("group_dro", sources=4, rate=0.5)
    toys.drive(erm, 80, gain=gains)
    toys.drive(dro, 80, gain=gains)
    assert worst(dro) < worst(erm)
    assert int(dro.weights.argmax()) == 3


def test_mean_teacher_is_steadier_on_the_target_than_erm(toys):
    """Consistency makes predictions on the unlabelled domain depend less on noise in the image."""

    def unsteadiness(method) -> float:
        with torch.no_grad():
            samples = toys.discs([3] * 40, 4242, gain={3: 0.5})
            random = torch.Generator().manual_seed(0)
            noise = 0.3 * torch.randn(samples.image.shape, generator=random)
            a = method.eval().predict(samples)
            b = method.predict(Samples(samples.image + noise))
            return float(method.task.distance(a, b).mean())

    erm = toys.make("erm", sources=3)
    teacher = toys.make("mean_teacher", sources=3, targets=1, weight=20.0, noise=0.3, decay=0.9)
    toys.drive(erm, 120, gain={3: 0.5})
    toys.drive(teacher, 120, gain={3: 0.5})
    assert unsteadiness(teacher) < 0.8 * unsteadiness(erm)
