"""Ray itself: started on this machine, or joined where it runs. ``import ray`` happens here, and only when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mrbench.errors import UserError

TEMPORARY, OWNER = "mrbench-ray-", "owner.lock"
INSTALL = "pip install 'mrbench[ray]'"
LOCAL, AUTO, CLIENT = "local", "auto", "ray://"
STORE_BYTES = 100 << 20  # of Ray's object store when it is started here: only small records pass through it
PATIENCE = 5.0  # seconds until an address counts as unreachable
LONGEST_TEMPORARY = 30  # characters: Ray's sockets lie deep below its folder, and their paths may have 107
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without GPUs: as it will be; Ray warns of the change
    "RAY_worker_niceness": "0",  # Ray would run workers with less priority than other programs, and times would be longer
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class RayOptions:
    """``--address``, ``--workers`` and ``--gpus-per-worker``; ``None``: decided when the cluster is known.

    device : ``auto``, ``cpu`` or ``cuda``, of the workers.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    device: str = "auto"

    def check(self) -> None:
        """Refuse what cannot be meant (``UserError``)."""
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: expected a number of workers, 1 or more.")
        if self.gpus_per_worker is not None and not self.gpus_per_worker > 0:
            raise UserError(f"--gpus-per-worker {self.gpus_per_worker:g}: expected a share above 0, such as 1 or 0.5.")
        if self.gpus_per_worker is not None and self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise UserError(f"--gpus-per-worker {self.gpus_per_worker:g}: above 1, Ray takes whole GPUs only.")
        if self.gpus_per_worker is not None and self.device == "cpu":
            raise UserError("--gpus-per-worker and --device cpu exclude each other.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"--device {self.device}: with --engine ray, Ray deals out the devices. Use auto, cpu or cuda.")
        if self.address is not None and self.address not in (LOCAL, AUTO):
            _split(self.address)


@dataclass(frozen=True)
class Shares:
    """What was decided: the workers' device, their number, and the resources of each."""

    device: str
    workers: int
    cpus: int
    gpus: float
    notes: tuple[str, ...] = ()


def import_ray() -> Any:
    """The module ``ray``; it sends no usage statistics.

    Raises
    ------
    UserError : it is not installed (with the command that installs it).
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(f"--engine ray needs Ray, which is not installed ({error}): {INSTALL}") from None


@contextlib.contextmanager
def connected(options: RayOptions, threads: int) -> Iterator[tuple[Any, Shares]]:
    """Start or join Ray for the length of a ``with`` block; gives the module and the workers' shares.

    Started here: no dashboard, temporary files in a folder of their own that goes with it. A cluster that was joined stays.

    Parameters
    ----------
    threads : CPU threads of each worker.

    Raises
    ------
    UserError : no Ray, nothing at the address, or resources that no machine there has.
    """
    options.check()
    ray = import_ray()
    own = not ray.is_initialized()
    temporary: tuple[Path, FileLock] | None = None
    try:
        if own:
            temporary = _start(ray, options, threads)
        yield ray, _shares(ray, options, threads)
    finally:
        if own:
            ray.shutdown()
        if temporary is not None:
            temporary[1].release()
            shutil.rmtree(temporary[0], ignore_errors=True)


def _start(ray: Any, options: RayOptions, threads: int) -> tuple[Path, FileLock] | None:
    address = options.address or os.environ.get("RAY_ADDRESS") or LOCAL
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != LOCAL:
        _join(ray, address, common)
        _hush()
        return None
    temporary = _temporary()
    workers = options.workers or 1
    try:
        ray.init(
            address=LOCAL,
            num_cpus=max(workers * threads, os.cpu_count() or 1),
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _temp_dir=str(temporary[0]),
            **common,
        )
    except BaseException:
        temporary[1].release()
        shutil.rmtree(temporary[0], ignore_errors=True)
        raise
    _hush()
    return temporary


def _join(ray: Any, address: str, common: dict[str, Any]) -> None:
    how = "Start one with `ray start --head`, name another --address, or leave it out to start Ray on this machine."
    if address != AUTO:
        host, port = _split(address)
        try:
            socket.create_connection((host, port), PATIENCE).close()
        except OSError as error:
            raise UserError(f"--address {address}: nothing answers at {host}:{port} ({error}). {how}") from None
    try:
        ray.init(address=address, **common)
    except Exception as error:  # connection, authentication, versions: each with an error of its own
        reason = str(error).strip().splitlines()
        raise UserError(
            f"--address {address}: no Ray cluster can be joined ({reason[0] if reason else error}). {how}"
        ) from None


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not colon or not host or "/" in host or not port.isdigit():
        raise UserError(f"--address {address}: expected auto, local, HOST:PORT or ray://HOST:PORT.")
    return host, int(port)


def worker_environment(threads: int) -> dict[str, str]:
    """Variables of the workers: their threads, and where mrbench finds things."""
    own = {k: v for k, v in os.environ.items() if k.startswith("MRBENCH_")}
    return {**own, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "RAY_USAGE_STATS_ENABLED": "0"}


def _temporary() -> tuple[Path, FileLock]:
    """A new folder for Ray's files, and the lock that says that it is in use. Those of commands that were killed are removed."""
    base = tempfile.gettempdir()
    base = base if len(base) <= LONGEST_TEMPORARY else "/tmp"
    for lock in Path(base).glob(f"{TEMPORARY}*/{OWNER}"):
        with contextlib.suppress(OSError, Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=base))
    owner = FileLock(folder / OWNER)
    owner.acquire()
    return folder, owner


def _hush() -> None:
    """Keep Ray's own remarks on lost workers off standard output, which is for results; this program tells of them itself."""
    with contextlib.suppress(ImportError):
        inner: Any = importlib.import_module("ray._private.worker")
        if hasattr(inner, "_worker_logs_enabled"):  # its own switch; there is no public one
            inner._worker_logs_enabled = False


def _shares(ray: Any, options: RayOptions, threads: int) -> Shares:
    machines = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    gpus = sum(m.get("GPU", 0.0) for m in machines)
    device = options.device
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cuda" and not gpus:
        raise UserError("--device cuda: the Ray cluster has no GPU. Use --device cpu, or add machines that have one.")
    if device == "cpu" and options.gpus_per_worker is not None:
        raise UserError(f"--gpus-per-worker {options.gpus_per_worker:g}: the Ray cluster has no GPU. Leave it out.")
    share = (options.gpus_per_worker or 1.0) if device == "cuda" else 0.0
    cpus = threads if device == "cpu" else 1  # where there are GPUs, they are what is scarce
    room = sum(_fits(m, cpus, share) for m in machines)
    if not room:
        most = max((int(m.get("CPU", 0)) for m in machines), default=0)
        wanted = f"{cpus} CPUs" + (f" and {share:g} GPU" if share else "")
        raise UserError(
            f"no machine of the Ray cluster has {wanted} for a worker (the largest has {most} CPUs). Give fewer --threads or less --gpus-per-worker."
        )
    notes = []
    workers = options.workers or room
    if workers > room:
        notes.append(f"the Ray cluster has room for {room} of {workers} workers now; the others start when there is more")
    cores = os.cpu_count() or 1
    if len(machines) == 1 and device == "cpu" and workers > 1 and workers * threads > cores:
        notes.append(
            f"{workers} workers x {threads} threads share {cores} CPU cores: give --threads {max(1, cores // workers)} or fewer --workers"
        )
    return Shares(device, workers, cpus, share, tuple(notes))


def _fits(machine: dict[str, float], cpus: int, gpus: float) -> int:
    """Workers that a machine has room for."""
    by_cpu = int(machine.get("CPU", 0.0) // cpus)
    if not gpus:
        return by_cpu
    have = machine.get("GPU", 0.0)
    by_gpu = int(have // gpus) if gpus >= 1 else int(have) * int(1 / gpus + 1e-9)
    return min(by_cpu, by_gpu)
