"""Tiny files in the true formats of the fastMRI sets, from a phantom of which everything is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <studyInformation><studyTime>12:00:00</studyTime></studyInformation>
 <encoding>
  <encodedSpace><matrixSize><x>{ex}</x><y>{ey}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{fex}</x><y>{fey}</y><z>5</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{rx}</x><y>{ry}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{frx}</x><y>{fry}</y><z>5</z></fieldOfView_mm></reconSpace>
  <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
  </kspace_encoding_step_1></encodingLimits>
 </encoding>
 <encoding><encodedSpace><matrixSize><x>1</x><y>1</y><z>1</z></matrixSize></encodedSpace></encoding>
</ismrmrdHeader>"""


def header(kspace: Sequence[int], recon: tuple[int, int], pixel: tuple[float, float] = (0.7, 0.6)) -> str:
    """A minimal header; ``pixel``: mm along rows and columns."""
    rows, columns = kspace[-2:]
    return HEADER.format(
        ex=rows, ey=columns, fex=rows * pixel[0], fey=columns * pixel[1], rx=recon[0], ry=recon[1],
        frx=recon[0] * pixel[0], fry=recon[1] * pixel[1], last=columns - 1, centre=columns // 2,
    )  # fmt: skip


def phantom(slices: int, full: tuple[int, int], size: tuple[int, int], seed: int = 0) -> NDArray[np.complex64]:
    """Objects ``[slices, *full]`` within the central ``size``, upside down as the sets store them: a head with a bright front.

    Their phase varies slowly. Each slice is another one.
    """
    rng = np.random.default_rng(seed)
    y = (np.arange(full[0]) - full[0] // 2) / (size[0] / 2)
    x = (np.arange(full[1]) - full[1] // 2) / (size[1] / 2)
    yy, xx = np.meshgrid(y, x, indexing="ij")
    images = []
    for _ in range(slices):
        head = (np.hypot(yy / 0.85, xx / 0.7) < 1).astype(np.float64)
        image = head * (0.5 + 0.1 * np.sin(9 * xx + 3 * rng.random()) * np.cos(7 * yy))
        image += head * (yy > 0.35) * 0.4  # the front, stored at the bottom
        image[np.hypot(yy + 0.1, xx - 0.25) < 0.15] = 0.1 + 0.2 * rng.random()
        images.append(image * np.exp(1j * (0.8 * xx + 0.5 * yy**2)))
    return np.asarray(images, dtype=np.complex64) * np.float32(1e-4)  # the sets' values are small


def profiles(coils: int, full: tuple[int, int], size: tuple[int, int]) -> NDArray[np.complex64]:
    """Smooth coil sensitivities ``[coils, *full]`` from round about."""
    y = (np.arange(full[0]) - full[0] // 2) / (size[0] / 2)
    x = (np.arange(full[1]) - full[1] // 2) / (size[1] / 2)
    yy, xx = np.meshgrid(y, x, indexing="ij")
    maps = []
    for j in range(coils):
        angle = 2 * np.pi * j / coils
        distance = np.hypot(yy - 1.4 * np.sin(angle), xx - 1.4 * np.cos(angle))
        maps.append(np.exp(-0.5 * distance) * np.exp(1j * (angle + 0.3 * np.cos(angle) * xx)))
    return np.asarray(maps, dtype=np.complex64)


def to_kspace(images: NDArray[Any]) -> NDArray[np.complex64]:
    """Centred orthonormal Fourier transform of the last two axes (the definition of the sets)."""
    axes = (-2, -1)
    spectrum = np.fft.fft2(np.fft.ifftshift(images, axes=axes), norm="ortho", axes=axes)
    return np.fft.fftshift(spectrum, axes=axes).astype(np.complex64)


def centre(images: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The central ``size`` of the last two axes."""
    r, c = ((full - part) // 2 for full, part in zip(images.shape[-2:], size, strict=True))
    return images[..., r : r + size[0], c : c + size[1]]


def write_h5(path: Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> Path:
    """An HDF5 file as the sets write them: contiguous arrays, texts of any length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values.encode() if isinstance(values, str) else values
        for name, value in attributes.items():
            file.attrs[name] = value
    return path


def write_scan(
    path: Path,
    patient: str = "p1",
    acquisition: str = "AXT2",
    slices: int = 3,
    coils: int = 4,
    full: tuple[int, int] = (64, 40),
    size: tuple[int, int] = (32, 32),
    target: bool = True,
    seed: int = 0,
    **more: Any,
) -> Path:
    """A brain or knee scan. ``coils=0``: single-coil (with ``reconstruction_esc``). ``target=False``: a masked test scan."""
    rho = phantom(slices, full, size, seed)
    images = rho[:, None] * profiles(max(coils, 4), full, size) if coils != 1 else rho[:, None]
    rss = centre(np.sqrt(np.sum(np.abs(images) ** 2, axis=1)), size).astype(np.float32)
    kspace = to_kspace(rho if coils == 0 else images)
    arrays: dict[str, Any] = {"kspace": kspace, "ismrmrd_header": header(full, size)}
    attributes: dict[str, Any] = {"acquisition": acquisition, "patient_id": patient}
    if target:
        arrays["reconstruction_rss"] = rss
        if coils == 0:
            arrays["reconstruction_esc"] = centre(np.abs(rho), size).astype(np.float32)
        attributes |= {"max": float(rss.max()), "norm": float(np.linalg.norm(rss))}
    else:
        mask = np.arange(full[1]) % 4 == 0
        arrays["kspace"] = np.where(mask, kspace, np.complex64(0))
        arrays["mask"] = mask
        attributes |= {"acceleration": 4, "num_low_frequency": 2}
    arrays |= more.get("arrays", {})
    attributes |= more.get("attributes", {})
    for name in more.get("without", ()):
        arrays.pop(name, None)
        attributes.pop(name, None)
    return write_h5(path, arrays, attributes)


def write_prostate(path: Path, patient: str = "hash", dwi: bool = False, slices: int = 4, seed: int = 0) -> Path:
    """A prostate scan: k-space with averages, upright images."""
    rng = np.random.default_rng(seed)
    rss = np.abs(centre(phantom(slices, (32, 32), (16, 16), seed), (16, 16))[:, ::-1]).astype(np.float32)
    kspace = (rng.normal(size=(5 if dwi else 3, slices, 2, 32, 23)) + 0j).astype(np.complex64)
    arrays: dict[str, Any] = {
        "kspace": kspace,
        "calibration_data": np.zeros((slices, 2, 32, 8), np.complex64),
        "ismrmrd_header": header((32, 23), (16, 16), (0.5, 0.5)),
        "reconstruction_rss": rss,
    }
    if dwi:
        arrays |= {"coil_sens_maps": np.ones((slices, 2, 32, 23), np.complex64), "b1500": rss / 2, "adc_map": rss * 3}
        del arrays["reconstruction_rss"]
    kind = "AXDIFF" if dwi else "AXT2"
    return write_h5(path, arrays, {"patient_id": patient, "acquisition": kind, "max": 1.0, "norm": 1.0})


def truncate(path: Path, keep: float = 0.6) -> Path:
    """Cut off the end of a file, as a broken download does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path
