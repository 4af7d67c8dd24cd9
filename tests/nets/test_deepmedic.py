"""DeepMedic against explicit crops, lattices and counts by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shiftproof import nets
from shiftproof.errors import ImageError, OptionError

FEATURES = (3, 3, 4, 4, 4, 4, 5, 5)
SIZES = {"channels": 1, "outputs": 2}


def build(dimensions=2, **options):
    torch.manual_seed(0)
    sizes = {**SIZES, **{k: options.pop(k) for k in ("channels", "outputs") if k in options}}
    return nets.build("deepmedic", dimensions=dimensions, **sizes, **{"features": FEATURES, "hidden": 6, **options})


def stirred(net):
    """Norms that change what they read, so that leaving one out would show."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.05, 0.4)
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.bias is not None:
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return net.eval()


# Counts and sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "features", "hidden", "slopes", "millions"),
    [
        ("default", (30, 30, 40, 40, 40, 40, 50, 50), 250, 1, 2.013),
        ("reduced", (15, 15, 20, 20, 25, 25, 30, 30), 150, 1, 0.69),
        ("basic", (30, 30, 40, 40, 40, 40, 50, 50), 250, 0, 2.01),
    ],
)
def test_parameters_are_as_many_as_published(variant, features, hidden, slopes, millions):
    with torch.device("meta"):
        net = nets.build("deepmedic", dimensions=3, channels=4, outputs=2, variant=variant)

    inputs = (4, *features[:-1])
    pathway = sum(27 * i * o for i, o in zip(inputs, features, strict=True)) + (2 + slopes) * sum(inputs[1:])
    joined = 3 * features[-1]
    last = 27 * joined * hidden + hidden * hidden + 2 * hidden + 2 + (2 + slopes) * (joined + 2 * hidden)
    found = sum(p.numel() for p in net.parameters())

    assert found == 3 * pathway + last
    assert found / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("scored", "read"), [(21, (37, 23, 21)), (29, (45, 26, 22)), (1, (17, 17, 17)), (22, (38, 24, 21))]
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_pathways_read_segments_of_the_published_sizes(scored, read, dimensions):
    net = build(dimensions, features=(2, 2, 2, 2, 2, 2, 2, 2), hidden=2).eval()
    image = torch.zeros(1, 1, *(scored + 80,) * dimensions)

    assert tuple(net.encoder.seen(image, f).shape[2] for f in (1, 3, 5)) == read
    assert [m.shape[2] for m in net.encode(image)] == [scored, -(-scored // 3), -(-scored // 5)]
    assert net(image).shape == (1, 2, *(scored,) * dimensions)


def test_axes_may_differ_in_size():
    assert build(3).eval()(torch.randn(2, 1, 83, 85, 89)).shape == (2, 2, 3, 5, 9)


# Where a voxel of the scores looks -------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 3, 5])
def test_a_pathway_starts_where_the_published_program_starts(factor):
    """At corner + f // 2 - (f - 1) / 2 * 17, the corner being that of the segment at full resolution."""
    image = torch.arange(40 + 13 + 40.0).reshape(1, 1, -1, 1).expand(1, 1, 93, 93)

    rows = build().encoder.seen(image, factor)[0, 0, :, 0]

    corner = 40 - 8
    start = corner + factor // 2 - (factor - 1) // 2 * 17
    assert rows.tolist() == [start + factor * k for k in range(-(-13 // factor) + 16)]


@pytest.mark.parametrize("factors", [(), (3,), (3, 5)])
def test_the_gradient_of_a_score_is_the_receptive_field(factors):
    net = build(factors=factors).double().eval()
    reach = 8 * max(factors, default=1)
    image = torch.randn(1, 1, 2 * reach + 1, 2 * reach + 1, dtype=torch.double, requires_grad=True)

    net(image)[0, 1, 0, 0].backward()

    expected = np.zeros((2 * reach + 1,) * 2, bool)
    for f in (1, *factors):
        places = reach + f * np.arange(-8, 9)
        expected[np.ix_(places, places)] = True
    np.testing.assert_array_equal(image.grad[0, 0].numpy() != 0, expected)
    assert np.ptp(np.flatnonzero(expected.any(1))) + 1 == 16 * max(factors, default=1) + 1


def test_the_gradient_in_3d_reaches_as_far_along_each_axis():
    net = build(3, factors=(3,)).eval()
    image = torch.randn(1, 1, 49, 50, 51, requires_grad=True)

    net(image)[0, 0, 0, 1, 2].backward()

    for axis, scored in enumerate((0, 1, 2)):
        others = tuple(a for a in range(3) if a != axis)
        places = np.flatnonzero((image.grad[0, 0].numpy() != 0).any(others))
        # Along an axis of more than one voxel, the hidden layer also looks at the neighbours; at low resolution all
        # three of them are the first voxel.
        fine = range(max(scored - 1, 0), min(scored + 1, axis) + 1)
        expected = {24 + x + k for x in fine for k in range(-8, 9)} | {24 + 3 * k for k in range(-8, 9)}
        assert set(places) == expected


# The whole network, voxel by voxel -------------------------------------------------------------------------


def layer_by_hand(layer, x):
    """Norm, activation and convolution of one layer in NumPy, (C, n, n) in, valid."""
    *before, conv = layer
    for module in before:
        if isinstance(module, nn.BatchNorm2d):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            shift = module.bias - module.running_mean * scale
            x = x * scale.detach().numpy()[:, None, None] + shift.detach().numpy()[:, None, None]
        elif isinstance(module, nn.PReLU):
            x = np.where(x > 0, x, x * module.weight.detach().numpy()[:, None, None])
        elif isinstance(module, nn.ReLU):
            x = np.maximum(x, 0)
    weight = conv.weight.detach().numpy()
    k = weight.shape[-1]
    n = x.shape[1] - k + 1, x.shape[2] - k + 1
    out = np.zeros((weight.shape[0], *n))
    for i, j in itertools.product(range(k), range(k)):
        out += np.einsum("oc,cxy->oxy", weight[:, :, i, j], x[:, i : i + n[0], j : j + n[1]])
    return out if conv.bias is None else out + conv.bias.detach().numpy()[:, None, None]


def added(x, to):
    """With zeros for the channels that are missing."""
    total = to.copy()
    total[: len(x)] += x
    return total


def pathway_by_hand(pathway, x, residual):
    outs = [x]
    for number, layer in enumerate(pathway.layers, start=1):
        y = layer_by_hand(layer, outs[-1])
        if residual and number in (4, 6, 8):
            y = added(outs[number - 2][:, 2:-2, 2:-2], y)
        outs.append(y)
    return outs[-1][:, 0, 0]


@pytest.mark.parametrize("options", [{}, {"variant": "basic"}, {"factors": (3,), "residual": False}])
def test_scores_are_those_of_crops_taken_voxel_by_voxel(options):
    """Each pathway on its own 17 x 17 voxels for each voxel that is scored: no sharing, repeating or cutting."""
    net = stirred(build(channels=2, outputs=3, **options).double())
    residual = not options
    factors = (1, *options.get("factors", (3, 5)))
    scored, reach = (7, 4), 8 * factors[-1]
    image = torch.randn(1, 2, *(n + 2 * reach for n in scored), dtype=torch.double)

    joined = np.zeros((5 * len(factors), *scored))
    for x, y in itertools.product(*map(range, scored)):
        for number, (f, pathway) in enumerate(zip(factors, net.encoder.pathways, strict=True)):
            # The first of the f voxels that share a voxel of the low resolution is in the middle.
            middle = [reach + f * (p // f) for p in (x, y)]
            places = [m + f * np.arange(-8, 9) for m in middle]
            crop = image[0].numpy()[:, places[0]][:, :, places[1]]
            joined[5 * number : 5 * number + 5, x, y] = pathway_by_hand(pathway, crop, residual)
    wide = np.pad(joined, [(0, 0), (1, 1), (1, 1)], mode="symmetric")
    hidden = layer_by_hand(net.decoder.second, layer_by_hand(net.decoder.first, wide))
    if residual:
        # Fifteen channels meet six: in this narrow network the concatenation is the wider one.
        hidden = hidden + joined[: len(hidden)]
    expected = layer_by_hand(net.decoder.classifier, hidden)

    with torch.no_grad():
        np.testing.assert_allclose(net(image)[0].numpy(), expected, atol=1e-10)


def test_the_second_hidden_layer_adds_the_joined_maps_with_zeros_for_what_they_lack():
    net = stirred(build(hidden=20).double())
    maps = [torch.randn(1, 5, n, n, dtype=torch.double) for n in (6, 2, 2)]
    joined = np.concatenate([maps[0][0].numpy(), *(np.kron(m[0].numpy(), np.ones((1, f, f)))[:, :6, :6]
                                                   for m, f in zip(maps[1:], (3, 5), strict=True))])  # fmt: skip

    wide = np.pad(joined, [(0, 0), (1, 1), (1, 1)], mode="edge")
    hidden = added(joined, layer_by_hand(net.decoder.second, layer_by_hand(net.decoder.first, wide)))

    with torch.no_grad():
        found = net.decode(maps)[0].numpy()
    np.testing.assert_allclose(found, layer_by_hand(net.decoder.classifier, hidden), atol=1e-10)


def test_a_larger_patch_at_prediction_gives_the_scores_of_a_smaller_one():
    """45 voxels give 29, 37 give 21; where both begin a multiple of 15 apart, they agree, but for the last ones."""
    net = stirred(build())
    image = torch.randn(1, 1, 29 + 80, 29 + 80)

    with torch.no_grad():
        large = net(image)
        corner = net(image[:, :, : 21 + 80, : 21 + 80])
        shifted = net(image[:, :, 15:, 15:])

    torch.testing.assert_close(large[:, :, :20, :20], corner[:, :, :20, :20])
    torch.testing.assert_close(large[:, :, 16:, 16:], shifted[:, :, 1:, 1:])
    # One voxel of the border's neighbours is missing where an image ends.
    assert not torch.allclose(large[:, :, 20, :20], corner[:, :, 20, :20])


def test_at_full_resolution_alone_scores_do_not_depend_on_where_an_image_begins():
    net = stirred(build(factors=()))
    image = torch.randn(1, 1, 29 + 16, 29 + 16)

    with torch.no_grad():
        large, middle = net(image), net(image[:, :, 4:-4, 4:-4])

    torch.testing.assert_close(large[:, :, 5:-5, 5:-5], middle[:, :, 1:-1, 1:-1])


# Layers ----------------------------------------------------------------------------------------------------


def test_layers_are_norm_activation_dropout_convolution_and_the_first_reads_the_image():
    net = build(3)

    for pathway in net.encoder.pathways:
        first, *others = pathway.layers
        assert [type(m) for m in first] == [nn.Conv3d]
        for layer in others:
            assert [type(m) for m in layer] == [nn.BatchNorm3d, nn.PReLU, nn.Dropout, nn.Conv3d]
    rates = [[m.p for m in layer if isinstance(m, nn.Dropout)] for layer in net.decoder.children()]
    assert rates == [[0.0], [0.5], [0.5]]
    biases = [m.bias is not None for m in net.modules() if isinstance(m, nn.Conv3d)]
    assert biases == [False] * (len(biases) - 1) + [True]


def test_the_basic_variant_has_no_slopes_residuals_or_dropout():
    net = build(variant="basic")
    image = torch.randn(2, 1, 83, 83)

    assert not any(isinstance(m, nn.PReLU) for m in net.modules())
    assert all(m.p == 0 for m in net.modules() if isinstance(m, nn.Dropout))
    torch.testing.assert_close(net.train()(image), net(image), rtol=0, atol=0)
    assert not torch.equal(build().train()(image), build(dropout=0.0).train()(image))
    for module in net.modules():  # without residuals, nothing gets past a convolution of zeros
        if isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.zeros_(module.weight)
    assert net.eval()(image).std(dim=(2, 3)).abs().max() == 0


def test_weights_start_as_he_draws_them():
    net = build(features=(30,) * 8, hidden=60)

    for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 2000):
        inputs = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.1)


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
def test_other_norms_stand_in_for_batch_norm(norm):
    net = build(norm=norm)

    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert (net.encoder.pathways[0].layers[1][-1].bias is None) == (norm != "none")
    assert net(torch.randn(1, 1, 83, 84)).isfinite().all()


# Doors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3])
def test_maps_are_the_last_of_each_pathway_full_resolution_first(dimensions):
    net = build(dimensions).eval()
    image = torch.randn(2, 1, *(86, 90, 87)[:dimensions])

    maps = net.encode(image)

    assert [m.shape[1] for m in maps] == net.widths == [5, 5, 5]
    assert [tuple(m.shape[2:4]) for m in maps] == [(6, 10), (2, 4), (2, 2)]
    torch.testing.assert_close(net.decode([m[:1] for m in maps]), net(image)[:1])
    halves = [id(p) for half in (net.encoder, net.decoder) for p in half.parameters()]
    assert sorted(halves) == sorted(id(p) for p in net.parameters())


def test_between_stands_in_for_a_map_of_one_pathway():
    net, image = build().eval(), torch.randn(2, 1, 86, 90)
    seen = []

    def between(level, features):
        seen.append(level)
        return torch.ones_like(features) if level == 1 else features

    maps, plain = net.encode(image, between=between), net.encode(image)

    assert seen == [0, 1, 2]
    assert torch.equal(maps[1], torch.ones_like(maps[1]))
    assert torch.equal(maps[0], plain[0])
    assert torch.equal(maps[2], plain[2])
    assert not torch.allclose(net.decode(maps), net(image))


def test_several_inputs_are_joined_along_their_channels():
    net, image = build(channels=3).eval(), torch.randn(1, 3, 83, 82)

    assert torch.equal(net(image[:, :1], image[:, 1:]), net(image))


def test_a_virtual_step_can_be_differentiated():
    net, image = build().double().eval(), torch.randn(1, 1, 83, 83, dtype=torch.double)
    start = {n: (p.detach() + 0.05 * torch.randn_like(p)).requires_grad_() for n, p in net.named_parameters()}

    def loss(weights):
        return torch.func.functional_call(net, weights, (image,)).square().mean()

    def after_a_step(weights, create_graph):
        slopes = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=create_graph)
        return loss({n: w - 0.01 * s for (n, w), s in zip(weights.items(), slopes, strict=True)})

    direction = {n: torch.randn_like(p) for n, p in start.items()}
    slopes = torch.autograd.grad(after_a_step(start, True), list(start.values()))
    exact = sum((s * d).sum() for s, d in zip(slopes, direction.values(), strict=True)).item()
    sides = [
        after_a_step({n: (w + h * direction[n]).detach().requires_grad_() for n, w in start.items()}, False)
        for h in (1e-7, -1e-7)
    ]
    assert exact == pytest.approx(((sides[0] - sides[1]) / 2e-7).item(), rel=2e-3)


def test_bf16_scores_are_near_those_of_full_precision():
    net, image = stirred(build(features=(8,) * 8, hidden=12)), torch.randn(2, 1, 91, 91)

    with torch.no_grad():
        plain = net(image)
        with torch.autocast("cpu", torch.bfloat16):
            low = net(image)

    assert low.dtype == torch.bfloat16
    assert (low.float() - plain).abs().max() < 0.05 * plain.std() + 0.05 * plain.abs().max()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_scores_other_images_of_its_size_alike():
    net = stirred(build())
    traced = torch.jit.trace(net, torch.randn(1, 1, 91, 87))
    image = torch.randn(3, 1, 91, 87)

    with torch.no_grad():
        torch.testing.assert_close(traced(image), net(image))


# Margins and what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"), [({}, 40), ({"factors": [3]}, 24), ({"factors": []}, 8), ({"features": [4] * 6}, 30)]
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_margin_is_known_before_a_network_is_built(options, expected, dimensions):
    assert nets.margin("deepmedic", dimensions=dimensions, **options) == (expected,) * dimensions
    with torch.device("meta"):
        built = nets.build("deepmedic", dimensions=dimensions, **SIZES, **options)
    assert nets.margin_of(built) == (expected,) * dimensions


@pytest.mark.parametrize("name", [n for n in nets.NETWORKS if n != "deepmedic"])
def test_other_networks_have_no_margin(name):
    assert nets.margin(name, dimensions=3, weights="file", patch=(32, 32, 32)) == (0, 0, 0)
    with torch.device("meta"):
        built = nets.build(name, dimensions=3, **SIZES, patch=(64, 64, 64))
    assert nets.margin_of(built) == ()


def test_a_margin_of_an_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match=r'"factor".*"factors"'):
        nets.margin("deepmedic", dimensions=3, factor=(3,))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"factors": [2]}, r"odd numbers of at least 3 .*got \[2\]"),
        ({"factors": [3, 1]}, "odd numbers"),
        ({"factors": 3}, "factors of deepmedic expects"),
        ({"variant": "small"}, '"small"'),
        ({"features": []}, "at least 1"),
        ({"hidden": 0}, "at least 1"),
        ({"dropout": 1.0}, "below 1"),
        ({"activation": "elu"}, '"elu"'),
        ({"residual": "yes"}, "residual of deepmedic expects bool"),
    ],
)
def test_an_option_out_of_range_is_named(options, words):
    with pytest.raises(OptionError, match=words):
        build(**options)


def test_four_dimensions_are_refused():
    with pytest.raises(OptionError, match="2 or 3 dimensions, got 4"):
        build(4)


def test_an_image_of_nothing_but_margin_is_refused():
    with pytest.raises(ImageError, match="image of 80 x 99 voxels leaves nothing.*40 x 40.*at least 81 x 81"):
        build()(torch.randn(1, 1, 80, 99))


def test_an_image_of_other_channels_or_dimensions_is_refused():
    for shape in ((1, 2, 90, 90), (1, 1, 90, 90, 90)):
        with pytest.raises(ImageError, match=r"reads \(B, 1, X, Y\)"):
            build()(torch.randn(shape))


def test_a_single_voxel_leaves_norms_nothing_in_training():
    net, image = build(), torch.randn(1, 1, 81, 81)

    with pytest.raises(ImageError, match="batch norm leaves nothing"):
        net.train()(image)
    assert net(image.expand(2, -1, -1, -1)).shape == (2, 2, 1, 1)
    assert net.eval()(image).shape == (1, 2, 1, 1)
    with pytest.raises(ImageError, match="instance norm"):
        build(norm="instance")(image)


# Learning --------------------------------------------------------------------------------------------------


def test_it_learns_to_find_what_only_a_low_resolution_sees():
    """A voxel is of class 1 where a bright square lies 16 voxels before it: beyond the reach of full resolution."""

    def batch(seed):
        random = torch.Generator().manual_seed(seed)
        image = 0.1 * torch.randn(6, 1, 63, 63, generator=random)
        label = torch.zeros(6, 15, 15, dtype=torch.long)
        for i in range(6):
            x, y = torch.randint(0, 9, (2,), generator=random).tolist()
            image[i, 0, 24 + x - 16 : 24 + x - 10, 24 + y : 24 + y + 6] += 2
            label[i, x : x + 6, y : y + 6] = 1
        return image, label

    def trained(factors):
        torch.manual_seed(0)
        net = nets.build("deepmedic", dimensions=2, **SIZES, features=(6,) * 8, hidden=16, factors=factors)
        optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
        crop = 0 if factors else 16
        for step in range(60):
            image, label = batch(step)
            image = image[..., crop : 63 - crop, crop : 63 - crop]
            loss = F.cross_entropy(net.train()(image), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        image, label = batch(1000)
        with torch.no_grad():
            found = net.eval()(image[..., crop : 63 - crop, crop : 63 - crop]).argmax(1)
        return (2 * (found * label).sum() / (found.sum() + label.sum())).item()

    assert trained((3,)) > 0.7
    assert trained(()) < 0.5
