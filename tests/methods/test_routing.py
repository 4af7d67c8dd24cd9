"""Which tensors move in which descent."""

from __future__ import annotations

import copy

import torch

from shiftproof.training.steps import RunningStep


def moved(before, after) -> set[str]:
    """Top-level names of state that changed."""
    return {n.split(".")[0] for n, t in after.items() if not torch.equal(t, before[n])}


def snapshot(method):
    return {n: t.clone() for n, t in method.state_dict().items() if isinstance(t, torch.Tensor)}


def test_erm_moves_the_network(toys):
    method = toys.make("erm")
    before = snapshot(method)
    toys.drive(method, 1)
    assert moved(before, snapshot(method)) == {"network"}


def test_reversal_moves_network_and_classifier_in_one_descent(toys, monkeypatch):
    method = toys.make("dann", targets=1)
    calls = []
    original = RunningStep.move
    monkeypatch.setattr(RunningStep, "move", lambda s, g, part="all": (calls.append(part), original(s, g, part)))
    before = snapshot(method)
    toys.drive(method, 2, total=10)
    assert calls == ["all", "all"]
    assert moved(before, snapshot(method)) == {"network", "domain_classifier"}


def test_alternating_teaches_the_critic_apart(toys, monkeypatch):
    method = toys.make("dann", targets=1, form="alternating", critic_steps=3, penalty=1.0)
    log = []
    original = RunningStep.move

    def watched(self, gradients, part="all"):
        before = snapshot(method)
        original(self, gradients, part)
        log.append((part, moved(before, snapshot(method))))

    monkeypatch.setattr(RunningStep, "move", watched)
    toys.drive(method, 1, total=2)
    assert log == [("critic", {"domain_classifier"})] * 3 + [("all", {"network"})]


def test_critic_steps_see_fresh_batches(toys, monkeypatch):
    method = toys.make("dann", form="alternating", critic_steps=2)
    seen = []
    original = method.teach_critic
    monkeypatch.setattr(method, "teach_critic", lambda e, s: (seen.append(e.image.clone()), original(e, s)))
    toys.drive(method, 1)
    assert not torch.equal(seen[0], seen[1])


def test_the_encoder_gets_the_negative_of_the_domain_gradient(toys):
    """With the reversal at full strength the encoder climbs the domain loss that the classifier descends."""
    method = toys.make("dann", targets=1)
    batch = toys.batch_of(method, 0)

    class At:
        phase, phase_progress = "adversarial", 1.0

        def log(self, *_): ...
        def mean(self, x):
            return x

    strength = method.strength(At())
    assert abs(strength - 0.9999092) < 1e-6
    domain = method.losses(batch, At())["domain"]
    reversed_ = torch.autograd.grad(domain, method.network.encoder.parameters())
    plain = method.domain_loss(method.pooled(method.encode(batch.everyone)), batch.everyone, At())
    straight = torch.autograd.grad(plain, method.network.encoder.parameters())
    for r, s in zip(reversed_, straight, strict=True):
        torch.testing.assert_close(r, -strength * s, rtol=1e-4, atol=1e-7)


def test_warm_up_trains_the_task_alone(toys):
    method = toys.make("dann", warm_up=0.5)
    before = snapshot(method)
    toys.drive(method, 2, total=10)
    assert moved(before, snapshot(method)) == {"network"}
    toys.drive(method, 8, start=7, total=10)
    assert "domain_classifier" in moved(before, snapshot(method))


def test_mldg_leaves_no_trace_of_the_virtual_step_in_batch_norm(toys):
    """Running statistics follow the meta-train forwards only."""
    method = toys.make("mldg", norm="batch", second_order=True)
    twin = copy.deepcopy(method)
    toys.drive(method, 1)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()
    domains = toys.batch_of(twin, 0).source.by_domain()
    twin.train()
    with torch.no_grad():
        for d in order[1:]:
            twin.error(domains[d])
    ours = dict(method.network.named_buffers())
    assert ours
    for name, buffer in twin.network.named_buffers():
        torch.testing.assert_close(ours[name], buffer)


def test_the_teacher_moves_by_averaging_only(toys):
    method = toys.make("mean_teacher", norm="batch", targets=1)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    student = [p.clone() for p in method.network.parameters()]
    teacher = [p.clone() for p in method.teacher.parameters()]
    for s, t in zip(student, teacher, strict=True):
        assert torch.equal(s, t)
    toys.drive(method, 3)
    # a = min(1 - 1/(t+1), 0.99): plain mean of the iterates 1, 2, 3.
    iterates = []
    other = toys.make("mean_teacher", norm="batch", targets=1)
    toys.drive(other, 3, after=lambda: iterates.append([p.clone() for p in other.network.parameters()]))
    for i, p in enumerate(method.teacher.parameters()):
        torch.testing.assert_close(p, torch.stack([it[i] for it in iterates]).mean(0), rtol=1e-5, atol=1e-6)


def test_training_mode_does_not_reach_the_teacher(toys):
    method = toys.make("mean_teacher", norm="batch")
    method.train()
    assert not any(m.training for m in method.teacher.modules())
    assert method.network.training


def test_group_weights_are_state_without_gradient(toys):
    method = toys.make("group_dro", rate=1.0)
    assert "weights" in method.state_dict()
    toys.drive(method, 3)
    assert not method.weights.requires_grad
    assert abs(float(method.weights.sum()) - 1) < 1e-6
