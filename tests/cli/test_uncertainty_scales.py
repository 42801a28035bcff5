"""``mrbench uncertainty`` of several runs: a folder each, and their maps side by side."""

from __future__ import annotations

import json
from pathlib import Path

from tests_support import write_plugin

NOISY = """
    import mrbench

    class Noisy:
        def __init__(self, options):
            pass

        def restore(self, measurement, draws):
            x = mrbench.upsample(measurement, kernel="bicubic")
            return x[:, None] + 0.05 * measurement.noise(range(1, draws + 1)).normal(tuple(x.shape[1:]))

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("noisy", Noisy, "adds noise", deterministic=False, notes="of no use")]
"""


def run(mrbench, plugin: Path, out: Path, scale: int) -> Path:
    done = mrbench(
        "run", "-m", "noisy", "--plugin", plugin, "-d", "sample", "--scale", scale, "--limit", 1, "--draws", 3, "--out", out
    )
    assert done.code == 0, done.err
    return next((out / "sample" / f"uniform-x{scale}").glob("noisy-*"))


def test_runs_of_several_scales_stand_side_by_side(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "noisy_plugin", NOISY)
    folders = [run(mrbench, plugin, tmp_path / "runs", scale) for scale in (2, 4)]
    done = mrbench("uncertainty", *folders, "--out", tmp_path / "pictures", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert len(found["runs"]) == 2
    assert {Path(f).parent.name for f in found["files"]} == {"pictures", *(f.name for f in folders)}
    scales = list((tmp_path / "pictures").glob("scales-*.png"))
    assert len(scales) == 1
    assert scales[0].stat().st_size > 20_000


def test_one_run_is_as_before(mrbench, tmp_path: Path) -> None:
    folder = run(mrbench, write_plugin(tmp_path, "noisy_plugin", NOISY), tmp_path / "runs", 4)
    done = mrbench("uncertainty", folder, "--out", tmp_path / "pictures")
    assert done.code == 0, done.err
    assert (tmp_path / "pictures" / "calibration.json").is_file()
    assert not list((tmp_path / "pictures").glob("scales-*"))
