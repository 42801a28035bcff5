"""A protocol in words, as the methods section of a paper says it, from the rules that its hash covers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mrbench.report.text import clean, count

if TYPE_CHECKING:
    from mrbench.store.manifest import ProtocolInfo

_PLANES = {"native": "across the thickest voxel axis"}
_NOISE = {"gaussian": "Gaussian", "complex_gaussian": "complex Gaussian", "rician": "Rician"}


def protocol_sentences(info: ProtocolInfo) -> list[str]:
    """Preparation, degradation, noise and split, a sentence each."""
    rules = info.rules
    found = [*preparation_sentences(_mapping(rules.get("preparation"))), degradation_sentence(rules), noise_sentence(rules)]
    split = _mapping(rules.get("split"))
    if split:
        found.append(
            f"Splits are by {clean(split.get('unit', 'subject'))}; the part measured is {clean(split.get('part', ''))}."
        )
    return [s for s in found if s]


def preparation_sentences(spec: Mapping[str, Any]) -> list[str]:
    """How ground-truth slices were made of stored volumes."""
    if not spec:
        return []
    plane = clean(spec.get("plane", "native"))
    found = [f"Slices were cut {_PLANES.get(plane, f'in the {plane} plane')}.", _intensity(_mapping(spec.get("intensity")))]
    sizes = []
    canvas, crop = spec.get("canvas"), _mapping(spec.get("crop"))
    if canvas:
        sizes.append(f"cropped and zero-padded to {canvas[0]} x {canvas[1]} pixels")
    if crop.get("square"):
        sizes.append("cropped to squares")
    if crop.get("multiple", 1) > 1:
        sizes.append(f"centre-cropped to multiples of {crop['multiple']}")
    if sizes:
        found.append(f"They were {', then '.join(sizes)}.")
    least = _mapping(spec.get("foreground")).get("min_fraction", 0)
    if least:
        found.append(f"Slices whose foreground covers less than {least:.4g} of the frame were left out.")
    first, last = spec.get("trim_first", 0), spec.get("trim_last", 0)
    if first or last:
        found.append(f"Of the others, {first} at the beginning and {last} at the end of every volume were left out.")
    spacing = spec.get("slice_spacing")
    if spacing:
        found.append(f"Volumes whose slices are not {spacing[0]:g} to {spacing[1]:g} mm apart were left out.")
    return [s for s in found if s]


def _intensity(spec: Mapping[str, Any]) -> str:
    kind = spec.get("kind")
    clipped = " and clipped to [0, 1]" if spec.get("clip") else ""
    levels = f", rounded to {spec['levels']} grey levels" if spec.get("levels") else ""
    if kind == "percentile":
        top = f"{spec.get('percentile', 0):g}th percentile" if spec.get("percentile") != 100 else "largest value"
        if spec.get("offset") == "min":
            return f"Intensities were mapped so that the volume's smallest value and its {top} become 0 and 1{clipped}{levels}."
        return f"Intensities were divided by the volume's {top} (of the ground truth){clipped}{levels}."
    if kind == "fixed":
        return f"Intensities were mapped so that {spec.get('low'):g} and {spec.get('high'):g} become 0 and 1{clipped}{levels}."
    return "Intensities were used as stored, in [0, 1]." if kind == "none" else ""


def degradation_sentence(rules: Mapping[str, Any]) -> str:
    """The forward operator with its options and factors."""
    spec = _mapping(rules.get("degradation"))
    if not spec:
        return ""
    factors = [float(s) for s in rules.get("scale", ())]
    by = " x ".join(f"{s:g}" for s in factors)
    options = _mapping(spec.get("options"))
    details = ", ".join(f"{clean(k)} = {clean(v)}" for k, v in options.items() if v is not None)
    how = f"{clean(spec.get('name', ''))}{f' ({details})' if details else ''}, version {clean(spec.get('version', 1))}"
    if rules.get("dimensions") == 3:
        found = (
            f"Volumes were degraded in 3-D by {how}, {by} times along slices, rows and columns, and cut into slices afterwards"
        )
        through = rules.get("through_plane")
        found += f" ({clean(through)} interpolation to the HR slice positions)" if through else ""
        extra = {
            "pre_upsample": "LR volumes were brought back to the HR grid by {}",
            "slice_scaling": "slices were rescaled: {}",
        }
        return found + "".join(f"; {text.format(clean(rules[k]))}" for k, text in extra.items() if rules.get(k)) + "."
    return f"LR slices were made by {how}, with factors {by} along rows and columns."


def noise_sentence(rules: Mapping[str, Any]) -> str:
    """The noise of the measurement, and whether it was clipped."""
    spec = _mapping(rules.get("noise"))
    clipped = " LR images were clipped to [0, 1]." if rules.get("clip_measurement") else ""
    kind = spec.get("kind")
    if kind is None:
        return clipped.strip()
    if kind == "none":
        return f"No noise was added.{clipped}"
    return (
        f"{_NOISE.get(kind, clean(kind))} noise with a standard deviation of {spec.get('sigma', 0):g} of the [0, 1] range was added, seeded by "
        f"item.{clipped}"
    )


def size_sentence(dataset: str, items: int, subjects: int) -> str:
    """How much was measured."""
    return f"{count(items, 'slice')} of {count(subjects, 'subject')} of {dataset}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


__all__ = ["degradation_sentence", "noise_sentence", "preparation_sentences", "protocol_sentences", "size_sentence"]
