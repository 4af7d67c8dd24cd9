"""The U-Net: its arithmetic, its sizes, its derivatives."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shiftproof import nets
from shiftproof.errors import ImageError, OptionError
from shiftproof.nets.layers import InstanceNorm2d, InstanceNorm3d, Interpolation
from shiftproof.nets.unet import Level, UNet

SMALL = {"dimensions": 2, "channels": 1, "outputs": 3, "widths": (4, 6, 8)}


def unet(**options):
    torch.manual_seed(0)
    return UNet(**{**SMALL, **options})


def test_two_levels_are_these_operations():
    net = unet(widths=(4, 6)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    w = dict(net.named_parameters())
    image = torch.randn(2, 1, 7, 6, dtype=torch.double)

    def block(features, prefix, stride=1):
        for conv, norm, step in ((0, 1, stride), (3, 4, 1)):
            features = F.conv2d(features, w[f"{prefix}.layers.{conv}.weight"], stride=step, padding=1)
            mean = features.mean((2, 3), keepdim=True)
            variance = (features - mean).square().mean((2, 3), keepdim=True)
            scale, shift = (w[f"{prefix}.layers.{norm}.{n}"].view(1, -1, 1, 1) for n in ("weight", "bias"))
            features = (features - mean) / (variance + 1e-5).sqrt() * scale + shift
            features = torch.where(features > 0, features, 0.01 * features)
        return features

    fine = block(image, "encoder.levels.0")
    coarse = block(fine, "encoder.levels.1", stride=2)
    up = F.conv_transpose2d(coarse, w["decoder.upsamplings.0.weight"], stride=2)[:, :, :7, :6]
    last = block(torch.cat([fine, up], 1), "decoder.levels.0")
    expected = F.conv2d(last, w["decoder.heads.0.weight"], w["decoder.heads.0.bias"])

    torch.testing.assert_close(net(image), expected)


def test_default_2d_network_has_about_a_fifth_of_a_million_weights():
    def convolutions(inputs, width):
        return 9 * inputs * width + 9 * width * width + 4 * width  # two kernels, two norms

    widths = (16, 32, 48, 64)
    expected = sum(convolutions(i, o) for i, o in itertools.pairwise((1, *widths)))
    expected += sum(4 * coarse * fine + convolutions(2 * fine, fine) for fine, coarse in itertools.pairwise(widths))
    expected += 16 * 4 + 4

    net = nets.build("unet", dimensions=2, channels=1, outputs=4)

    assert sum(p.numel() for p in net.parameters()) == expected
    assert 150_000 < expected < 300_000


@pytest.mark.parametrize("space", [(16, 16), (17, 23), (9, 12)])
@pytest.mark.parametrize("upsampling", ["transposed", "linear"])
def test_prediction_has_the_size_of_any_2d_image(space, upsampling):
    assert unet(upsampling=upsampling)(torch.randn(2, 1, *space)).shape == (2, 3, *space)


@pytest.mark.parametrize("space", [(8, 8, 8), (7, 10, 5)])
@pytest.mark.parametrize("options", [{}, {"strides": [(2, 2, 1), 2], "kernels": [(3, 3, 1), 3, 3]}])
def test_prediction_has_the_size_of_any_3d_image(space, options):
    net = unet(dimensions=3, channels=2, **options)

    assert net(torch.randn(1, 2, *space)).shape == (1, 3, *space)


def test_maps_have_the_stated_widths_and_rounded_up_sizes():
    net = unet(dimensions=3, strides=[(2, 2, 1), (2, 2, 2)])

    maps = net.encode(torch.randn(1, 1, 9, 8, 5))

    assert [tuple(m.shape[1:]) for m in maps] == [(4, 9, 8, 5), (6, 5, 4, 5), (8, 3, 2, 3)]
    assert net.widths == [4, 6, 8]


def test_thick_slices_do_not_mix_under_in_plane_kernels_and_strides():
    net = unet(dimensions=3, strides=[(2, 2, 1)] * 2, kernels=[(3, 3, 1)] * 3, norm="none")
    image = torch.randn(1, 1, 8, 8, 4)
    changed = image.clone()
    changed[..., 2] += 1

    difference = (net(image) - net(changed)).abs().amax((0, 1, 2, 3))

    assert difference[2] > 0
    assert difference[[0, 1, 3]].max() == 0


def test_forward_is_decode_of_encode_for_any_leading_part_of_the_batch():
    net, image = unet(), torch.randn(4, 1, 12, 12)

    part = net.decode([m[:3] for m in net.encode(image)])

    torch.testing.assert_close(part, net(image)[:3])


def test_between_stands_in_for_a_map_on_both_its_ways():
    net, image = unet(), torch.randn(1, 1, 12, 12)
    seen = []

    def between(level, features):
        seen.append((level, features.shape[1]))
        return torch.zeros_like(features) if level == 0 else features

    maps = net.encode(image, between=between)

    assert seen == [(0, 4), (1, 6), (2, 8)]
    assert maps[0].abs().max() == 0
    torch.testing.assert_close(maps[1], net.encoder.levels[1](torch.zeros_like(maps[0])))


def test_several_inputs_are_channels():
    net, images = unet(channels=3), (torch.randn(2, 1, 8, 8), torch.randn(2, 2, 8, 8))

    torch.testing.assert_close(net(*images), net(torch.cat(images, 1)))


def test_encoder_and_decoder_are_all_of_the_network():
    net = unet(deep_supervision=True, residual=True)
    halves = [id(p) for half in (net.encoder, net.decoder) for p in half.parameters()]

    assert sorted(halves) == sorted(id(p) for p in net.parameters())


def test_deep_supervision_gives_every_decoder_level_in_training_and_one_tensor_after():
    net, image = unet(deep_supervision=True, widths=(4, 6, 8, 8)), torch.randn(2, 1, 17, 16)

    scores = net.train()(image)

    assert {name: tuple(s.shape) for name, s in scores.items()} == {
        "scores": (2, 3, 17, 16),
        "scores 1": (2, 3, 9, 8),
        "scores 2": (2, 3, 5, 4),
    }
    torch.testing.assert_close(net.eval()(image), scores["scores"])


def test_only_the_heads_that_are_used_exist():
    assert len(unet(deep_supervision=False).decoder.heads) == 1
    assert len(unet(deep_supervision=True).decoder.heads) == 2


@pytest.mark.parametrize(
    ("ours", "theirs", "space"),
    [
        (InstanceNorm2d, nn.InstanceNorm2d, (5, 7)),
        (InstanceNorm3d, nn.InstanceNorm3d, (3, 4, 5)),
    ],
)
def test_instance_norm_has_the_values_and_gradients_of_torch(ours, theirs, space):
    torch.manual_seed(0)
    fast, plain = ours(4, affine=True).double(), theirs(4, affine=True).double()
    nn.init.normal_(plain.weight)
    fast.load_state_dict(plain.state_dict())
    features = torch.randn(3, 4, *space, dtype=torch.double, requires_grad=True)
    weight = torch.randn_like(features)

    results = [
        (n(features), *torch.autograd.grad((n(features) * weight).sum(), [features, n.weight])) for n in (fast, plain)
    ]

    for mine, torchs in zip(*results, strict=True):
        torch.testing.assert_close(mine, torchs)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "instance"},
        {"norm": "batch"},
        {"norm": "group"},
        {"norm": "none"},
        {"residual": True},
        {"upsampling": "linear"},
        {"dimensions": 3, "widths": (2, 3)},
    ],
)
def test_second_derivatives_are_right(options):
    """Hessian times a direction, by double backward and by differences of gradients."""
    net = unet(**{"widths": (3, 4), **options}).double()
    image = torch.randn(2, 1, *(5,) * net.dimensions, dtype=torch.double)
    parameters = list(net.parameters())
    direction = [torch.randn_like(p) for p in parameters]

    def gradient(create_graph=False):
        return torch.autograd.grad(net(image).square().mean(), parameters, create_graph=create_graph)

    product = sum((g * d).sum() for g, d in zip(gradient(create_graph=True), direction, strict=True))
    exact = torch.autograd.grad(product, parameters, allow_unused=True, materialize_grads=True)

    step = 1e-6
    shifted = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * step * d
        shifted.append(gradient())
    for e, plus, minus in zip(exact, *shifted, strict=True):
        numeric = (plus - minus) / (2 * step)
        torch.testing.assert_close(e, numeric, rtol=1e-3, atol=1e-5 * max(1.0, float(numeric.abs().max())))


def test_residual_level_without_its_convolutions_is_the_shortcut():
    level = Level(4, 4, (3, 3), (1, 1), convolutions=2, residual=True, norm="none", dropout=0.0)
    for parameter in level.parameters():
        nn.init.zeros_(parameter)
    features = torch.randn(1, 4, 5, 5)

    torch.testing.assert_close(level(features), F.leaky_relu(features, 0.01))


def test_initial_kernels_have_he_variance_and_biases_are_zero():
    torch.manual_seed(0)
    net = UNet(dimensions=2, channels=1, outputs=2, widths=(64, 128), norm="group")
    convolution = net.encoder.levels[1].layers[0]

    assert convolution.weight.var().item() == pytest.approx(2 / (1 + 0.01**2) / (9 * 64), rel=0.02)
    assert convolution.bias.abs().max() == 0


def test_permuting_the_batch_permutes_the_prediction():
    net, image = unet().eval(), torch.randn(3, 1, 9, 9)

    torch.testing.assert_close(net(image[[2, 0, 1]]), net(image)[[2, 0, 1]])


def test_dropout_acts_in_training_only():
    net, image = unet(dropout=0.5), torch.randn(1, 1, 8, 8)

    assert not torch.equal(net.train()(image), net(image))
    assert torch.equal(net.eval()(image), net(image))


def test_linear_interpolation_reproduces_a_linear_ramp():
    ramp = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 3)

    fine = Interpolation((2, 1))(ramp)[0, 0, :, 0]

    torch.testing.assert_close(fine[1:-1], (torch.arange(12.0)[1:-1] + 0.5) / 2 - 0.5)


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_bf16_autocast_trains_close_to_float32(norm):
    net, image = unet(norm=norm), torch.randn(4, 1, 16, 16)

    def gradient(enabled):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scores = net(image)
        scores.float().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    low, full = gradient(True), gradient(False)

    assert torch.isfinite(low).all()
    assert F.cosine_similarity(low, full, dim=0) > 0.95


def test_training_fits_a_threshold():
    torch.manual_seed(0)
    net, image = unet(outputs=2), torch.randn(2, 1, 16, 16)
    label = (F.avg_pool2d(image, 3, 1, 1)[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(image), label)
        loss.backward()
        optimizer.step()

    assert loss.item() < 0.2 * math.log(2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dimensions": 4}, "2 or 3 dimensions, got 4"),
        ({"widths": (4,)}, "at least 1 on 2 levels"),
        ({"outputs": 0}, "outputs of a U-Net are whole numbers of at least 1, got 0"),
        ({"norm": "instence"}, "instance"),
        ({"upsampling": "cubic"}, "transposed"),
        ({"dropout": 1.0}, "below 1, got 1.0"),
        ({"strides": [2]}, "have 2 entries"),
        ({"strides": [(2, 2, 1), 2]}, "each a positive int or 2, got"),
        ({"kernels": [3, 2, 3]}, "odd"),
    ],
)
def test_an_option_out_of_range_is_named(options, words):
    with pytest.raises(OptionError, match=words):
        unet(**options)


def test_an_image_with_other_channels_or_dimensions_is_refused():
    with pytest.raises(ImageError, match=r"reads \(B, 1, X, Y\), got \(1, 2, 8, 8\)"):
        unet()(torch.randn(1, 2, 8, 8))
    with pytest.raises(ImageError, match="got"):
        unet()(torch.randn(1, 1, 8, 8, 8))


def test_an_image_that_instance_norm_would_erase_is_refused():
    with pytest.raises(ImageError, match="needs more than 4 x 4"):
        unet()(torch.randn(1, 1, 4, 3))
    assert unet()(torch.randn(1, 1, 4, 5)).shape == (1, 3, 4, 5)
    assert unet(norm="none")(torch.randn(1, 1, 4, 3)).shape == (1, 3, 4, 3)
