"""To a Ray cluster and away from it again, and what the cluster has."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import OptionError, RunError
from ..declare import Declaration

REACH_S = 10.0
OBJECTS_B = 200 * 2**20
"""Shared memory of a cluster started for one study: its jobs read and write the folder itself."""


def imported(address: str | None) -> Any:
    """The module, quiet.

    Raises:
        OptionError: If it, or what an address of this kind needs, is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns of its own future defaults; nothing that a user of this program could act on.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    outside = address is not None and address.startswith("ray://")
    token = Path.home() / ".ray" / "auth_token"
    if outside and (token.exists() or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)):
        # From outside of a cluster, Ray does not find out that it asks for the token.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        import ray.exceptions

        if outside:
            import grpc  # noqa: F401
    except ImportError as error:
        what = "grpcio, which ray:// addresses need," if error.name == "grpc" else "ray"
        raise OptionError(
            f"--engine ray needs {what} which is not installed; pip install 'shiftproof[ray]', or use --engine local"
        ) from error
    return ray


@contextlib.contextmanager
def connected(address: str | None, workers: int | None, threads: int) -> Iterator[Any]:
    """The module, connected; what was started for this study is ended with it, other clusters are left running.

    Raises:
        OptionError: If ray is not installed.
        RunError: If there is no cluster at the address.
    """
    ray = imported(address)
    if ray.is_initialized():  # by a program of the caller's own, whose connection this is
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "shiftproof"}
    started: Path | None = None
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            with contextlib.suppress(*UNREACHED):
                ray.init(answering("auto"), **quiet)
        elif address != "none":
            with reached(address):
                ray.init(answering(address), **quiet)
        if not ray.is_initialized():
            cores = os.cpu_count() or 1
            started = Path(tempfile.mkdtemp(prefix="ray-", dir=short_folder()))
            ray.init(
                "local",
                num_cpus=max((workers or 1) * threads, cores if workers is None else 1),
                include_dashboard=False,
                object_store_memory=OBJECTS_B,
                _temp_dir=str(started),
                **quiet,
            )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end this process without a word
        yield ray
    finally:
        ray.shutdown()
        if started is not None:
            shutil.rmtree(started, ignore_errors=True)


START = (
    "start one with `ray start --head`, give the address that it prints (and RAY_AUTH_TOKEN where it asks for one), or "
    "use --address none to start one for this study"
)


UNREACHED = (ConnectionError, ValueError, RuntimeError, OSError)


@contextlib.contextmanager
def reached(address: str | None) -> Iterator[None]:
    """Turns what can go wrong on the way to a cluster into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says follows as an error
            yield
    except UNREACHED as error:
        raise RunError(f"no Ray cluster answers at {address} ({first_line(error)}); {START}") from error


def answering(address: str | None) -> str:
    """The address, looked up where it is "auto", when something listens there: Ray itself would wait for ever.

    Raises:
        OSError: If nothing does.
    """
    if address is None or address == "auto":
        from ray._private.services import get_ray_address_from_environment

        address = get_ray_address_from_environment("auto", None)
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        raise ValueError("expected HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    return address


def short_folder() -> str | None:
    """Where a cluster's sockets go, whose paths may not be longer than some 100 letters."""
    return "/tmp" if len(tempfile.gettempdir()) > 30 and os.path.isdir("/tmp") else None


def resources(ray: Any, study: Declaration, gpu_share: float) -> dict[str, float]:
    """What a job takes of a node.

    Raises:
        RunError: If no node has it.
    """
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    device = study.budget.get("device", "auto")
    gpus = device == "cuda" or (device == "auto" and any(node.get("GPU") for node in alive))
    needs: dict[str, float] = {"num_cpus": study.threads, **({"num_gpus": gpu_share} if gpus else {})}
    if not any(
        node.get("CPU", 0) >= study.threads and node.get("GPU", 0) >= needs.get("num_gpus", 0) for node in alive
    ):
        largest = max((int(node.get("CPU", 0)) for node in alive), default=0)
        what = f"{study.threads} CPUs" + (f" and {gpu_share:g} GPU" if gpus else "")
        raise RunError(
            f"a training takes {what}, and no node of the cluster has that (most CPUs: {largest}, "
            f"GPUs: {sum(int(node.get('GPU', 0)) for node in alive)}); use fewer --threads, --device cpu, or add nodes"
        )
    return needs


def slots(ray: Any, needs: dict[str, float]) -> int:
    """Jobs that fit on the cluster at a time, at least 1."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    found = 0
    for node in ray.nodes():
        if node["Alive"]:
            found += min(int(node["Resources"].get(names[k], 0) / amount) for k, amount in needs.items())
    return max(1, found)


def nodes(ray: Any) -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def first_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
