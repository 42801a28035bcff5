"""``mrbench doctor``: is this machine ready?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from mrbench.cli.common import JsonOption, PluginOption, print_json, registry, stdout

LOW_DISK = 2 << 30


def doctor(plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """Versions, devices, caches, weights at hand, disk space, broken plugins."""
    from rich.table import Table
    from rich.text import Text

    checks = [*_versions(), *_devices(), *_places(), *_weights(), *_plugins(plugin)]
    if as_json:
        print_json(checks)
        return
    table = Table("check", "", "finding", box=None, pad_edge=False)
    for c in checks:
        table.add_row(
            Text(c["name"]), Text(c["status"], style="green" if c["status"] == "ok" else "yellow"), Text(c["finding"])
        )
    stdout().print(table)


def _check(name: str, status: str, finding: str) -> dict[str, Any]:
    return {"name": name, "status": status, "finding": finding}


def _versions() -> list[dict[str, Any]]:
    import platform

    import mrbench
    from mrbench.engine.environment import package_versions

    found = [
        _check(
            "mrbench",
            "ok",
            f"{mrbench.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        )
    ]
    versions = package_versions()
    absent = [n for n, v in versions.items() if v == "absent"]
    text = ", ".join(f"{n} {v}" for n, v in versions.items() if v != "absent")
    found.append(_check("packages", "warn" if absent else "ok", text + (f"; absent: {', '.join(absent)}" if absent else "")))
    return found


def _devices() -> list[dict[str, Any]]:
    import torch

    from mrbench.engine.environment import choose_device, device_name, processor

    found = [_check("cpu", "ok", f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(
            _check(f"cuda:{index}", "ok", f"{name}, {free >> 20} of {total >> 20} MiB free, CUDA {torch.version.cuda}")
        )
    found.append(_check("device", "ok", f"--device auto takes {device_name(choose_device('auto'))}"))
    return found


def _places() -> list[dict[str, Any]]:
    from mrbench.data.cache import cache_root

    found = []
    for name, folder in (("cache", cache_root()), ("here", Path.cwd())):
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        writable = os.access(existing, os.W_OK)
        problem = "not writable" if not writable else "little space" if free < LOW_DISK else ""
        text = f"{folder}: {free / 2**30:.1f} GiB free" + (f", {problem}" if problem else "")
        if name == "cache" and problem:
            text += " (set MRBENCH_CACHE to another folder)"
        found.append(_check(name, "warn" if problem else "ok", text))
    return found


def _weights() -> list[dict[str, Any]]:
    from mrbench.errors import MrbenchError
    from mrbench.metrics.lpips_weights import SQUEEZE_FILE, backbone_file, squeeze_from_npz

    found = []
    for net in ("alex", "vgg", "squeeze"):
        given = os.environ.get(SQUEEZE_FILE, "") if net == "squeeze" else ""
        try:
            if given:
                squeeze_from_npz(Path(given))
            text = given or str(backbone_file(net, {"MRBENCH_OFFLINE": "1"}))
            found.append(_check(f"lpips_{net}", "ok", f"weights at hand: {text}"))
        except MrbenchError as error:
            found.append(
                _check(f"lpips_{net}", "warn", str(error).replace(", and MRBENCH_OFFLINE is set", " (downloaded on first use)"))
            )
    return found


def _plugins(files: Any) -> list[dict[str, Any]]:
    from mrbench.hub import listing

    reg = registry(files)
    found = []
    for c in listing([reg.methods.card(name) for name in reg.methods.names()]):
        if c.record is not None:
            scale = "any scale" if c.record.scale is None else f"{c.record.scale}x"
            text = f"{c.record.name} ({c.record.tier}, {scale}): {c.state} ({c.where})"
            found.append(_check(f"weights {c.method}", "warn" if c.state == "missing" else "ok", text))
    broken = [p for p in reg.plugins if p.status != "ok"]
    found += [_check(f"plugin {p.name}", "warn", p.reason) for p in broken]
    if not broken:
        found.append(_check("plugins", "ok", f"{len(reg.plugins)} loaded"))
    return found
