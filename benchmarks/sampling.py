"""Seconds per network call and per slice of the samplers, side by side in one run.

    python benchmarks/sampling.py [--part swin,adm,deepinv] [--size 256] [--repeats 5] [--threads 2] [--no-compile] [--json FILE]

swin : the Swin U-Net of the shipped Res-SRDiff; ``--wide`` adds one of the published width. adm : the ADM U-Net in the layouts of the
published priors, random weights. Both against the same weights in a plain order of operations (``plain_order.py``: separate attention
with its mask and softmax written out, NCHW, nothing fused), in float32 and under bfloat16 autocast, eager and compiled. deepinv : DiffPIR
and DPS beside those of deepinv, where that is installed.

Times are medians; warm-ups are not timed; variants take turns, so that a busy machine disturbs all of them alike (``--clock cpu`` counts
CPU seconds of all threads instead, which other processes disturb less). ``x``: times faster than the plain order in float32, ``x same``:
than the plain order in the same precision. Compiling takes minutes per network and size.

A small run of everything: ``--size 64 --slices 1 --sizes 32 --channels 32 --levels 3 --steps 4 --repeats 2 --no-compile``.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from sampling_adm import MULTIPLIERS, adm_calls
from sampling_deepinv import deepinv_comparison
from sampling_swin import published_width, shipped_weights
from sampling_timing import CLOCKS, CONSOLE, Timing

PARTS = ("swin", "adm", "deepinv")


def main() -> None:
    """Measure, print, and write JSON if asked."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    timing = Timing(asked.repeats, asked.clock, not asked.no_compile)
    setting = {
        "threads": asked.threads,
        "repeats": asked.repeats,
        "clock": asked.clock,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    CONSOLE.print(", ".join(f"{key} {value}" for key, value in setting.items()), soft_wrap=True)
    results: dict[str, Any] = {"setting": setting}
    if "swin" in asked.part:
        results["swin"] = {"shipped": shipped_weights(asked.size, asked.slices, timing)}
        if asked.wide:
            results["swin"]["published width"] = published_width(64, timing)
    if "adm" in asked.part:
        results["adm"] = adm_calls(asked.channels, asked.sizes, asked.levels, timing)
    if "deepinv" in asked.part:
        results["deepinv"] = deepinv_comparison(asked.size, asked.steps, timing)
    if asked.json:
        asked.json.write_text(json.dumps(_known(results), indent=1) + "\n", encoding="utf-8")


def _known(value: Any) -> Any:
    """JSON has no NaN: ``null`` for what was not measured."""
    if isinstance(value, dict):
        return {key: _known(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and value != value else value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=_parts, default=PARTS, help="parts, with commas (swin,adm,deepinv)")
    parser.add_argument("--size", type=int, default=256, help="pixels per side: swin's call, deepinv's slice (256)")
    parser.add_argument("--slices", type=int, default=3, help="swin: slices of the data set sample (3); 0 leaves them out")
    parser.add_argument("--wide", action="store_true", help="swin: also the published width, on 64x64")
    parser.add_argument("--channels", type=int, nargs="+", default=[128, 256], help="adm: base widths (128 256)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="adm: pixels per side (64 128)")
    parser.add_argument("--levels", type=int, choices=range(2, len(MULTIPLIERS) + 1), default=len(MULTIPLIERS), help="adm (6)")
    parser.add_argument("--steps", type=int, default=20, help="deepinv: calls of the network per slice (20)")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each variant (5)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch (2)")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="what seconds are (wall)")
    parser.add_argument("--no-compile", action="store_true", help="leave compiled networks out")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    return parser.parse_args()


def _parts(text: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    if not chosen or set(chosen) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{text!r}: name some of {','.join(PARTS)}")
    return chosen


if __name__ == "__main__":
    main()
