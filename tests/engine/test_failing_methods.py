"""Methods that break, and machines that run out of memory: failed rows with a reason, and nobody else is harmed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tests_support import rows_of, write_plugin

FAST = ("--metrics", "psnr,ssim", "--no-pictures")

BROKEN = {
    "raises_on_import": "raise RuntimeError('no licence file')",
    "third_item": """
        import mrbench
        seen = []
        def restore(m):
            for i in m.ids:
                if i.endswith("086"):
                    raise ValueError("the third slice is too hard")
            return mrbench.upsample(m)
        @mrbench.hookimpl
        def mrbench_methods():
            return [mrbench.MethodCard("third_item", restore)]
    """,
    "wrong_shape": """
        import mrbench
        @mrbench.hookimpl
        def mrbench_methods():
            return [mrbench.MethodCard("wrong_shape", lambda m: m.y)]
    """,
    "nans": """
        import mrbench
        @mrbench.hookimpl
        def mrbench_methods():
            return [mrbench.MethodCard("nans", lambda m: mrbench.upsample(m) * float("nan"))]
    """,
    "wrong_range": """
        import mrbench
        @mrbench.hookimpl
        def mrbench_methods():
            return [mrbench.MethodCard("wrong_range", lambda m: mrbench.upsample(m) * 2 - 1)]
    """,
    "no_such_module": """
        import mrbench
        @mrbench.hookimpl
        def mrbench_methods():
            return [mrbench.MethodCard("no_such_module", "no_such_module:Method")]
    """,
}


def test_broken_plugins_become_failed_rows_and_harm_nobody(mrbench, tmp_path: Path) -> None:
    files = [write_plugin(tmp_path, name, text) for name, text in BROKEN.items()]
    methods = [m for name in BROKEN if name != "raises_on_import" for m in ("--method", name)]
    done = mrbench(
        "run",
        *methods,
        "--method",
        "bicubic",
        "--dataset",
        "sample",
        "--out",
        tmp_path / "runs",
        "--json",
        *FAST,
        *(a for f in files for a in ("--plugin", f)),
    )
    assert done.code == 1
    assert "plugin raises_on_import is broken: import failed: RuntimeError: no licence file" in done.err
    runs = {r["label"]: r for r in done.json["runs"]}
    assert {k: (r["ok"], r["failed"]) for k, r in runs.items()} == {
        "third_item": (15, 1),
        "wrong_shape": (0, 16),
        "nans": (0, 16),
        "wrong_range": (0, 16),
        "no_such_module": (0, 16),
        "bicubic": (16, 0),
    }
    last = done.err.strip().splitlines()[-1]
    assert last.startswith(
        "failed: third_item on sample: 1 of 16 items (sample/colin27/colin27_t1/086: ValueError: the third slice is too hard)"
    )
    errors = rows_of(tmp_path / "runs").groupby("label")["error"].max()
    assert (
        errors["wrong_shape"].startswith("returned shape [4, 1, 54, 44], expected [B, C, H, W] = [4, 1, 216, 176]")
        or "returned shape" in errors["wrong_shape"]
    )
    assert "NaN or infinite values in" in errors["nans"]
    assert "expected on the [0, 1] range" in errors["wrong_range"]
    assert "ModuleNotFoundError" in errors["no_such_module"]


def test_failures_are_retried_and_never_cached(mrbench, tmp_path: Path) -> None:
    text = BROKEN["third_item"].replace("if i.endswith", f"if Path({str(tmp_path / 'hard')!r}).exists() and i.endswith")
    plugin = write_plugin(tmp_path, "third_item", text.replace("import mrbench", "import mrbench; from pathlib import Path", 1))
    (tmp_path / "hard").touch()
    command = ("run", "--method", "third_item", "--plugin", plugin, "--dataset", "sample", "--out", tmp_path / "runs", *FAST)
    assert mrbench(*command).code == 1
    before = rows_of(tmp_path / "runs", measured=True).set_index("item_id")
    (tmp_path / "hard").unlink()
    assert mrbench(*command).code == 0
    after = rows_of(tmp_path / "runs", measured=True).set_index("item_id")
    assert (after["status"] == "ok").all()
    kept = before.index[before["status"] == "ok"]
    pd.testing.assert_series_equal(before.loc[kept, "seconds"], after.loc[kept, "seconds"])


MEMORY = """
    import mrbench
    def restore(m):
        if len(m.ids) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return mrbench.upsample(m)
    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("hungry", restore)]
"""


def test_out_of_memory_halves_the_batch(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "hungry", MEMORY)
    done = mrbench(
        "run", "--method", "hungry", "--plugin", plugin, "--dataset", "sample", "--batch", 8, "--out", tmp_path / "a", *FAST
    )
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "a", measured=True)
    assert (rows["batch"] == 1).all()
    plugin = write_plugin(tmp_path, "hungry", MEMORY.replace("len(m.ids) > 1", "True"))
    done = mrbench(
        "run", "--method", "hungry", "--plugin", plugin, "--dataset", "sample", "--batch", 8, "--out", tmp_path / "b", *FAST
    )
    assert done.code == 1
    assert (rows_of(tmp_path / "b")["status"] == "oom").all()
