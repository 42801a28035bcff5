"""Which files `mrbench predict` reads, and where what comes of them goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mrbench.data.manifest import NAME, read_manifest
from mrbench.data.nifti import is_pair_image, nifti_files
from mrbench.data.sniffing import ARRAYS, DICOM, HDF5, IMAGES, NIFTI_LIKE, NOT_TAKEN, sniff
from mrbench.engine.imagefiles import READABLE, few, list_folder
from mrbench.engine.series import dicom_series
from mrbench.errors import DataError, UserError

Family = Literal["picture", "array", "nifti", "dicom", "hdf5"]
Format = Literal["png", "tiff", "npy", "npz", "nifti", "pair"]

FORMATS: dict[str, Format] = {
    ".png": "png", ".tif": "tiff", ".tiff": "tiff", ".npy": "npy", ".npz": "npz", ".nii": "nifti", ".nii.gz": "nifti",
    ".hdr": "pair", ".img": "pair",
}  # fmt: skip
WRITABLE: dict[Family, tuple[Format, ...]] = {
    "picture": ("png", "tiff", "npy", "npz"),
    "array": ("npy", "npz", "tiff", "png"),
    "nifti": ("nifti", "pair"),  # others would lose the affine
    "dicom": ("nifti", "pair", "npy", "npz", "tiff", "png"),
    "hdf5": ("npy", "npz", "tiff", "png"),
}
_NAMES: dict[Family, str] = {"nifti": "NIfTI volume", "dicom": "DICOM series", "hdf5": "HDF5 file"}
_USUAL = {
    "png": ".png",
    "jpeg": ".png",
    "tiff": ".tif",
    "npy": ".npy",
    "npz": ".npz",
    "nifti": ".nii",
    "hdf5": ".npy",
}  # by content
DICOM_ENDINGS = (".dcm", ".ima", ".dicom")
MEAN, SD, DRAW = "_mean", "_sd", "_draw"


@dataclass(frozen=True)
class Job:
    """One volume to restore.

    name : for people. files : one file, or the slices of one volume in order. outputs : one for each of them; one for a DICOM
    series. frames : of DICOM, see :func:`mrbench.data.dicom.read_dicom`.
    """

    name: str
    files: tuple[Path, ...]
    outputs: tuple[Path, ...]
    frames: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Jobs:
    """What is to be done, and what a user should know about it. ``single``: one output file was named for the one input."""

    jobs: tuple[Job, ...]
    notes: tuple[str, ...] = ()
    single: bool = False


def find_jobs(source: Path, target: str) -> Jobs:
    """The jobs for an input file or folder.

    Parameters
    ----------
    source : a picture, array, NIfTI, DICOM or HDF5 file; a folder with one DICOM series; or a folder of any of them, with or without
        ``manifest.csv``. ``target``: a file for a file (or a folder, as it ends in a slash or exists) and for a folder with one
        DICOM series and nothing else, a folder for a folder.

    Raises
    ------
    UserError : nothing there, an output that is the input or lies in it, two inputs with one output, a file as the output of
        several DICOM series.
    DataError : a file of a format that is not read, a single DICOM series that cannot be used.
    """
    source = source.expanduser()
    out = Path(target).expanduser()
    if not source.exists():
        raise UserError(f"{source}: no such file or folder. Give an image, a NIfTI volume, or a folder of them.")
    if not source.is_dir():
        into_folder = out.is_dir() or target.endswith(("/", os.sep))
        output = out / mirrored(source, source.name) if into_folder else out
        if output.is_dir():
            raise UserError(f"{output}: is a folder. Name a file.")
        return _checked(Jobs((Job(str(source), (source,), (output,)),), single=True))
    if out.suffix.lower() in DICOM_ENDINGS and not out.is_dir():
        raise UserError(
            f"{out}: DICOM is never written. Name a folder, or a NIfTI file (.nii.gz) for a folder with one series."
        )
    to_a_file = bool(FORMATS.get(split_ending(out)[1])) and not out.is_dir() and not target.endswith(("/", os.sep))
    if out.exists() and not out.is_dir() and not to_a_file:
        raise UserError(f"{out}: is a file, and the input is a folder. Name a folder for its images.")
    here, there = source.resolve(), out.resolve()
    if (there == here or here in there.parents) and not out.is_file():
        raise UserError(f"{out}: lies in the input folder {source}, so that it would be read next time. Name another folder.")
    if to_a_file:
        return _checked(_one_series(source, out))
    return _checked(_listed(source, out) if (source / NAME).is_file() else _all(source, out))


def _all(source: Path, out: Path) -> Jobs:
    found = list_folder(source, READABLE | DICOM)
    dicom = {f.path: None for f in found.files if sniff(f.path) in DICOM}
    jobs = [Job(f.name, (f.path,), (out / mirrored(f.path, f.name),)) for f in found.files if f.path not in dicom]
    notes = [f"{name} is not read: {reason}" for name, reason in found.refused.items()]
    series, errors = dicom_series(list(dicom))
    for one in series:
        place = one.files[0].parent.relative_to(source) / one.name
        output = out / place.with_name(one.name + (".nii.gz" if one.placed else ".npy"))
        jobs.append(Job(place.as_posix(), one.files, (output,), one.frames))
    notes += [f"not read: {error}" for error in errors]
    if not jobs:
        raise UserError(f"{source}: none of its DICOM files can be used.\n  " + "\n  ".join(map(str, errors[:3])))
    pictures = [f for f in found.files if sniff(f.path) in IMAGES]
    if len(pictures) > 1:
        notes.append(
            f"{len(pictures)} pictures without a {NAME}: each is a volume of its own and is scaled by its own values; a {NAME} "
            "(columns file, subject, volume) groups the slices of one volume, which then share one scale"
        )
    return Jobs(tuple(jobs), tuple(notes))


def _one_series(source: Path, out: Path) -> Jobs:
    """The job for a folder and a file as its output: the folder must hold one DICOM series."""
    found = list_folder(source, READABLE | DICOM)
    files = [f.path for f in found.files if sniff(f.path) in DICOM]
    if not files:
        raise UserError(f"{out}: is a file, and the input is a folder. Name a folder for its images.")
    series, errors = dicom_series(files)
    if not series and errors:
        raise errors[0]
    if len(series) != 1 or errors or len(files) < len(found.files):
        what = f"{len(series)} DICOM series that can be used and {len(found.files) - len(files)} other image(s)"
        raise UserError(
            f"{out}: is a file, and {source} holds {what}. Name a folder for its images: {out.with_name('restored')}/"
        )
    return Jobs((Job(str(source), series[0].files, (out,), series[0].frames),), single=True)


def _listed(source: Path, out: Path) -> Jobs:
    jobs = []
    for volume in read_manifest(source / NAME).volumes:
        names = [f.relative_to(source).as_posix() for f in volume.files]
        outputs = tuple(out / mirrored(f, n) for f, n in zip(volume.files, names, strict=True))
        if len(names) > 1 and sniff(volume.files[0]) in DICOM:  # one volume makes one file
            outputs = (out / Path(names[0]).with_name(f"{volume.volume}.nii.gz"),)
        jobs.append(Job(names[0] if len(names) == 1 else f"{volume.subject}/{volume.volume}", volume.files, outputs))
    listed = {f for job in jobs for f in job.files}
    halves = {other for f in listed if is_pair_image(f) or sniff(f) in NIFTI_LIKE for other in nifti_files(f)}
    others = [f.name for f in list_folder(source, READABLE | DICOM).files if f.path not in listed | halves]
    notes = [f"{len(others)} file(s) not listed in {NAME} are not used: {few(others)}"] if others else []
    return Jobs(tuple(jobs), tuple(notes))


def family_of(path: Path) -> Family:
    """What kind of image a file holds, by its content.

    Raises
    ------
    DataError : none that is read.
    """
    kind = sniff(path)
    if kind in IMAGES:
        return "picture"
    if kind in ARRAYS:
        return "array"
    if kind in NIFTI_LIKE or is_pair_image(path):
        return "nifti"
    if kind in DICOM:
        return "dicom"
    if kind in HDF5:
        return "hdf5"
    raise DataError(path, *NOT_TAKEN[kind])


def split_ending(path: Path) -> tuple[str, str]:
    """A file's name without its ending, and the ending in lower case (``.nii.gz`` and the like count as one)."""
    name = path.name
    count = len(".gz") if name.lower().endswith(".gz") else 0
    stem, dot, last = name[: len(name) - count].rpartition(".")
    if not dot or not stem:
        return name, ""
    return stem, "." + last.lower() + name[len(name) - count :].lower()


def mirrored(path: Path, name: str) -> str:
    """The name of a restored file beside others of its kind: the same, with ``.png`` for JPEG (which would lose again)."""
    family, ending = family_of(path), split_ending(Path(name))[1]
    if FORMATS.get(ending) in WRITABLE[family]:
        return name
    known = ending in (".jpg", ".jpeg", ".jpe", ".hdr.gz", ".img.gz", ".dcm", ".ima", ".h5", ".hdf5", ".mat")
    bare = name[: -len(ending)] if known else name
    if family == "dicom":
        series, _ = dicom_series([path])
        return bare + (".nii.gz" if any(s.placed for s in series) else ".npy")
    return bare + _USUAL.get(sniff(path), ".nii")


def format_of(output: Path, family: Family) -> Format:
    """The format that an output's ending asks for.

    Raises
    ------
    UserError : one that cannot hold what comes of such an input.
    """
    ending = split_ending(output)[1]
    known = FORMATS.get(ending)
    if known in WRITABLE[family]:
        return known
    endings = ", ".join(e for e, f in FORMATS.items() if f in WRITABLE[family])
    why = "it has no ending" if not ending else f"{ending} is not written here"
    if ending in (".jpg", ".jpeg"):
        why = "JPEG would lose again what was restored"
    elif known is not None and family == "nifti":
        why = f"{ending} would lose the position in space"
    elif known is not None:
        why = f"nothing is known of the position in space that {ending} states"
    raise UserError(f"{output}: {why}. Endings for a restored {_NAMES.get(family, family)}: {endings}.")


def variant(output: Path, what: str) -> Path:
    """Where a posterior mean, standard deviation or further draw goes. Standard deviations of PNG are float TIFF."""
    stem, ending = split_ending(output)
    return output.with_name(f"{stem}{what}{'.tif' if what == SD and ending == '.png' else output.name[len(stem) :]}")


def kinds_of(draws: int, all_draws: bool) -> list[str]:
    """What is written: draw 1 (no suffix), of several draws their mean and standard deviation, and the other draws if asked."""
    if draws == 1:
        return [""]
    others = [f"{DRAW}{k:0{len(str(draws))}d}" for k in range(2, draws + 1)] if all_draws else []
    return ["", MEAN, SD, *others]


def files_of(output: Path) -> tuple[Path, ...]:
    """The files that an output makes: both halves of a ``.hdr`` + ``.img`` pair."""
    if FORMATS.get(split_ending(output)[1]) != "pair":
        return (output,)
    upper = output.suffix.isupper()
    return tuple(output.with_suffix(e.upper() if upper else e) for e in (".hdr", ".img"))


def all_outputs(job: Job, kinds: Sequence[str]) -> list[Path]:
    """All files that a job writes."""
    return [file for output in job.outputs for kind in kinds for file in files_of(variant(output, kind))]


def refuse_existing(jobs: Sequence[Job], kinds: Sequence[str], force: bool) -> None:
    """Refuse to overwrite (unless ``force``), to overwrite the input (ever), and to write where that is not possible.

    Raises
    ------
    UserError : names the first files and the way out.
    """
    inputs = {f.resolve() for job in jobs for f in _sources(job)}
    owners: dict[Path, str] = {}
    existing = []
    for job in jobs:
        for output in all_outputs(job, kinds):
            place = output.resolve()
            if place in inputs:
                raise UserError(f"{output}: is an input. Name another output; inputs are never overwritten.")
            if place in owners:
                raise UserError(f"{output}: would be written twice, for {owners[place]} and {job.name}. Rename one of them.")
            owners[place] = job.name
            if output.exists():
                existing.append(str(output))
            _check_place(output)
    if existing and not force:
        verb = "exists" if len(existing) == 1 else "exist"
        raise UserError(f"{few(existing)} {verb} already. Name another output, or overwrite with --force.")


def done_before(job: Job, kinds: Sequence[str]) -> bool:
    """Whether all outputs of a job are there."""
    return all(output.is_file() for output in all_outputs(job, kinds))


def _sources(job: Job) -> list[Path]:
    found: list[Path] = []
    for file in job.files:
        try:
            found += nifti_files(file) if family_of(file) == "nifti" else (file,)
        except DataError:  # reading it says why
            found.append(file)
    return found


def _check_place(output: Path) -> None:
    folder = output.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{output}: {folder} is a file, not a folder. Name another output.")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{output}: the folder {folder} cannot be written. Name another output.")
    if output.is_dir():
        raise UserError(f"{output}: is a folder. Name a file.")


def _checked(found: Jobs) -> Jobs:
    """Endings are looked at before anything is computed; a file that cannot be read is left for its job to report."""
    for job in found.jobs:
        for file, output in zip(job.files, job.outputs, strict=False):  # a DICOM series has one output
            format_of(output, family_of(file))
    return found
