"""Proof of the statistics: their error rates and power on nested data, and what a table of a million rows costs.

    python benchmarks/statistics.py [--part rates|rows] [--simulations 4000] [--out docs/figures] [--rows 1000000] [--json FILE]

``rates``: see statistics_rates.py; ``rows``: see statistics_rows.py. Ends with code 1 where the default tests leave their level, or
where the table takes more than 10 s or 1.5 GiB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Simulate, draw, measure, print."""
    import statistics_rates
    import statistics_rows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["rates", "rows"], help="only this part (default: both)")
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="folder of the figure")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--per-file", type=int, default=10_000, help="rows per Parquet part")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    document: dict[str, object] = {}
    wrong: list[str] = []
    if args.part != "rows":
        begin = time.perf_counter()
        statistics_rates.check_against_mrbench()
        found = statistics_rates.run_simulations(args.simulations)
        statistics_rates.print_rates(found)
        wrong += [f"the level is not kept: {text}" for text in statistics_rates.outside(found)]
        print(f"\n{statistics_rates.draw(found, args.out)}; {time.perf_counter() - begin:.0f} s")
        document["simulations"] = found
    if args.part != "rates":
        measured = statistics_rows.run(args.rows, args.per_file)
        statistics_rows.print_costs(measured)
        wrong += [f"too slow or too large: {text}" for text in statistics_rows.beyond(measured)]
        document["rows"] = measured
    if args.json:
        args.json.write_text(json.dumps(document, indent=1))
    if wrong:
        sys.exit("\n".join(wrong))


def _standard_library() -> None:
    """Scripts in this folder find this file where libraries import the standard library's ``statistics``: hand them that one."""
    import importlib.util
    import sysconfig

    spec = importlib.util.spec_from_file_location("statistics", Path(sysconfig.get_path("stdlib")) / "statistics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["statistics"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    main()
elif __name__ == "statistics":
    _standard_library()
