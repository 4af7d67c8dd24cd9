"""What ran: versions for records and reports."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("shiftproof", "torch", "numpy", "SimpleITK", "scipy", "pandas")


def versions() -> dict[str, str]:
    """Python, platform and the packages that results depend on."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
