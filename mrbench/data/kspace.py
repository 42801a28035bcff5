"""From fully sampled Cartesian k-space to images: centred Fourier transform, crop, coil combination."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Part of cache keys: bump it when the same k-space gives other pixels.
COMBINATION = "adaptive-1"

_CALIBRATION = 32  # central lines of k-space that the coil profiles are estimated from
_NEIGHBOURHOOD = 5  # pixels on a side over which they are taken as constant
_ITERATIONS = 12


def to_image(kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Centred orthonormal inverse Fourier transform of the last two axes.

    ``x(r) = 1 / sqrt(N) sum_k X(k) exp(2 pi i (k - N // 2)(r - N // 2) / N)`` along each: the zero frequency and the image's
    centre lie at ``N // 2``.
    """
    from scipy import fft

    axes = (-2, -1)
    image = fft.ifft2(fft.ifftshift(kspace, axes=axes), norm="ortho", axes=axes)
    return np.asarray(fft.fftshift(image, axes=axes), dtype=np.complex64)


def crop_centre(image: NDArray[np.complex64], size: tuple[int, int]) -> NDArray[np.complex64]:
    """The central ``size`` of the last two axes, from ``floor((N - n) / 2)`` on.

    Raises
    ------
    ValueError : ``size`` is larger than the image.
    """
    starts = [(full - part) // 2 for full, part in zip(image.shape[-2:], size, strict=True)]
    if min(starts) < 0:
        raise ValueError(f"cannot crop {image.shape[-2:]} to {size}")
    return image[..., starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]


def root_sum_of_squares(images: NDArray[np.complex64]) -> NDArray[np.float32]:
    """``sqrt(sum_j |c_j|^2)`` over the first axis (coils)."""
    power = np.square(images.real, dtype=np.float32) + np.square(images.imag, dtype=np.float32)
    return np.asarray(np.sqrt(power.sum(axis=0, dtype=np.float32)), dtype=np.float32)


def combine_coils(kspace: NDArray[np.complex64], size: tuple[int, int]) -> NDArray[np.complex64]:
    """One complex image from the k-space of several coils, by an adaptive matched filter.

    With coil images ``c_j = s_j rho`` (profiles ``s``, object ``rho``), the profiles' directions ``m = s / |s|`` are the
    dominant eigenvectors of the coils' local covariance (D. O. Walsh, A. F. Gmitro, M. W. Marcellin, Magn. Reson. Med. 43:682,
    2000), found by alternating (S. J. Inati, M. S. Hansen, P. Kellman, Proc. ISMRM 22:4407, 2014)

        d(x) = sum_j conj(m_j(x)) c_j(x)          m_j(x) = sum_{y near x} c_j(y) conj(d(y)), scaled to |m(x)| = 1

    on images from the central 32 x 32 samples of k-space (Hann window), where profiles are and noise is not. The full images
    are then combined as ``d`` is. So ``|d|`` is at most the root sum of squares, which it reaches where the profiles are
    smooth; unlike that, it does not add up the coils' noise power. The phase is the object's plus that of the profiles'
    mean direction, which varies slowly; nothing in the data tells the two apart.

    Parameters
    ----------
    kspace : ``[coils, rows, columns]``, fully sampled.
    size : central rows and columns of the image that are kept.

    Returns
    -------
    ``size``, complex.
    """
    profiles = _profiles(crop_centre(to_image(kspace * _window(kspace.shape[-2:])), size))
    images = crop_centre(to_image(kspace), size)
    combined: NDArray[np.complex64] = np.einsum("jrc,jrc->rc", np.conj(profiles), images)
    return combined


def _window(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Separable Hann window over the central samples of k-space, 0 elsewhere."""
    lines = []
    for side in shape:
        distance = np.abs(np.arange(side) - side // 2) / (min(_CALIBRATION, side) / 2)
        lines.append(np.where(distance < 1, 0.5 + 0.5 * np.cos(np.pi * distance), 0.0))
    return np.asarray(np.outer(*lines), dtype=np.float32)


def _profiles(coils: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Unit vectors over the coils at every pixel."""
    from scipy.ndimage import uniform_filter

    peak = float(np.abs(coils).max(initial=0.0))
    if peak == 0:
        return np.full_like(coils, 1 / np.sqrt(len(coils)))
    coils = coils / np.float32(peak)
    mean = np.sum(coils, axis=(1, 2))
    direction = mean if np.abs(mean).max() > 0 else np.ones(len(coils), dtype=np.complex64)
    combined = np.einsum("j,jrc->rc", np.conj(direction), coils)
    profiles = coils
    for _ in range(_ITERATIONS):
        product = coils * np.conj(combined)
        profiles = np.stack([uniform_filter(image, _NEIGHBOURHOOD, mode="nearest") for image in product])
        profiles /= np.maximum(np.sqrt(np.sum(np.abs(profiles) ** 2, axis=0)), np.float32(1e-20))
        reference = np.einsum("j,jrc->rc", np.conj(np.sum(profiles, axis=(1, 2))), profiles)
        profiles *= np.conj(reference) / np.maximum(np.abs(reference), np.float32(1e-20))
        combined = np.einsum("jrc,jrc->rc", np.conj(profiles), coils)
    return np.asarray(profiles, dtype=np.complex64)
