"""Where the weights of LPIPS come from, and the checks that they are what they should be."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.models as models

from mrbench.errors import MetricUnavailable, UserError
from mrbench.metrics.lpips_network import BACKBONES, SCALE, SHIFT, LpipsNetwork

SQUEEZE_FILE = "MRBENCH_LPIPS_SQUEEZE"
OFFLINE = ("MRBENCH_OFFLINE", "HF_HUB_OFFLINE")
PROBE_SECONDS = 3.0  # three backbones that get no answer take less than 10 s
STALL_SECONDS = 5.0

# mean over 10 pairs, images and partners uniform in [-1, 1], 100x100, drawn in this order with seed 42
KNOWN_MEANS: Mapping[str, float] = {"squeeze": 0.100491}
KNOWN_TOLERANCE = 2e-5

_log = logging.getLogger(__name__)


def load_network(net: str, environ: Mapping[str, str] | None = None) -> LpipsNetwork:
    """The pretrained network ("alex", "vgg" or "squeeze"), checked.

    Linear layers come from the ``lpips`` package, the backbone from torchvision's files in the torch hub cache (downloaded
    if missing), or for squeeze all from the file named by ``MRBENCH_LPIPS_SQUEEZE``.

    Raises
    ------
    MetricUnavailable : weights are missing and cannot be had, or are not the expected ones.
    UserError : ``MRBENCH_LPIPS_SQUEEZE`` names something else than such a file.
    """
    environ = os.environ if environ is None else environ
    given = environ.get(SQUEEZE_FILE, "") if net == "squeeze" else ""
    if given:
        network = squeeze_from_npz(Path(given))
        source = f"{SQUEEZE_FILE}={given}"
    else:
        heads = packaged_heads(net)
        file = backbone_file(net, environ)
        network = LpipsNetwork.from_arrays(net, _backbone_arrays(net, file), heads)
        source = str(file)
    fault = self_test(network)
    if fault:
        raise MetricUnavailable(f"lpips_{net}: the weights from {source} are not those of LPIPS v0.1: {fault}")
    return network


def self_test(network: LpipsNetwork) -> str:
    """What is wrong with a loaded network, or the empty string.

    Linear layers of LPIPS are non-negative by construction (random ones are not); equal images have distance 0; and where
    a published value is known, the network must give it.
    """
    for k, head in enumerate(network.heads):
        if not bool(torch.isfinite(head).all() and (head >= 0).all() and (head > 0).any()):
            return f"linear layer {k} is {'negative' if bool((head < 0).any()) else 'zero or not finite'}"
    generator = torch.Generator().manual_seed(42)
    a, b = (torch.rand(10, 3, 100, 100, generator=generator) for _ in range(2))
    known = KNOWN_MEANS.get(network.net)
    pairs = 1 if known is None else len(a)
    with torch.inference_mode():
        same = float(network(a[:1], a[:1]).mean())
        other = float(network(a[:pairs], b[:pairs]).mean())
    if same != 0 or not other > 0:
        return f"equal images have the distance {same:.3g}, unequal ones {other:.3g}"
    if known is not None and not abs(other - known) <= KNOWN_TOLERANCE:
        return f"the reference pairs give {other:.6f}, expected {known:.6f}"
    return ""


def packaged_heads(net: str) -> list[torch.Tensor]:
    """The linear layers that the ``lpips`` package brings, ``[1, C, 1, 1]`` each.

    Raises
    ------
    MetricUnavailable : the package or its file is missing or damaged.
    """
    spec = importlib.util.find_spec("lpips")
    folders = list(spec.submodule_search_locations or []) if spec else []
    file = Path(folders[0] if folders else "lpips") / "weights" / "v0.1" / f"{net}.pth"
    if not file.is_file():
        raise MetricUnavailable(f"lpips_{net}: the package lpips with its linear layers is not installed: pip install lpips")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        return [state[f"lin{k}.model.1.weight"] for k in range(len(BACKBONES[net].taps))]
    except Exception as error:
        raise MetricUnavailable(f"lpips_{net}: {file} is damaged ({error}): reinstall the package lpips") from error


def squeeze_from_npz(file: Path) -> LpipsNetwork:
    """The squeeze network from one ``.npz`` file without pickled objects.

    Keys: ``net.slice<S>.<N>`` with the position N in torchvision's ``features`` (``.weight``, ``.bias``, for Fire modules
    ``.squeeze``, ``.expand1x1``, ``.expand3x3`` before these), ``lin<K>.model.1.weight``, ``lins.<K>.model.1.weight`` and
    ``scaling_layer.shift`` / ``.scale``.

    Raises
    ------
    UserError : not such a file, naming it and what is wrong.
    """
    expected = f"{SQUEEZE_FILE} must name an .npz file with the LPIPS v0.1 squeeze network"
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError, EOFError) as error:
        raise UserError(f"{file}: cannot be read ({error}). {expected}.") from error
    backbone = {}
    for key, array in arrays.items():
        if found := re.fullmatch(r"net\.slice\d+\.(\d+\..+)", key):
            backbone[found[1]] = array
    try:
        heads = [_first(arrays, f"lin{k}.model.1.weight", f"lins.{k}.model.1.weight") for k in range(7)]
        for name, constant in (("scaling_layer.shift", SHIFT), ("scaling_layer.scale", SCALE)):
            if not np.allclose(np.ravel(_first(arrays, name)), constant, rtol=0, atol=1e-6):
                raise ValueError(f"{name} is not {list(constant)}")
        return LpipsNetwork.from_arrays("squeeze", backbone, heads)
    except ValueError as error:
        raise UserError(f"{file}: {error}. {expected}.") from error


def backbone_file(net: str, environ: Mapping[str, str]) -> Path:
    """torchvision's weights file of a backbone, from the torch hub cache or downloaded into it.

    Raises
    ------
    MetricUnavailable : not in the cache, and no network or none wanted; says which file to put where.
    """
    url = weights_url(net)
    name = url.rpartition("/")[2]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / name
    wanted = hash_prefix(name)
    if file.is_file():
        if not _sha256(file).startswith(wanted):
            raise MetricUnavailable(f"lpips_{net}: {file} is damaged (its SHA-256 does not begin with {wanted}): delete it")
        return file
    help_text = f"Put {name} (from {url}) into {_short(folder)}"
    help_text += f", or set {SQUEEZE_FILE}=FILE.npz." if net == "squeeze" else "."
    title = BACKBONES[net].title
    for variable in OFFLINE:
        if environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on"):
            raise MetricUnavailable(f"lpips_{net}: the weights of {title} are not cached, and {variable} is set. {help_text}")
    reason = unreachable(url)
    if not reason:
        _log.info("downloading %s", url)
        reason = download(url, file, wanted)
    if reason:
        raise MetricUnavailable(f"lpips_{net}: the weights of {title} cannot be downloaded: {reason}. {help_text}")
    return file


def _short(folder: Path) -> str:
    """The folder with ``~`` for the home folder: reasons are printed in tables that people publish."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)


def weights_url(net: str) -> str:
    """The address of torchvision's ImageNet weights of a backbone."""
    weights: Any = getattr(models, BACKBONES[net].weights)
    url: str = weights.IMAGENET1K_V1.url
    return url


def hash_prefix(name: str) -> str:
    """The beginning of the SHA-256 that torchvision writes into a file's name, ``NAME-<hex>.pth``."""
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    if not found:
        raise MetricUnavailable(f"{name}: the name carries no SHA-256 prefix, so the file cannot be checked")
    return found[1]


def unreachable(url: str, seconds: float = PROBE_SECONDS) -> str:
    """Why ``url`` gives no answer within ``seconds`` (name resolution included), or the empty string."""
    outcome: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                outcome.append("")
        except Exception as error:
            outcome.append(f"no connection ({error})")

    asking = threading.Thread(target=ask, daemon=True)  # name resolution knows no timeout, so it is left behind
    asking.start()
    asking.join(seconds)
    return outcome[0] if outcome else f"no answer within {seconds:g} s"


def download(url: str, file: Path, prefix: str, seconds: float = STALL_SECONDS) -> str:
    """Download ``url`` to ``file`` if its SHA-256 begins with ``prefix``; returns why not, or the empty string.

    The file appears only when complete and checked. ``seconds`` without any data count as failure.
    """
    part = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with (
            urllib.request.urlopen(url, timeout=seconds) as source,
            tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as target,
        ):
            part = Path(target.name)
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
        if not digest.hexdigest().startswith(prefix):
            return f"what came has the SHA-256 {digest.hexdigest()[:16]}..., expected {prefix}..."
        os.replace(part, file)
        return ""
    except OSError as error:  # URLError and timeouts are OSErrors
        return str(error) or type(error).__name__
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _backbone_arrays(net: str, file: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        return {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    except Exception as error:
        raise MetricUnavailable(f"lpips_{net}: {file} cannot be read ({error}): delete it") from error


def _first(arrays: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise ValueError(f"missing: {names[0]}")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
