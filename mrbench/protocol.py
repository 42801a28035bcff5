"""Protocols: the fixed rules of one comparison, validated, resolved and hashed.

The hash covers what determines measurements and ground truth, whatever the data set: split rule, preparation,
degradation with all parameters, noise, scale, seed rule, and the versions of the code that these rules name. Metrics
and draws are reported, not hashed: every metric column carries its own signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from mrbench.cards import DegradationCard, Options
from mrbench.errors import UserError
from mrbench.plugins import Registry, did_you_mean
from mrbench.settings import PREPARATION_VERSION, PreparationSpec

HASH_FORMAT = 1
HASH_DIGITS = 16


class SplitSpec(Options):
    """Which part of the data set is measured. Splits are by subject, always."""

    part: Literal["train", "val", "test"] = "test"
    unit: Literal["subject"] = "subject"


class DegradationSpec(Options):
    """The forward operator by name, with the options that differ from its defaults."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class NoiseSpec(Options):
    """Noise added to the measurement. ``sigma`` is in units of the [0, 1] range of the ground truth."""

    kind: Literal["none", "gaussian", "complex_gaussian", "rician"] = "none"
    sigma: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> NoiseSpec:
        if (self.kind == "none") != (self.sigma == 0):
            raise ValueError("noise kind 'none' goes with sigma 0, every other kind with sigma > 0")
        return self


class Protocol(Options):
    """One protocol file (``mrbench/protocols/*.yaml``, or any YAML file with these fields)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(default=1, ge=1)
    summary: str = ""
    scale: float | tuple[float, ...]  # one factor for both in-plane axes, or one per axis (slices first if 3-D)
    dimensions: Literal[2, 3] = 2  # 3: the whole volume is degraded, slices are cut afterwards
    split: SplitSpec = SplitSpec()
    preparation: PreparationSpec = PreparationSpec()
    degradation: DegradationSpec = DegradationSpec(name="bicubic_aa")
    noise: NoiseSpec = NoiseSpec()
    clip_measurement: bool = False
    through_plane: Literal["linear", "nearest"] = "linear"  # 3-D only: y is brought back to the HR slice positions
    pre_upsample: Literal["none", "sitk_bspline"] = "none"  # 3-D only: y is brought back to the HR grid along every axis
    slice_scaling: Literal["none", "own_min_max"] = "none"  # 3-D only: HR and y each by its own extremes, slice by slice
    seed_rule: Literal["item-v1"] = "item-v1"  # H(protocol hash, item id, "measurement" | draw)
    metrics: tuple[str, ...] = Field(min_length=1)
    draws: int = Field(default=1, ge=1)
    assumptions: tuple[str, ...] = ()

    @field_validator("scale")
    @classmethod
    def _positive(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        factors = value if isinstance(value, tuple) else (value,)
        if not factors or any(not 1 <= f <= 64 for f in factors):
            raise ValueError("scale factors lie between 1 and 64")
        return value

    @model_validator(mode="after")
    def _axes(self) -> Protocol:
        if isinstance(self.scale, tuple) and len(self.scale) != self.dimensions:
            raise ValueError(f"scale has {len(self.scale)} factors for {self.dimensions} dimensions")
        if self.dimensions == 2 and (self.pre_upsample != "none" or self.slice_scaling != "none"):
            raise ValueError("pre_upsample and slice_scaling would undo a 2-D operator: they belong to dimensions: 3")
        return self

    @property
    def scales(self) -> tuple[float, ...]:
        """One factor per degraded axis (a single number means: in-plane, slices untouched)."""
        if isinstance(self.scale, tuple):
            return self.scale
        return (1.0,) * (self.dimensions - 2) + (self.scale, self.scale)

    @property
    def in_plane(self) -> float:
        """The factor that weights are chosen by: the larger of the two in-plane ones."""
        return max(self.scales[-2:])


@dataclass(frozen=True)
class ResolvedProtocol:
    """A protocol with every default written out, its degradation card, and its hash."""

    protocol: Protocol
    degradation: DegradationCard
    degradation_options: Options
    rules: Mapping[str, Any]  # what is hashed
    hash: str

    @property
    def name(self) -> str:
        """The protocol's name."""
        return self.protocol.name

    def document(self) -> dict[str, Any]:
        """Everything, JSON-serialisable, as printed by ``mrbench protocols show`` and stored in manifests."""
        p = self.protocol
        return {
            "name": p.name,
            "version": p.version,
            "summary": p.summary,
            "hash": self.hash,
            "rules": dict(self.rules),
            "metrics": list(p.metrics),
            "draws": p.draws,
            "assumptions": list(p.assumptions),
        }


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; equal on every machine for equal content."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any, digits: int = HASH_DIGITS) -> str:
    """The first hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:digits]


def resolve(protocol: Protocol, registry: Registry) -> ResolvedProtocol:
    """Write out all defaults and compute the hash.

    Raises
    ------
    UserError : unknown degradation or bad options for it, or one that does not work in these dimensions.
    """
    card = registry.degradations.get(protocol.degradation.name)
    options = card.parse(protocol.degradation.options, f"protocol {protocol.name}: degradation {card.name}")
    if protocol.dimensions not in card.ndim:
        dims = " and ".join(f"{d}-D" for d in card.ndim)
        raise UserError(f"protocol {protocol.name}: degradation {card.name} works in {dims}, not in {protocol.dimensions}-D.")
    rules = {
        "format": HASH_FORMAT,
        "split": protocol.split.model_dump(mode="json"),
        "preparation": protocol.preparation.model_dump(mode="json"),
        "preparation_version": PREPARATION_VERSION,
        "scale": [float(s) for s in protocol.scales],
        "dimensions": protocol.dimensions,
        "degradation": {"name": card.name, "version": card.version, "options": options.model_dump(mode="json")},
        "noise": protocol.noise.model_dump(mode="json"),
        "clip_measurement": protocol.clip_measurement,
        "seed_rule": protocol.seed_rule,
    }
    if protocol.dimensions == 3:
        rules["through_plane"] = protocol.through_plane
        later = {"pre_upsample": protocol.pre_upsample, "slice_scaling": protocol.slice_scaling}
        rules |= {name: value for name, value in later.items() if value != "none"}  # hashes older than these stay as they are
    return ResolvedProtocol(protocol, card, options, rules, digest(rules))


def parse_protocol(document: Any, source: str) -> Protocol:
    """Validate a parsed YAML document.

    Raises
    ------
    UserError : names the source, each bad field and the known ones.
    """
    if not isinstance(document, dict):
        raise UserError(f"{source}: a protocol is a mapping of fields, got {type(document).__name__}.")
    try:
        return Protocol.model_validate(document)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            where = ".".join(map(str, e["loc"])) or "protocol"
            if e["type"] == "extra_forbidden" and len(e["loc"]) == 1:
                lines.append(f"unknown field {where!r}.{did_you_mean(where, Protocol.model_fields)}")
            elif e["type"] == "extra_forbidden":
                lines.append(f"unknown field {where!r}")
            else:
                lines.append(f"{where}: {e['msg']}")
        known = ", ".join(Protocol.model_fields)
        raise UserError(f"{source}: " + "; ".join(lines) + f" Known fields: {known}.") from None


def load_file(path: Path) -> Protocol:
    """Read a protocol from a YAML file (``UserError`` if it is missing, not YAML, or not valid)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"protocol file {path}: cannot be read ({error}).") from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"protocol file {path}: not valid YAML: {error}") from None
    return parse_protocol(document, f"protocol file {path}")


def named_protocols() -> dict[str, Protocol]:
    """The protocols that ship with mrbench, by name."""
    found = {}
    for entry in sorted(files("mrbench.protocols").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".yaml"):
            protocol = parse_protocol(yaml.safe_load(entry.read_text(encoding="utf-8")), f"protocol {entry.name}")
            if protocol.name != entry.name.removesuffix(".yaml"):
                raise ValueError(f"{entry.name} names itself {protocol.name!r}")
            found[protocol.name] = protocol
    return found


def find_protocol(name: str) -> Protocol:
    """A named protocol, or the one in a YAML file (a name with ``/`` or ending in ``.yaml`` is a path)."""
    if name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name:
        return load_file(Path(name).expanduser())
    known = named_protocols()
    if name not in known:
        raise UserError(
            f"no protocol named {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}. A path to a .yaml file works too."
        )
    return known[name]


def uniform_name(scale: int) -> str:
    """``--scale S`` means the protocol ``uniform-xS``."""
    known = sorted(n for n in named_protocols() if n.startswith("uniform-x"))
    if f"uniform-x{scale}" not in known:
        raise UserError(f"no uniform protocol for scale {scale}. Known: {', '.join(known)}. Name another with --protocol.")
    return f"uniform-x{scale}"


def task_hash(protocol_hash: str, dataset: str, version: str, items: Iterable[tuple[str, str]]) -> str:
    """Hash of one task: protocol, data set and the manifest of its items (id and content hash of each)."""
    return digest({"protocol": protocol_hash, "dataset": dataset, "version": version, "items": sorted(map(list, items))})
