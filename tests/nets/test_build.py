"""Networks by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shiftproof import nets
from shiftproof.errors import OptionError


def test_options_reach_the_network():
    net = nets.build("unet", dimensions=3, channels=2, outputs=5, widths=[4, 6], norm="batch")

    assert (net.dimensions, net.channels, net.widths, net.norm) == (3, 2, [4, 6], "batch")


def test_an_unknown_network_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match=r'"unett".*"unet"'):
        nets.build("unett", dimensions=2, channels=1, outputs=2)


def test_an_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match=r'"width".*"widths"'):
        nets.build("unet", dimensions=2, channels=1, outputs=2, width=(4, 8))


def test_names_can_be_listed_without_torch():
    code = "import sys, shiftproof.nets, shiftproof.losses; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
