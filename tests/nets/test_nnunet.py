"""nnU-Net's U-Net: its sizes, and its weights in ours. The networks of both versions are written down here anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shiftproof import nets
from shiftproof.errors import OptionError
from shiftproof.nets.unet import UNet

WIDTHS, STRIDES = (4, 6, 8), ((2, 2), (2, 1))


class Block(nn.Module):
    """Convolution, instance norm and leaky ReLU under their names."""

    def __init__(self, inputs, width, stride, norm):
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, stride, 1, bias=True)
        setattr(self, norm, nn.InstanceNorm2d(width, affine=True))
        self.after = nn.LeakyReLU(0.01)
        self.norm_name = norm

    def forward(self, features):
        return self.after(getattr(self, self.norm_name)(self.conv(features)))


class Blocks(nn.Module):
    def __init__(self, inputs, width, number, stride, word, norm):
        super().__init__()
        strides = [stride, *[1] * (number - 1)]
        many = [Block(inputs if i == 0 else width, width, s, norm) for i, s in enumerate(strides)]
        setattr(self, word, nn.Sequential(*many))
        self.word = word

    def forward(self, features):
        return getattr(self, self.word)(features)


class Generic(nn.Module):
    """Version 1's names: blocks, blocks apart at the bottom and on the way up, no bias going up nor in the heads."""

    def __init__(self, channels, outputs):
        super().__init__()

        def blocks(i, o, number, stride=1):
            return Blocks(i, o, number, stride, "blocks", "instnorm")

        a, b, c = WIDTHS
        bottom = nn.Sequential(blocks(b, c, 1, STRIDES[1]), blocks(c, c, 1))
        self.conv_blocks_context = nn.ModuleList([blocks(channels, a, 2), blocks(a, b, 2, STRIDES[0]), bottom])
        self.conv_blocks_localization = nn.ModuleList(
            nn.Sequential(blocks(2 * w, w, 1), blocks(w, w, 1)) for w in (b, a)
        )
        self.tu = nn.ModuleList(
            nn.ConvTranspose2d(i, o, s, s, bias=False) for i, o, s in ((c, b, STRIDES[1]), (b, a, STRIDES[0]))
        )
        self.seg_outputs = nn.ModuleList(nn.Conv2d(w, outputs, 1, bias=False) for w in (b, a))

    def forward(self, image):
        return _forward(image, self.conv_blocks_context, self.tu, self.conv_blocks_localization, self.seg_outputs)


class Plain(nn.Module):
    """Version 2's names, its tensors that are listed twice among them; biases everywhere."""

    def __init__(self, channels, outputs):
        super().__init__()

        def blocks(i, o, stride=1):
            return Blocks(i, o, 2, stride, "convs", "norm")

        a, b, c = WIDTHS
        self.encoder, self.decoder = nn.Module(), nn.Module()
        steps = ((channels, a, 1), (a, b, STRIDES[0]), (b, c, STRIDES[1]))
        self.encoder.stages = nn.Sequential(*(nn.Sequential(blocks(*step)) for step in steps))
        self.decoder.encoder = self.encoder
        self.decoder.stages = nn.ModuleList(blocks(2 * w, w) for w in (b, a))
        self.decoder.transpconvs = nn.ModuleList(
            nn.ConvTranspose2d(i, o, s, s) for i, o, s in ((c, b, STRIDES[1]), (b, a, STRIDES[0]))
        )
        self.decoder.seg_layers = nn.ModuleList(nn.Conv2d(w, outputs, 1) for w in (b, a))

    def forward(self, image):
        parts = (self.encoder.stages, self.decoder.transpconvs, self.decoder.stages, self.decoder.seg_layers)
        return _forward(image, *parts)


def _forward(image, down, rise, up, heads):
    skips = []
    for stage in down:
        image = stage(image)
        skips.append(image)
    for transposed, stage, skip in zip(rise, up, skips[-2::-1], strict=True):
        image = stage(torch.cat([transposed(image), skip], 1))
    return heads[-1](image)


def randomised(network):
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network.eval()


@pytest.mark.parametrize(("theirs", "bias"), [(Generic, False), (Generic, True), (Plain, True)])
@pytest.mark.parametrize("around", ["plain", "network_weights", "state_dict", "module."])
def test_checkpoints_give_the_scores_of_the_network_they_come_from(theirs, bias, around, tmp_path):
    network = randomised(theirs(2, 3))
    state = network.state_dict()
    if around == "module.":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(state if around in ("plain", "module.") else {around: state, "epoch": 3}, tmp_path / "w.pth")
    ours = UNet(
        dimensions=2, channels=2, outputs=3, widths=WIDTHS, strides=STRIDES, deep_supervision=True, bias=bias
    ).eval()
    loaded = nets.load_weights(ours, tmp_path / "w.pth", strict="all")
    image = torch.randn(2, 2, 16, 12)
    torch.testing.assert_close(ours(image), network(image), atol=1e-5, rtol=1e-4)
    # Biases that a norm removes have no place where there are none.
    assert bool(loaded.unused) == (not bias)
    assert not any("decoder.encoder" in name for name in loaded.unused)


def test_the_three_dimensional_sizes_of_the_first_version():
    counts = {}
    for base, levels in ((30, 5), (10, 5), (8, 4)):
        net = UNet(dimensions=3, channels=1, outputs=3, base=base, levels=levels, deep_supervision=True)
        counts[base] = sum(p.numel() for p in net.parameters()) / 1e6
    assert counts[30] == pytest.approx(15.05, abs=0.02)
    assert counts[10] == pytest.approx(2.21, abs=0.02)
    assert counts[8] == pytest.approx(0.35, abs=0.01)


def test_a_base_doubles_up_to_the_widest_level():
    assert UNet(dimensions=3, channels=1, outputs=2, base=4, levels=4, widest=10).widths == [4, 8, 10, 10]
    assert UNet(dimensions=2, channels=1, outputs=2, base=4, levels=2).widths == [4, 8]


def test_a_plan_gives_a_base_its_levels():
    found = nets.build(
        "unet", dimensions=3, channels=1, outputs=2, base=2, patch=(32, 32, 8), spacing_mm=(1.0, 1.0, 1.0)
    )
    # 32 is halved to 16, 8 and 4; 8 to 4 once.
    assert found.widths == [2, 4, 8, 16]
    fixed = nets.build(
        "unet", dimensions=3, channels=1, outputs=2, base=2, levels=2, patch=(32, 32, 8), spacing_mm=(1.0, 1.0, 1.0)
    )
    assert fixed.widths == [2, 4]


def test_bad_sizes_are_told_in_one_line():
    for options, words in (
        ({"base": 4}, "needs its number of levels"),
        ({"base": 4, "levels": 2, "widths": [4, 8]}, "widths or a base, not both"),
        ({"levels": 2}, "belong to base"),
        ({"base": 0, "levels": 2}, "at least 1"),
    ):
        with pytest.raises(OptionError, match=words):
            UNet(dimensions=2, channels=1, outputs=2, **options)
