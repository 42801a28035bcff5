"""A trainable toy method, synthetic images, and the command that trains it."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests_support import Done, heed_interrupts

HERE = Path(__file__).resolve().parent

# (subject, split): one volume of `slices` slices each
PEOPLE = (("ann", "train"), ("bob", "train"), ("cem", "train"), ("dua", "val"), ("eve", "test"))


def synthetic_slice(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A bright disc with a few ellipses in it, 0..255."""
    y, x = np.mgrid[: size[0], : size[1]]
    middle = (size[0] / 2, size[1] / 2)
    image = np.where(((y - middle[0]) / (0.48 * size[0])) ** 2 + ((x - middle[1]) / (0.48 * size[1])) ** 2 < 1, 90.0, 0.0)
    for _ in range(14):
        cy, cx = rng.uniform(0.2, 0.8, 2) * size
        ry, rx = rng.uniform(2, 9, 2)
        angle = rng.uniform(0, np.pi)
        v, u = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle), (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
        image = np.where((v / ry) ** 2 + (u / rx) ** 2 < 1, rng.uniform(30, 250), image)
    return image.astype(np.uint8)


def write_images(folder: Path, people=PEOPLE, slices: int = 3, size: tuple[int, int] = (64, 72), seed: int = 0) -> Path:
    """A folder with a manifest; the slices of ``eve`` (test) are not even readable."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "subject", "volume", "slice_index", "split"])
        for subject, split in people:
            for k in range(slices):
                name = f"{subject}_{k}.png"
                if split == "test":
                    (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
                else:
                    Image.fromarray(synthetic_slice(rng, size)).save(folder / name)
                writer.writerow([name, subject, f"{subject}_v", k, split])
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic images of five people."""
    return write_images(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture
def write_folder() -> Callable[..., Path]:
    """Writes folders of synthetic images."""
    return write_images


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The toy plugin with its presets, in a folder of its own."""
    folder = tmp_path / "plugin"
    shutil.copytree(HERE / "toy", folder)
    return folder / "toy.py"


# What the console script does, in a process of its own that can be killed.
MAIN = "from mrbench.cli import main; main.main()"


@pytest.fixture
def train(mrbench: Callable[..., Done], toy: Path, images: Path) -> Callable[..., Done]:
    """Call ``mrbench train toy`` on the synthetic images in this process."""

    def call(*arguments: object, method: str = "toy", preset: str = "demo", scale: int = 2, data: bool = True) -> Done:
        return mrbench("train", *command(toy, images, *arguments, method=method, preset=preset, scale=scale, data=data))

    return call


def command(
    toy: Path, images: Path, *arguments: object, method: str = "toy", preset: str = "demo", scale: int = 2, data: bool = True
) -> list[object]:
    """Arguments of ``mrbench train``."""
    given: list[object] = [method, "--preset", preset, "--scale", scale, "--plugin", toy, "--device", "cpu", "--threads", 1]
    if data:
        given += ["--dataset", "faces=folder", "--set", f"faces.path={images}"]
    return [*given, *arguments]


@pytest.fixture
def train_command() -> Callable[..., list[object]]:
    """Makes the arguments of ``mrbench train``."""
    return command


@pytest.fixture
def main_text() -> str:
    """A script that does what the console script does."""
    return MAIN


@pytest.fixture
def spawn_train(toy: Path, images: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``mrbench train toy`` as a process of its own, which takes its time at every step."""

    def start(*arguments: object, method: str = "toy", preset: str = "demo") -> subprocess.Popen[str]:
        given = command(toy, images, *arguments, method=method, preset=preset)
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, "train", *map(str, given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOY_PAUSE": "0.03"},
            preexec_fn=heed_interrupts,
        )

    return start
