"""`mrbench run`, asked for wrongly: one message, exit code 2, nothing on disk."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "bicubik", "--dataset", "sample"], "no method named 'bicubik'. Did you mean 'bicubic'"),
        (["--method", "bicubic", "--dataset", "sampel"], "no data set named 'sampel'. Did you mean 'sample'"),
        (["--method", "bicubic"], "no data set given"),
        (["--dataset", "sample"], "no method given"),
        (["--method", "bicubic", "--dataset", "folder"], "--set folder.path=DIR"),
        (["--method", "bicubic", "--dataset", "folder", "--set", "folder.path=/nowhere"], "/nowhere"),
        (["--method", "bicubic", "--dataset", "sample", "--set", "bicubic.a=1"], "bicubic has no option 'a'"),
        (
            ["--method", "bicubic", "--dataset", "sample", "--set", "bicubik.a=1"],
            "there is no 'bicubik' here. Did you mean 'bicubic'",
        ),
        (["--method", "bicubic", "--dataset", "sample", "--set", "a"], "expected TARGET.KEY=VALUE"),
        (["--method", "bicubic", "--dataset", "sample", "--set", "metric.psnr.x=1"], "metric.psnr has no option 'x'"),
        (["--method", "bicubic", "--dataset", "sample", "--scale", "3"], "no uniform protocol for scale 3"),
        (["--method", "bicubic", "--dataset", "sample", "--scale", "4", "--protocol", "uniform-x4"], "exclude each other"),
        (["--method", "bicubic", "--dataset", "sample", "--metrics", "psnrr"], "no metric named 'psnrr'. Did you mean 'psnr'"),
        (["--method", "bicubic", "--dataset", "sample", "--metrics", ","], "--metrics is empty"),
        (["--method", "bicubic", "--dataset", "sample", "--device", "tpu"], "--device tpu: unknown"),
        (["--method", "bicubic", "--dataset", "sample", "--precision", "fp8"], "--precision fp8: unknown"),
        (["--method", "bicubic", "--dataset", "sample", "--limit", "0"], "--limit 0"),
        (["--method", "bicubic", "--dataset", "sample", "--plugin", "/nowhere.py"], "no such file"),
        (["--method", "bicubic", "--dataset", "sample", "--dataset", "sample"], "two data sets are called 'sample'"),
        (["--method", "bicubic@x", "--dataset", "sample"], "no checkpoint 'x'"),
    ],
)
def test_mistakes_end_with_one_message_and_code_2(mrbench, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = mrbench("run", *arguments, "--out", tmp_path / "runs")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not done.out
    assert not list(tmp_path.rglob("*.parquet"))


def test_protocol_with_an_unknown_field(mrbench, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nscale: 4\nmetrics: [psnr]\nnois: {}\n")
    done = mrbench(
        "run", "--method", "bicubic", "--dataset", "sample", "--protocol", tmp_path / "mine.yaml", "--out", tmp_path / "runs"
    )
    assert done.code == 2
    assert "unknown field 'nois'. Did you mean 'noise'" in done.err
