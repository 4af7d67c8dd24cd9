"""Networks by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shiftproof import nets
from shiftproof.errors import OptionError

SIZES = {"dimensions": 2, "channels": 1, "outputs": 2}


def test_options_reach_the_network():
    net = nets.build("unet", dimensions=3, channels=2, outputs=5, widths=[4, 6], norm="batch")

    assert (net.dimensions, net.channels, net.widths, net.norm) == (3, 2, [4, 6], "batch")


def test_an_unknown_network_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match=r'"unett".*"unet"'):
        nets.build("unett", **SIZES)


def test_an_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match=r'"width".*"widths"'):
        nets.build("unet", **SIZES, width=(4, 8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": "16"}, "widths of unet expects"),
        ({"widths": [16, 2.5]}, "widths of unet expects int"),
        ({"residual": "yes"}, "residual of unet expects bool"),
        ({"dropout": "0.1"}, "dropout of unet expects float"),
        ({"norm": 3}, "value of norm of unet"),
        ({"strides": 2}, 'strides of unet expects a list, one entry a level, or "auto", got 2'),
        ({"kernels": "3"}, "kernels of unet expects a list"),
        ({"strides": ["auto", 2, 2]}, "each a positive int"),
        ({"kernels": [3, 3, 3, 3.0]}, "each a positive int"),
        ({"kernels": [3, 3, 3, True]}, "each a positive int"),
    ],
)
def test_an_option_of_another_kind_is_named(options, words):
    with pytest.raises(OptionError, match=words):
        nets.build("unet", **SIZES, **options)


def test_every_network_serves_tasks_and_every_task_has_a_default_that_serves_it():
    assert nets.KINDS.keys() == nets.NETWORKS.keys()
    for task, name in nets.DEFAULTS.items():
        nets.require_serves(name, task)


def test_a_network_for_another_task_is_answered_with_those_that_serve_it():
    with pytest.raises(OptionError, match=r"unet.*serves segmentation, not regression.*resnet, densenet121"):
        nets.require_serves("unet", "regression")
    with pytest.raises(OptionError, match=r"classification and regression, not segmentation"):
        nets.require_serves("densenet121", "segmentation")


def test_names_can_be_listed_without_torch():
    code = (
        "import sys, shiftproof.nets as nets, shiftproof.losses\n"
        "nets.require_serves('unet', 'segmentation'), nets.planned(2, (64, 64), (1, 1))\n"
        "sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_monai_is_imported_only_when_one_of_its_networks_is_built():
    code = (
        "import sys; from shiftproof import nets; [nets.find(name) for name in nets.NETWORKS]\n"
        "nets.build('resnet', dimensions=2, channels=1, outputs=2)\n"
        "sys.exit('monai' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
