"""Restored slices as files: in the input's units and type of values, and at the same place in space."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mrbench.data.dicom import read_headers
from mrbench.data.nifti import nifti_files
from mrbench.data.orientation import Display
from mrbench.data.records import Volume
from mrbench.degradation.grid import AxisGrid
from mrbench.engine.imagefiles import stored_type
from mrbench.engine.predict_files import Family, Format, files_of, format_of
from mrbench.engine.series import h5_type
from mrbench.errors import DataError, UserError

PNG_TYPES = ("uint8", "uint16")
_NIFTI_OWN = ("sizeof_hdr", "magic", "vox_offset", "dim", "datatype", "bitpix", "scl_slope", "scl_inter")  # written anew


@dataclass(frozen=True)
class StoredAs:
    """Type of the stored values, and ``native = slope * stored + inter``."""

    dtype: np.dtype[np.generic]
    slope: float = 1.0
    inter: float = 0.0

    def encode(self, native: NDArray[np.float32]) -> tuple[NDArray[Any], int]:
        """Stored values of an image in native units, and how many pixels were cut to the range of the type.

        Parameters
        ----------
        native : ``[C, H, W]``, finite. Complex types take 2 channels (real, imaginary), all others one number a channel.

        Returns
        -------
        ``[H, W]``, or ``[H, W, 3]`` for colour. Integers are rounded to the nearest, halves to even.
        """
        values = (native.astype(np.float64) - self.inter) / self.slope
        if self.dtype.kind == "c":
            return (values[0] + 1j * values[1]).astype(self.dtype), 0
        image = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
        if self.dtype.kind == "f":
            top = float(np.finfo(self.dtype.name).max)
            cut = np.clip(image, -top, top)
            return cut.astype(self.dtype), int((cut != image).sum())
        limits = np.iinfo(self.dtype.name)
        low, high = float(limits.min), float(limits.max)
        if high != limits.max:  # 64 bits: the limit itself is no float64
            high = float(np.nextafter(high, 0))
        rounded = np.rint(image)
        cut = np.clip(rounded, low, high)
        return cut.astype(self.dtype), int((cut != rounded).sum())


FLOAT = StoredAs(np.dtype("float32"))  # of standard deviations


@dataclass(frozen=True)
class NiftiForm:
    """The header of the input, which holds its place in space."""

    header: Any
    display: Display

    def matrix(self, grids: tuple[AxisGrid, AxisGrid]) -> NDArray[np.float64]:
        """Restored voxel index -> input voxel index, ``[4, 4]``, both along the stored axes.

        LR sample ``i`` of an axis sits at HR coordinate ``offset + step i`` (:class:`AxisGrid`, along displayed rows and columns),
        so ``i = (j - offset) / step``. For an axis that is stored backwards, ``i`` and ``j`` count from the other end.
        """
        result = np.eye(4)
        for axis, flip, g in zip(self.display.axes[1:], self.display.flips[1:], grids, strict=True):
            offset = g.n_hr - 1 - (g.offset + g.step * (g.n_lr - 1)) if flip else g.offset
            result[axis, axis] = 1 / g.step
            result[axis, 3] = -offset / g.step
        return result

    def placed(self, shape: Sequence[int], dtype: np.dtype[np.generic], matrix: NDArray[np.float64], pair: bool) -> Any:
        """A header for an image of ``shape`` whose voxels lie where ``matrix`` says; sform and qform as the input has them."""
        from nibabel import nifti1, nifti2

        old = self.header
        is_nifti = isinstance(old, nifti1.Nifti1Header)
        if isinstance(old, nifti2.Nifti2Header):
            new: Any = nifti2.Nifti2PairHeader() if pair else nifti2.Nifti2Header()  # type: ignore[no-untyped-call]
        else:
            new = nifti1.Nifti1PairHeader() if pair else nifti1.Nifti1Header()  # type: ignore[no-untyped-call]
        if is_nifti:
            for name in old:
                if name not in _NIFTI_OWN:
                    new[name] = old[name]
            new.extensions = old.extensions
        new.set_data_dtype(dtype)
        new.set_data_shape(tuple(shape))
        scale = np.diag(matrix)[:3]
        zooms = [abs(float(z)) for z in old.get_zooms()[:3]]
        new.set_zooms([z * s for z, s in zip([*zooms, *[1.0] * (3 - len(zooms))], scale, strict=True)])
        if is_nifti:
            if int(old["sform_code"]) > 0:
                new.set_sform(old.get_sform() @ matrix, int(old["sform_code"]))
            if int(old["qform_code"]) > 0:
                new.set_qform(old.get_qform() @ matrix, int(old["qform_code"]))  # scaled axes: rotation and handedness stay
            through = new.get_dim_info()[2]
            if through is not None and scale[through] != 1:  # the order in time of slices that are no more
                for name in ("slice_code", "slice_start", "slice_end", "slice_duration"):
                    new[name] = 0
        return new


@dataclass(frozen=True)
class Form:
    """How the slices of one input are stored, and how restored ones are to be.

    family : of the file. stored : type of its values. flat : an array ``[rows, columns]`` without a slice axis. key : name of
    the array in ``.npz``. nifti : of NIfTI volumes, and what a DICOM series is as one. shown : the display of arrays that are
    stored in another order.
    """

    family: Family
    stored: StoredAs
    flat: bool = False
    key: str = "image"
    nifti: NiftiForm | None = None
    shown: Display | None = None

    def check(self, output: Path, slices: int, channels: int) -> Format:
        """The format of an output that is to hold such slices.

        Raises
        ------
        UserError : the format of the name cannot hold them.
        """
        form, dtype = format_of(output, self.family), self.stored.dtype
        fix = "Name it .tif or .npy." if dtype.kind != "c" and channels != 2 else "Name it .npy."
        if form in ("nifti", "pair") and self.nifti is None:
            raise UserError(f"{output}: the input is a single image, whose place in space is not known here. {fix}")
        if form == "png" and dtype.name not in PNG_TYPES:
            raise UserError(f"{output}: the input's values are {dtype.name}, and PNG holds {' or '.join(PNG_TYPES)}. {fix}")
        if form == "png" and channels == 3 and dtype.name != "uint8":
            raise UserError(f"{output}: colour PNG holds uint8 here, and the input's values are {dtype.name}. {fix}")
        if form == "png" and slices > 1:
            raise UserError(f"{output}: PNG holds one image, and the input has {slices}. {fix}")
        if form == "tiff" and dtype.kind == "c":
            raise UserError(f"{output}: TIFF holds no complex numbers here. {fix}")
        return form

    def content(
        self, output: Path, images: Sequence[NDArray[Any]], grids: tuple[AxisGrid, AxisGrid], stored: StoredAs
    ) -> list[tuple[Path, bytes]]:
        """The files of one output: their paths and bytes, in the order in which they are to appear.

        Parameters
        ----------
        images : the encoded slices, in display order. stored : how they were encoded.
        """
        form = format_of(output, self.family)
        stack = np.stack(images)
        if form in ("nifti", "pair"):
            return self._nifti(output, stack, grids, stored)
        if self.shown is not None:
            stack = self.shown.undo(stack)
        stream = io.BytesIO()
        if form == "png":
            from PIL import Image

            Image.fromarray(stack[0]).save(stream, format="PNG")
        elif form == "tiff":
            import tifffile

            colour = stack.ndim == 4
            pages = stack if len(stack) > 1 else stack[0]
            tifffile.imwrite(stream, pages, photometric="rgb" if colour else "minisblack", metadata=None)
        elif form == "npy":
            np.save(stream, stack[0] if self.flat else stack)
        else:
            arrays: dict[str, Any] = {self.key: stack[0] if self.flat else stack}
            np.savez_compressed(stream, **arrays)
        return [(output, stream.getvalue())]

    def _nifti(
        self, output: Path, stack: NDArray[Any], grids: tuple[AxisGrid, AxisGrid], stored: StoredAs
    ) -> list[tuple[Path, bytes]]:
        from nibabel import nifti1, nifti2
        from nibabel.fileholders import FileHolder

        assert self.nifti is not None
        array = np.ascontiguousarray(self.nifti.display.undo(stack))
        files = files_of(output)
        pair = len(files) == 2
        header = self.nifti.placed(array.shape, stored.dtype, self.nifti.matrix(grids), pair)
        if stored is FLOAT:  # another quantity: the display range of the image is none of its
            header["cal_min"] = header["cal_max"] = 0
        second = isinstance(header, nifti2.Nifti2Header)
        kinds: Any = (nifti2.Nifti2Pair, nifti2.Nifti2Image) if second else (nifti1.Nifti1Pair, nifti1.Nifti1Image)
        image = (kinds[0] if pair else kinds[1])(array, None, header)
        image.header.set_slope_inter(stored.slope, stored.inter)  # set anew: images forget those of their header
        if pair:
            halves = {name: FileHolder(fileobj=io.BytesIO()) for name in ("header", "image")}
            image.to_file_map(halves)
            header_bytes, pixels = (cast(io.BytesIO, halves[name].fileobj).getvalue() for name in ("header", "image"))
            return [(files[1], pixels), (files[0], header_bytes)]
        data: bytes = image.to_bytes()
        return [(output, gzip.compress(data, mtime=0) if output.name.lower().endswith(".gz") else data)]


def dicom_form(files: Sequence[Path], volume: Volume, display: Display) -> Form:
    """How what comes of a DICOM series is stored: integers as they are where no image has a slope, else float32.

    The header of a NIfTI file is made from the volume's affine.
    """
    headers = [header for file in files for header in read_headers(file)]
    first = headers[0]
    plain = all((h.slope, h.intercept, h.bits, h.signed) == (1, 0, first.bits, first.signed) for h in headers)
    kind = f"{'' if first.signed else 'u'}int{first.bits}" if plain else "float32"
    nifti = NiftiForm(_header(volume.affine, volume), display) if volume.affine is not None else None
    return Form("dicom", StoredAs(np.dtype(kind)), flat=volume.array.shape[1] == 1, nifti=nifti)


def _header(affine: NDArray[np.float64], volume: Volume) -> Any:
    """A NIfTI-1 header with the affine as scanner coordinates; the quaternion too, unless the axes are sheared."""
    from nibabel.nifti1 import Nifti1Header

    header: Any = Nifti1Header()  # type: ignore[no-untyped-call]
    header.set_data_shape(volume.array.shape[1:])
    header.set_zooms(volume.voxel)
    header.set_xyzt_units("mm")
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        header.set_qform(None, 0)
    return header


def h5_form(path: Path, key: str | None, volume: Volume, display: Display) -> Form:
    """How what comes of an HDF5 file is stored: in an array, in the order of the file's axes (``DataError`` for a mask)."""
    dtype = h5_type(path, key)
    if dtype.kind == "b":
        raise DataError(path, "it holds only yes and no: a mask, not an image.", "Give the image itself.")
    return Form("hdf5", StoredAs(dtype), flat=volume.array.shape[1] == 1, shown=display)


def form_of(file: Path, family: Family, display: Display, key: str | None) -> Form:
    """How a file stores its slices. It has been read before, so it is whole.

    Raises
    ------
    DataError : 1-bit images, or a header that cannot be carried over.
    """
    if family == "nifti":
        return _nifti_form(file, display)
    dtype, flat, name = (stored_type(file), True, "image") if family == "picture" else _array_layout(file, key)
    if dtype.kind == "b":
        raise DataError(file, "it has 1 bit a pixel: a mask, not an image.", "Give the image itself.")
    return Form(family, StoredAs(dtype), flat, name)


def _array_layout(file: Path, key: str | None) -> tuple[np.dtype[Any], bool, str]:
    """Type of an array, whether it has no slice axis, and its name in an ``.npz``."""
    loaded = np.load(file, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded.dtype.newbyteorder("="), loaded.ndim == 2, "image"
    with loaded as archive:
        name = key or archive.files[0]
        array = archive[name]
        return array.dtype.newbyteorder("="), array.ndim == 2, name


def _nifti_form(file: Path, display: Display) -> Form:
    import nibabel

    try:
        image: Any = nibabel.load(nifti_files(file)[0])
        header = image.header
        stored = StoredAs(np.dtype(image.get_data_dtype()).newbyteorder("="), *_slope_inter(image))
        header.get_zooms()
        if "qform_code" in header and int(header["qform_code"]) > 0:
            header.get_qform()
    except Exception as error:  # nibabel raises many kinds of errors on odd headers
        raise DataError(file, f"its header cannot be carried over: {error}.", "Repair it, or convert the volume.") from error
    return Form("nifti", stored, nifti=NiftiForm(header, display))


def _slope_inter(image: Any) -> tuple[float, float]:
    slope, inter = getattr(image.dataobj, "slope", 1.0), getattr(image.dataobj, "inter", 0.0)
    slope = 1.0 if slope is None or not np.isfinite(slope) or slope == 0 else float(slope)
    return slope, 0.0 if inter is None or not np.isfinite(inter) else float(inter)


__all__ = ["FLOAT", "Form", "NiftiForm", "StoredAs", "dicom_form", "form_of", "h5_form"]
