"""MONAI's networks in two halves give what MONAI's own give."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks import nets as monai
from torch import nn
from torch.nn import functional as F

from shiftproof import nets
from shiftproof.errors import ImageError, MethodError, OptionError

LEAKY = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})
SIZES = {"channels": 2, "outputs": 3}
SMALL = {
    "basicunet": {"features": (4, 4, 6, 8, 8, 5)},
    "dynunet": {"filters": (4, 6, 8, 10)},
    "segresnet": {"init_filters": 4, "blocks_down": (1, 2, 1), "blocks_up": (1, 2)},
    "unetr": {"feature_size": 4, "hidden_size": 12, "mlp_dim": 16, "num_heads": 2, "patch": 32},
    "densenet121": {"init_features": 8, "growth_rate": 4, "block_config": (2, 3, 2, 2), "bn_size": 2},
    "attentionunet": {"widths": (4, 6, 8)},
}
CUT = [name for name in SMALL if name != "attentionunet"]
INSTANCE = ("instance", {"affine": True})


def build(name, dimensions=2, **options):
    torch.manual_seed(0)
    chosen = {**SMALL[name], **options}
    if name == "unetr":
        patch = chosen["patch"]
        chosen["patch"] = (patch,) * dimensions if isinstance(patch, int) else patch
    return nets.build(name, dimensions=dimensions, **SIZES, **chosen)


def reference(name, dimensions=2, **changes):
    """MONAI's own, with the same weights: it is built alike after the same seed."""
    torch.manual_seed(0)
    sizes = {"spatial_dims": dimensions, "in_channels": 2, "out_channels": 3}
    options = dict(SMALL[name])
    if name == "basicunet":
        return monai.BasicUNet(**sizes, **{"norm": INSTANCE, **options, **changes})
    if name == "dynunet":
        defaults = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
        named = {"norm_name": INSTANCE, "act_name": LEAKY, **defaults, **options, **changes}
        return monai.DynUNet(**sizes, **named)
    if name == "segresnet":
        return monai.SegResNet(**sizes, **{"norm": ("group", {"num_groups": 4}), **options, **changes})
    if name == "unetr":
        size = (options.pop("patch"),) * dimensions
        return monai.UNETR(**sizes, **{"img_size": size, "norm_name": INSTANCE, **options, **changes})
    if name == "attentionunet":
        return monai.AttentionUnet(**sizes, channels=options["widths"], strides=(2, 2), **changes)
    return monai.DenseNet121(**sizes, **{**options, **changes})


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_result_is_that_of_monai_in_training_and_evaluation(name, dimensions):
    ours, theirs = build(name, dimensions), reference(name, dimensions)
    image = torch.randn(2, 2, *(32,) * dimensions)
    if name == "densenet121":
        image = torch.randn(2, 2, *(64, 32, 32)[:dimensions])

    for mode in (True, False):
        assert torch.equal(ours.train(mode)(image), theirs.train(mode)(image))
    if nets.cuttable(ours):
        assert torch.equal(ours.decode(ours.encode(image)), theirs(image))


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("basicunet", {"norm": "batch", "upsample": "nontrainable"}, {"norm": "batch", "upsample": "nontrainable"}),
        ("basicunet", {"norm": "none", "bias": False}, {"norm": None, "bias": False}),
        ("basicunet", {"norm": "group"}, {"norm": ("group", {"num_groups": 1})}),
        (
            "dynunet",
            {"kernels": [(1, 3), 3, 3, 3], "strides": [(1, 2), 2, 2], "residual": True, "norm": "group"},
            {
                "kernel_size": [(1, 3), 3, 3, 3],
                "strides": [1, (1, 2), 2, 2],
                "upsample_kernel_size": [(1, 2), 2, 2],
                "res_block": True,
                "norm_name": ("group", {"num_groups": 2}),
            },
        ),
        ("segresnet", {"norm": "batch", "upsample": "deconv"}, {"norm": "batch", "upsample_mode": "deconv"}),
        ("segresnet", {"norm": "none"}, {"norm": "", "act": ("relu", {"inplace": False})}),
        (
            "unetr",
            {"norm": "batch", "residual": False, "qkv_bias": True},
            {"norm_name": "batch", "res_block": False, "qkv_bias": True},
        ),
        ("densenet121", {"norm": "instance"}, {"norm": INSTANCE}),
        (
            "densenet121",
            {"norm": "group", "block_config": (2, 2)},
            {"norm": ("group", {"num_groups": 4}), "block_config": (2, 2)},
        ),
    ],
)
def test_options_mean_what_they_mean_to_monai(name, ours, theirs):
    image = torch.randn(2, 2, *((64, 64) if name == "densenet121" else (32, 32)))

    assert torch.equal(build(name, **ours)(image), reference(name, **theirs)(image))


@pytest.mark.parametrize("name", ["basicunet", "dynunet", "segresnet", "unetr", "attentionunet"])
@pytest.mark.parametrize("space", [(32, 27), (17, 31), (9, 21)])
def test_prediction_has_the_size_of_any_image(name, space):
    options = {"norm": "batch"} if name == "basicunet" else {}  # its instance norm asks for more than 31 voxels

    assert build(name, **options)(torch.randn(2, 2, *space)).shape == (2, 3, *space)
    assert build(name, 3, **options)(torch.randn(2, 2, *space, 18)).shape == (2, 3, *space, 18)


@pytest.mark.parametrize("space", [(8, 8), (28, 5), (29, 61)])
def test_densenet_reads_images_of_any_size(space):
    small = build("densenet121").eval()
    image = torch.randn(2, 2, *space)

    assert small(image).shape == (2, 3)
    assert torch.equal(small(image), small(F.pad(image, (0, max(29 - space[1], 0), 0, max(29 - space[0], 0)))))


@pytest.mark.parametrize("name", CUT)
def test_instance_norm_can_be_scaled(name):
    norms = [m for m in build(name, norm="instance").modules() if isinstance(m, nn.InstanceNorm2d)]

    assert norms
    assert all(norm.weight is not None for norm in norms)


def test_odd_sizes_of_basicunet_are_those_of_monai():
    image = torch.randn(1, 2, 37, 50)

    assert torch.equal(build("basicunet")(image), reference("basicunet")(image))


def test_padding_of_whole_networks_is_zeros_at_the_end_that_are_cut_off():
    ours, theirs, image = build("attentionunet").eval(), reference("attentionunet").eval(), torch.randn(1, 2, 13, 16)

    expected = theirs(F.pad(image, (0, 0, 0, 3)))[:, :, :13]

    torch.testing.assert_close(ours(image), expected)


def test_unetr_sees_zeros_behind_a_smaller_image_and_refuses_a_larger_one():
    net, image = build("unetr"), torch.randn(1, 2, 32, 20)

    padded = net.encode(F.pad(image, (0, 12)))

    for small, full in zip(net.encode(image), padded, strict=True):
        assert torch.equal(small, full[..., : small.shape[-1]])
    with pytest.raises(ImageError, match="up to 32 x 32 voxels, got 32 x 33"):
        net(torch.randn(1, 2, 32, 33))


def test_unetr_takes_the_patch_of_the_plan_in_whole_tokens():
    net = nets.build("unetr", dimensions=2, **SIZES, **{**SMALL["unetr"], "patch": (40, 17)})
    planned = {k: v for k, v in SMALL["unetr"].items() if k != "patch"}

    assert net.encoder.size == (48, 32)
    assert nets.build("unetr", dimensions=2, **SIZES, **planned, patch=(40, 17)).encoder.size == (48, 32)
    with pytest.raises(OptionError, match="patch"):
        nets.build("unetr", dimensions=2, **SIZES, **planned)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", CUT)
def test_maps_have_the_stated_widths_finest_first(name, dimensions):
    net = build(name, dimensions)
    image = torch.randn(2, 2, *(30, 32, 31)[:dimensions])

    maps = net.eval().encode(image)

    assert [m.shape[1] for m in maps] == net.widths
    sizes = [m.shape[2:].numel() for m in maps]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes) or name == "densenet121"
    torch.testing.assert_close(net.decode([m[:1] for m in maps]), net(image)[:1])


@pytest.mark.parametrize("name", CUT)
def test_halves_are_all_of_the_network_and_maps_outlive_the_decoder(name):
    net, image = build(name), torch.randn(2, 2, 64, 64) if name == "densenet121" else torch.randn(2, 2, 32, 32)
    halves = [id(p) for half in (net.encoder, net.decoder) for p in half.parameters()]
    assert sorted(halves) == sorted(id(p) for p in net.parameters())

    maps = net.encode(image)
    before = [m.clone() for m in maps]
    loss = net.decode(maps).square().mean() + sum(m.square().mean() for m in maps)
    loss.backward()

    assert all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))
    assert all(p.grad is not None for p in net.encoder.parameters())


@pytest.mark.parametrize("name", CUT)
def test_between_stands_in_for_a_map(name):
    net, image = build(name).eval(), torch.randn(2, 2, 64, 64) if name == "densenet121" else torch.randn(2, 2, 32, 32)
    seen = []

    def between(level, features):
        seen.append(level)
        return torch.ones_like(features) if level == 2 else features

    maps, plain = net.encode(image, between=between), net.encode(image)

    assert seen == list(range(len(net.widths)))
    assert torch.equal(maps[2], torch.ones_like(maps[2]))
    assert torch.equal(maps[1], plain[1])
    follows = name != "unetr" and len(maps) > 3
    assert not follows or not torch.allclose(maps[3], plain[3])


def test_deep_supervision_gives_the_scores_that_monai_stacks():
    ours = build("dynunet", deep_supervision=True, supervised=2)
    theirs = reference("dynunet", deep_supervision=True, deep_supr_num=2)
    image = torch.randn(2, 2, 32, 16)

    scores, stacked = ours(image), theirs(image)

    assert {name: tuple(s.shape[2:]) for name, s in scores.items()} == {
        "scores": (32, 16),
        "scores 1": (16, 8),
        "scores 2": (8, 4),
    }
    for index, score in enumerate(scores.values()):
        assert torch.equal(F.interpolate(score, (32, 16)), stacked[:, index])
    assert torch.equal(ours.eval()(image), scores["scores"])


@pytest.mark.parametrize("name", SMALL)
def test_a_virtual_step_and_a_copy_give_the_same_as_the_network(name):
    net, image = build(name).eval(), torch.randn(2, 2, 32, 32)
    weights = {n: p.detach() * 0 for n, p in net.named_parameters()}

    def constant(state):
        return torch.func.functional_call(net, state, (image,))

    assert torch.equal(copy.deepcopy(net)(image), net(image))
    assert constant(weights).abs().max() == 0
    assert torch.equal(constant({n: p.detach() for n, p in net.named_parameters()}), net(image))


@pytest.mark.parametrize("name", nets.NETWORKS)
def test_networks_can_be_checked_without_memory(name):
    options = {} if name == "attentionunet" else {"norm": "batch"}
    with torch.device("meta"):
        net = nets.build(name, dimensions=3, **SIZES, patch=(64, 64, 16), spacing_mm=(1, 1, 3), **options)

    assert all(p.is_meta for p in net.parameters())
    assert nets.cuttable(net) is (name != "attentionunet")
    assert any(isinstance(m, nn.BatchNorm3d) for m in net.modules())
    others = [m for m in net.modules() if isinstance(m, nn.InstanceNorm3d | nn.GroupNorm)]
    assert not others or name == "attentionunet"


def test_a_method_that_reads_features_is_told_which_networks_can_be_cut():
    nets.require_cuttable(build("dynunet"), "dynunet", "dann")

    with pytest.raises(MethodError, match=r'dann reads features.*"attentionunet" cannot be cut.*unet, basicunet') as e:
        nets.require_cuttable(build("attentionunet"), "attentionunet", "dann")
    assert "resnet" not in str(e.value).replace("segresnet", "")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("basicunet", {"features": (4, 4, 4)}, "6 numbers"),
        ("basicunet", {"features": (4, 4, 4, 4, 4, 0)}, "at least 1"),
        ("basicunet", {"upsample": "decon"}, '"deconv"'),
        ("dynunet", {"filters": (4, 8)}, "at least 3 levels"),
        ("dynunet", {"strides": [2, 2]}, "3 entries"),
        ("dynunet", {"strides": 2, "filters": None}, "expects a list"),
        ("dynunet", {"filters": 8}, "filters of dynunet expects"),
        ("dynunet", {"kernels": [3, 3, 3, 2]}, "odd"),
        ("dynunet", {"supervised": 3}, "from 1 to 2"),
        ("dynunet", {"filter": (4, 8)}, '"filters"'),
        ("segresnet", {"blocks_up": (1,)}, "2 entries"),
        ("segresnet", {"init_filters": "8"}, "expects int"),
        ("unetr", {"num_heads": 5}, "multiple of num_heads"),
        ("unetr", {"patch": (32, 32, 32)}, "2 entries"),
        ("densenet121", {"block_config": [2]}, "at least 2 blocks"),
        ("densenet121", {"dropout": 1.0}, "below 1"),
        ("attentionunet", {"widths": (1, 2)}, "2 or more"),
        ("attentionunet", {"norm": "batch"}, "no option of the network attentionunet"),
    ],
)
def test_an_option_out_of_range_is_named(name, options, words):
    with pytest.raises(OptionError, match=words):
        build(name, **options)


@pytest.mark.parametrize("name", SMALL)
def test_images_of_other_channels_are_refused(name):
    with pytest.raises(ImageError, match=r"reads \(B, 2, X, Y\), got \(1, 3, 32, 32\)"):
        build(name)(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("name", ["basicunet", "dynunet", "segresnet", "densenet121"])
def test_images_that_instance_norm_would_erase_are_refused_and_larger_ones_read(name):
    net = build(name, norm="instance")
    limit = net.single[0]

    with pytest.raises(ImageError, match=f"more than {limit} x {limit}"):
        net(torch.randn(2, 2, limit, limit))
    assert net(torch.randn(2, 2, limit, limit + 1)).shape[:2] == (2, 3)


@pytest.mark.parametrize("name", CUT)
def test_virtual_steps_can_be_differentiated(name):
    """The gradient after a virtual step, by double backward and by differences of the loss."""
    net, image = build(name).double(), torch.randn(2, 2, 40, 40, dtype=torch.double)
    if name == "unetr":
        image = image[..., :32, :32]
    # Biases of 0 would put empty voxels on the kink of a ReLU, where there is no derivative.
    start = {n: (p.detach() + 0.05 * torch.randn_like(p)).requires_grad_() for n, p in net.named_parameters()}

    def loss(weights):
        return torch.func.functional_call(net.eval(), weights, (image,)).square().mean()

    def after_a_step(weights, create_graph):
        slopes = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=create_graph)
        return loss({n: w - 0.01 * s for (n, w), s in zip(weights.items(), slopes, strict=True)})

    direction = {n: torch.randn_like(p) for n, p in start.items()}
    slopes = torch.autograd.grad(after_a_step(start, True), list(start.values()))
    exact = sum((s * d).sum() for s, d in zip(slopes, direction.values(), strict=True)).item()
    step = 1e-7
    sides = [
        after_a_step({n: (w + sign * step * direction[n]).detach().requires_grad_() for n, w in start.items()}, False)
        for sign in (1, -1)
    ]

    assert exact == pytest.approx(((sides[0] - sides[1]) / (2 * step)).item(), rel=2e-3)
