"""The residual network, against MONAI's and by counting."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from shiftproof import nets
from shiftproof.errors import ImageError, OptionError

TINY = {"channels": 1, "outputs": 3, "width": 0.0625}


def resnet(dimensions=2, **options):
    torch.manual_seed(0)
    return nets.build("resnet", dimensions=dimensions, **{**TINY, **options})


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_imagenet_networks_have_their_published_size(depth, parameters):
    with torch.device("meta"):
        net = nets.build("resnet", dimensions=2, channels=3, outputs=1000, depth=depth)

    assert count(net) == parameters


def test_size_in_3d_is_the_sum_over_its_layers():
    widths = (64, 128, 256, 512)
    expected = 7**3 * 2 * 64 + 2 * 64 + 512 * 5 + 5  # stem with its norm, linear layer
    for level, width in enumerate(widths):
        inputs = widths[max(level - 1, 0)]
        expected += 27 * (inputs * width + 3 * width * width) + 4 * 2 * width  # two blocks of two convolutions
        expected += (inputs * width + 2 * width) if level else 0  # shortcut

    with torch.device("meta"):
        net = nets.build("resnet", dimensions=3, channels=2, outputs=5)

    assert count(net) == expected


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_result_is_that_of_monai_with_the_same_weights(dimensions, depth, tmp_path):
    from monai.networks.nets import resnet as monai

    torch.manual_seed(1)
    block, layers = (monai.ResNetBlock, [2, 2, 2, 2]) if depth == 18 else (monai.ResNetBottleneck, [3, 4, 6, 3])
    theirs = monai.ResNet(
        block,
        layers,
        [4, 8, 16, 32],
        spatial_dims=dimensions,
        n_input_channels=2,
        conv1_t_stride=2,
        num_classes=3,
        shortcut_type="B",
        bias_downsample=False,
    )
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.weight)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    ours = resnet(dimensions, depth=depth, channels=2)
    image = torch.randn(2, 2, *(37, 64, 33)[:dimensions])

    assert nets.load_weights(ours, tmp_path / "theirs.pt", strict="all").unused == ()

    torch.testing.assert_close(ours.eval()(image), theirs.eval()(image))


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 34, "norm": "instance"},
        {"depth": 50, "norm": "group", "stem": "small"},
        {"norm": "none", "dropout": 0.3, "zero_init": True},
        {"dimensions": 3, "strides": [(2, 2, 1), (2, 2, 1), 2, 2, (1, 2, 1)]},
    ],
)
def test_maps_have_the_stated_widths_and_forward_is_decode_of_encode(options):
    net = resnet(**options).eval()
    image = torch.randn(3, 1, *(70, 41, 9)[: net.dimensions])

    maps = net.encode(image)

    assert [m.shape[1] for m in maps] == net.widths
    assert all(fine.shape[2:] >= coarse.shape[2:] for fine, coarse in itertools.pairwise(maps))
    assert net(image).shape == (3, 3)
    torch.testing.assert_close(net.decode([m[:2] for m in maps]), net(image)[:2])


def test_small_stem_keeps_the_size_and_the_other_one_quarters_it():
    image = torch.randn(2, 1, 28, 30)

    assert resnet(stem="small").encode(image)[0].shape[2:] == (28, 30)
    assert resnet(stem="imagenet").encode(image)[0].shape[2:] == (7, 8)


def test_prediction_is_linear_in_the_mean_over_space():
    net = resnet(stem="small")
    last = net.encode(torch.randn(2, 1, 16, 24))[-1]

    expected = last.mean((2, 3)) @ net.decoder.fc.weight.T + net.decoder.fc.bias

    torch.testing.assert_close(net.decode([last]), expected)


def test_blocks_begin_as_their_shortcut_with_zero_init():
    for norm in ("batch", "none"):
        block = resnet(norm=norm, zero_init=True).encoder.layer1[1].eval()
        features = torch.randn(1, 4, 6, 6)

        torch.testing.assert_close(block(features), features.relu())


def test_width_is_a_factor_and_he_variance_counts_outputs():
    net = resnet(width=2.0)
    kernel = net.encoder.layer3[0].conv1.weight  # 256 to 512 channels

    assert net.widths == [128, 256, 512, 1024]
    assert kernel.var().item() == pytest.approx(2 / (9 * 512), rel=0.02)


def test_between_stands_in_for_a_map():
    net, image, seen = resnet(stem="small").eval(), torch.randn(2, 1, 16, 16), []

    def between(level, features):
        seen.append(level)
        return torch.zeros_like(features) if level == 1 else features

    maps = net.encode(image, between=between)

    assert seen == [0, 1, 2, 3]
    torch.testing.assert_close(maps[2], net.encoder.layer3(torch.zeros_like(maps[1])))


def test_halves_are_all_of_the_network():
    net = resnet(depth=50)
    halves = [id(p) for half in (net.encoder, net.decoder) for p in half.parameters()]

    assert sorted(halves) == sorted(id(p) for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 20}, "18, 34, 50"),
        ({"width": 0.0}, "factor of 64"),
        ({"stem": "imagnet"}, "imagenet"),
        ({"strides": [2, 2, 2]}, "5 entries"),
        ({"norm": "layer"}, "norm"),
        ({"dropout": 1.5}, "below 1"),
        ({"depth": "18"}, "depth of resnet expects int"),
        ({"zero_init": 1}, "expects bool"),
    ],
)
def test_an_option_out_of_range_is_named(options, words):
    with pytest.raises(OptionError, match=words):
        resnet(**options)


def test_one_image_that_batch_norm_would_erase_is_refused_in_training_only():
    net, image = resnet(), torch.randn(1, 1, 32, 20)

    with pytest.raises(ImageError, match="more than 32 x 32"):
        net(image)
    assert net.eval()(image).shape == (1, 3)


def test_dropout_acts_in_training_only():
    net, image = resnet(dropout=0.9, norm="instance"), torch.randn(2, 1, 64, 64)

    assert not torch.equal(net.train()(image), net(image))
    assert torch.equal(net.eval()(image), net(image))
