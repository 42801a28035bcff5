"""Learned methods on inputs and weights that are not as they should be: exit code 2 or a failed row, with a text, no traceback."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.swin_unet_options import SwinUNetConfig
from mrbench_methods.networks.vq import VQAutoencoder
from mrbench_methods.networks.vq_options import VQConfig
from numpy.typing import NDArray
from safetensors.torch import save_file
from tests_support import rows_of

pytestmark = pytest.mark.usefixtures("one_thread")

UNET: dict[str, Any] = {
    "image_size": 16, "in_channels": 1, "out_channels": 1, "lq_channels": 1, "model_channels": 32, "channel_mult": (1, 1),
    "num_res_blocks": (1, 1), "attention_resolutions": (16,), "swin_embed_dim": 32, "num_heads": 2, "window_size": 8,
    "mlp_ratio": 2.0,
}  # fmt: skip
RGB = {**UNET, "in_channels": 3, "out_channels": 3, "lq_channels": 3}
VQ: dict[str, Any] = {
    "embed_dim": 3, "n_embed": 64, "z_channels": 3, "ch": 32, "ch_mult": (1, 1, 1), "num_res_blocks": (1, 1, 1),
}  # fmt: skip
# name of a case: method, networks, options of the checkpoint
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "res_srdiff": ("res_srdiff", {"unet": UNET}, {"variant": "repo"}),
    "resshift": ("resshift", {"unet": RGB, "autoencoder": VQ}, {"variant": "conference", "steps": 4}),
    "sinsr": ("sinsr", {"unet": UNET}, {}),
}
RUN = ("--scale", 4, "--metrics", "psnr", "--no-pictures", "--threads", 1)
PREDICT = ("--scale", 4, "--threads", 1)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint folder with random weights for every case."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write_checkpoint(root / name, *case) for name, case in CASES.items()}


def write_checkpoint(folder: Path, method: str, parts: dict[str, Any], options: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    prefix = len(parts) > 1
    for name, config in parts.items():
        network = SwinUNet(SwinUNetConfig(**config)) if name == "unet" else VQAutoencoder(VQConfig(**config))
        tensors |= {f"{name}.{k}" if prefix else k: v.contiguous() for k, v in network.state_dict().items()}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    document = {
        "format": 1, "method": method, "name": folder.name, "tier": "demo", "kind": "network", "scale": 4, "channels": 1,
        "degradation": "bicubic_aa", "architecture": parts, "method_options": options,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def copied(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def blob(rows: int, columns: int) -> NDArray[np.float32]:
    """A bright disc with waves on a dark ground."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    inside = ((y / rows - 0.5) ** 2 + (x / columns - 0.5) ** 2) < 0.2
    return np.where(inside, 300 + 100 * np.sin(0.8 * x) * np.cos(0.6 * y), 5 + 0 * x).astype(np.float32)


def data(folder: Path, **images: NDArray[np.float32]) -> Path:
    for name, image in images.items():
        (folder / name).mkdir(parents=True)
        np.save(folder / name / "image.npy", image)
    return folder


def on_folder(folder: Path) -> tuple[Any, ...]:
    return ("--dataset", "folder", "--set", f"folder.path={folder}")


def clear(done: Any, code: int) -> None:
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert "Traceback" not in done.out


# -- images ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", list(CASES))
def test_an_image_smaller_than_the_window(mrbench, tmp_path: Path, checkpoints: dict[str, Path], case: str) -> None:
    """16 x 16 pixels (LR: 4 x 4), where whole windows take 16 or 32 and more: extended, restored, and cut back."""
    folder = data(tmp_path / "data", ann=blob(16, 16), bob=blob(16, 24))
    done = mrbench("run", "-m", f"{case}@{checkpoints[case]}", *on_folder(folder), *RUN, "--out", tmp_path / "runs")
    clear(done, 0)
    rows = rows_of(tmp_path / "runs")
    assert list(rows["status"]) == ["ok", "ok"]
    np.save(tmp_path / "lr.npy", blob(4, 5))
    done = mrbench("predict", "-m", f"{case}@{checkpoints[case]}", *PREDICT, tmp_path / "lr.npy", tmp_path / "sr.npy")
    clear(done, 0)
    restored = np.load(tmp_path / "sr.npy")
    assert restored.shape == (16, 20)
    assert np.isfinite(restored).all()
    np.save(tmp_path / "lr.npy", blob(3, 30))
    done = mrbench(
        "predict", "-m", f"{case}@{checkpoints[case]}", *PREDICT, "--force", tmp_path / "lr.npy", tmp_path / "sr.npy"
    )
    clear(done, 2)
    assert "3 x 30 pixels, smaller than 4 on a side" in done.err
    too_small = data(tmp_path / "small", ann=blob(12, 40))
    done = mrbench("run", "-m", f"{case}@{checkpoints[case]}", *on_folder(too_small), *RUN, "--out", tmp_path / "none")
    clear(done, 2)
    assert "smaller than 16 on a side" in done.err


@pytest.mark.parametrize("case", list(CASES))
def test_nan_in_the_input(mrbench, tmp_path: Path, checkpoints: dict[str, Path], case: str) -> None:
    """A volume with NaN becomes a skipped row with their number; alone, or in predict, it is refused."""
    holes = blob(32, 32)
    holes[4, 5:8] = np.nan
    method = ("-m", f"{case}@{checkpoints[case]}")
    both = data(tmp_path / "both", ann=blob(32, 32), bob=holes)
    done = mrbench("run", *method, *on_folder(both), *RUN, "--out", tmp_path / "runs")
    clear(done, 0)
    rows = rows_of(tmp_path / "runs").set_index("subject")
    assert rows.loc["ann", "status"] == "ok"
    assert rows.loc["bob", "status"] == "skipped"
    assert "3 of its 1024 values are NaN or infinite" in rows.loc["bob", "error"]
    alone = data(tmp_path / "alone", bob=holes)
    done = mrbench("run", *method, *on_folder(alone), *RUN, "--out", tmp_path / "none")
    clear(done, 2)
    assert "3 of its 1024 values are NaN or infinite" in done.err
    volume = np.stack([blob(16, 16), holes[:16, :16]], -1)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 6.0, 1.0])), tmp_path / "lr.nii.gz")
    for name, source in (("sr.nii.gz", tmp_path / "lr.nii.gz"), ("sr.npy", tmp_path / "alone" / "bob" / "image.npy")):
        done = mrbench("predict", *method, *PREDICT, source, tmp_path / name)
        clear(done, 2)
        assert f"3 of its {512 if name.endswith('gz') else 1024} values are NaN or infinite" in done.err
        assert not (tmp_path / name).exists()


# -- weights -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.save(tmp_path / "lr.npy", blob(8, 8))
    return tmp_path / "lr.npy"


def both_commands(mrbench, tmp_path: Path, source: Path, method: str, message: str) -> None:
    """`predict` refuses; `run` refuses before any work, or leaves failed rows that say the same."""
    done = mrbench("predict", "-m", method, *PREDICT, source, tmp_path / "sr.npy")
    clear(done, 2)
    assert message in done.err
    assert not (tmp_path / "sr.npy").exists()
    folder = data(tmp_path / "data", ann=blob(32, 32))
    done = mrbench("run", "-m", f"x={method}", "-m", "bicubic", *on_folder(folder), *RUN, "--out", tmp_path / "runs")
    assert "Traceback" not in done.err
    assert message in done.err
    if done.code == 2:
        assert not list(tmp_path.rglob("*.parquet"))
        return
    assert done.code == 1
    rows = rows_of(tmp_path / "runs").set_index("label")
    assert rows.loc["x", "status"] == "failed"
    assert message in rows.loc["x", "error"]
    assert rows.loc["bicubic", "status"] == "ok"


@pytest.mark.parametrize(
    ("case", "left"), [("res_srdiff", 0), ("res_srdiff", 7), ("res_srdiff", 500), *((case, -4) for case in CASES)]
)
def test_truncated_safetensors(
    mrbench, tmp_path: Path, checkpoints: dict[str, Path], source: Path, case: str, left: int
) -> None:
    """Nothing, a piece of the header's length, a piece of the header, and all but the last number."""
    folder = copied(checkpoints[case], tmp_path / "cut")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    both_commands(mrbench, tmp_path, source, f"{case}@{folder}", "not a whole safetensors file")


class Harmful:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize(
    ("case", "how"),
    [*((case, "torch") for case in CASES), ("sinsr", "pickle"), ("sinsr", "pickle in a zip"), ("sinsr", "renamed safetensors")],
)
def test_code_in_a_pickle_is_not_executed(
    mrbench, tmp_path: Path, checkpoints: dict[str, Path], source: Path, case: str, how: str
) -> None:
    trap = tmp_path / "executed"
    content = {"state_dict": {"weight": torch.ones(2)}, "config": Harmful(trap)}
    file = tmp_path / ("weights.safetensors" if how == "renamed safetensors" else "weights.pth")
    if how == "torch":
        torch.save(content, file)
    elif how == "pickle in a zip":
        torch.save({"state_dict": Harmful(trap)}, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    message = "not a whole safetensors file" if how == "renamed safetensors" else "Loading it could run code"
    both_commands(mrbench, tmp_path, source, f"{case}@{file}", message)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Harmful(trap)))  # it would have been
    assert trap.exists()


@pytest.mark.parametrize("case", list(CASES))
def test_a_file_that_is_no_checkpoint(mrbench, tmp_path: Path, source: Path, case: str) -> None:
    (tmp_path / "noise.pth").write_bytes(b"this is no checkpoint at all" * 20)
    both_commands(mrbench, tmp_path, source, f"{case}@{tmp_path / 'noise.pth'}", "noise.pth: not a whole PyTorch file")


@pytest.mark.parametrize("case", list(CASES))
def test_a_checkpoint_of_another_method(mrbench, tmp_path: Path, checkpoints: dict[str, Path], source: Path, case: str) -> None:
    other = next(c for c in CASES if c != case)
    message = f"a checkpoint of method {other}, not of {case}"
    both_commands(mrbench, tmp_path, source, f"{case}@{checkpoints[other]}", message)


@pytest.mark.parametrize("case", list(CASES))
def test_weights_of_another_network(mrbench, tmp_path: Path, checkpoints: dict[str, Path], source: Path, case: str) -> None:
    """The description is that of the method, the tensors are not."""
    folder = copied(checkpoints[case], tmp_path / "swapped")
    save_file({"layer.weight": torch.ones(3, 3)}, folder / "model.safetensors")
    both_commands(mrbench, tmp_path, source, f"{case}@{folder}", "do not fit the network")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"method": "res_srdiff", "scale": "four"}'])
def test_a_damaged_config(mrbench, tmp_path: Path, checkpoints: dict[str, Path], source: Path, text: str) -> None:
    folder = copied(checkpoints["res_srdiff"], tmp_path / "damaged")
    (folder / "config.json").write_text(text)
    both_commands(mrbench, tmp_path, source, f"res_srdiff@{folder}", str(folder / "config.json"))


def test_weights_that_give_nan(mrbench, tmp_path: Path, checkpoints: dict[str, Path], source: Path) -> None:
    """Half-finished trainings leave them: a failed row, and no image."""
    from safetensors.torch import load_file

    folder = copied(checkpoints["res_srdiff"], tmp_path / "nan")
    tensors = {
        k: torch.full_like(v, torch.nan) if k == "out.2.weight" else v
        for k, v in load_file(folder / "model.safetensors").items()
    }
    assert any(bool(v.isnan().any()) for v in tensors.values() if v.is_floating_point())
    save_file(tensors, folder / "model.safetensors")
    done = mrbench("predict", "-m", f"res_srdiff@{folder}", *PREDICT, source, tmp_path / "sr.npy")
    clear(done, 1)
    assert "returned NaN or infinite values" in done.err
    assert not (tmp_path / "sr.npy").exists()
    images = data(tmp_path / "data", ann=blob(32, 32))
    done = mrbench("run", "-m", f"res_srdiff@{folder}", *on_folder(images), *RUN, "--out", tmp_path / "runs")
    clear(done, 1)
    assert "returned NaN or infinite values" in rows_of(tmp_path / "runs")["error"][0]


@pytest.mark.parametrize("case", list(CASES))
def test_colour_and_complex_images_for_weights_of_one_channel(
    mrbench, tmp_path: Path, checkpoints: dict[str, Path], case: str
) -> None:
    np.save(tmp_path / "lr.npy", blob(8, 8) * np.exp(1j * blob(8, 8) / 300))
    done = mrbench("predict", "-m", f"{case}@{checkpoints[case]}", *PREDICT, tmp_path / "lr.npy", tmp_path / "sr.npy")
    clear(done, 2)
    assert "is complex (2 channels), and method" in done.err
    assert not (tmp_path / "sr.npy").exists()


@pytest.mark.parametrize("case", list(CASES))
def test_another_scale_than_that_of_the_weights(
    mrbench, tmp_path: Path, checkpoints: dict[str, Path], source: Path, case: str
) -> None:
    """Named weights go on with a warning, as in `run`; without a name, weights for the scale are looked for."""
    done = mrbench("predict", "-m", f"{case}@{checkpoints[case]}", "--scale", 2, "--threads", 1, source, tmp_path / "sr.npy")
    clear(done, 0)
    assert "weights for 4x used at 2x" in done.err
    assert np.load(tmp_path / "sr.npy").shape == (16, 16)
    unnamed = mrbench("predict", "-m", case, "--scale", 8, source, tmp_path / "x.npy")
    clear(unnamed, 2)
    assert "for 8x" in unnamed.err
