"""Guarded, lazy plugin discovery.

Built-in and outside plugins come by the same road, the entry-point group ``mrbench``. Each entry point and each hook
is called in its own ``try``: a broken plugin is listed with its reason and harms nobody else.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import pluggy

from mrbench import hookspecs
from mrbench.cards import Card, DatasetCard, DegradationCard, MethodCard, MetricCard
from mrbench.errors import UserError

GROUP = "mrbench"
RESTRICT = "MRBENCH_PLUGINS"
OWN_DISTRIBUTION = "mrbench"

C = TypeVar("C", bound=Card)


@dataclass
class PluginInfo:
    """One plugin as ``mrbench plugins`` lists it."""

    name: str
    origin: str  # "package:module" of an entry point, or the file's path
    distribution: str = ""
    version: str = ""
    code: str = ""  # identity of outside code: "distribution version", or the SHA-256 of a plugin file; "" for built-in ones
    status: str = "ok"  # ok | broken
    reason: str = ""
    provides: list[str] = field(default_factory=list)

    def broken(self, reason: str) -> None:
        """Mark the plugin as broken; reasons add up."""
        self.status = "broken"
        self.reason = f"{self.reason}; {reason}" if self.reason else reason

    def describe(self) -> str:
        """``name (distribution version)``, or ``name (file)``."""
        return (
            f"{self.name} ({self.distribution} {self.version})".replace(" )", ")")
            if self.distribution
            else f"{self.name} ({self.origin})"
        )


class Shelf(Generic[C]):
    """The cards of one kind, by name. Names claimed twice are kept apart and refused when asked for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._cards: dict[str, C] = {}
        self._owners: dict[str, list[PluginInfo]] = {}

    def add(self, card: C, owner: PluginInfo) -> None:
        """Put a card on the shelf; the first of one name is kept for listings."""
        self._cards.setdefault(card.name, card)
        self._owners.setdefault(card.name, []).append(owner)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._cards)

    def owner(self, name: str) -> str:
        """The plugin (or plugins) that bring the card."""
        return " and ".join(o.describe() for o in self._owners[name])

    def code(self, name: str) -> str:
        """Identity of the code behind a card, beyond the card's own version (``""`` for built-in plugins)."""
        return self._owners[name][0].code

    def conflict(self, name: str) -> str:
        """Why ``name`` cannot be used, or the empty string."""
        owners = self._owners.get(name, [])
        if len(owners) < 2:
            return ""
        return f"two plugins bring a {self.kind} named {name!r}: {self.owner(name)}"

    def card(self, name: str) -> C:
        """The card as registered first, even if its name is claimed twice (for listings)."""
        return self._cards[name]

    def get(self, name: str) -> C:
        """The card of that name.

        Raises
        ------
        UserError : unknown (with near names and all that exist) or claimed by two plugins (naming both).
        """
        if name not in self._cards:
            raise UserError(f"no {self.kind} named {name!r}.{did_you_mean(name, self._cards)} {self._known()}")
        conflict = self.conflict(name)
        if conflict:
            raise UserError(f"{conflict}. Uninstall one of them, or restrict plugins with {RESTRICT}=NAME,...")
        return self._cards[name]

    def _known(self) -> str:
        return f"Known: {', '.join(self.names()) or 'none'}."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for near misses, else the empty string."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


class Registry:
    """All plugins of one process: the four shelves, the list of plugins, and the life-cycle hooks."""

    def __init__(self) -> None:
        self.methods: Shelf[MethodCard] = Shelf("method")
        self.datasets: Shelf[DatasetCard] = Shelf("data set")
        self.metrics: Shelf[MetricCard] = Shelf("metric")
        self.degradations: Shelf[DegradationCard] = Shelf("degradation")
        self.plugins: list[PluginInfo] = []
        self.warnings: list[str] = []
        self._pm = pluggy.PluginManager(GROUP)
        self._pm.add_hookspecs(hookspecs)
        self._files: list[str] = []

    @property
    def files(self) -> list[str]:
        """Plugin files loaded with ``--plugin``, as absolute paths."""
        return list(self._files)

    def register(self, plugin: object, info: PluginInfo) -> None:
        """Register a plugin object and collect its cards; whatever goes wrong is written into ``info``."""
        twin = next((p for p in self.plugins if p.name == info.name), None)
        self.plugins.append(info)
        if twin is not None:
            info.broken(f"another plugin has the name {info.name!r}: {twin.describe()} and {info.describe()}")
            return
        try:
            self._pm.register(plugin, name=info.name)
        except Exception as error:
            info.broken(f"{type(error).__name__}: {error}")
            return
        hooks = {h.name for h in self._pm.get_hookcallers(plugin) or []}
        specified = {n for n in dir(hookspecs) if n.startswith("mrbench_")}
        for unknown in sorted(hooks - specified):
            info.broken(f"implements the unknown hook {unknown!r}.{did_you_mean(unknown, specified)}")
        if not hooks:
            info.broken("implements no hook (mark functions with @mrbench.hookimpl)")
        if info.status == "broken":
            self._pm.unregister(plugin)
            return
        for hook, shelf, kind in (
            ("mrbench_methods", self.methods, MethodCard),
            ("mrbench_datasets", self.datasets, DatasetCard),
            ("mrbench_metrics", self.metrics, MetricCard),
            ("mrbench_degradations", self.degradations, DegradationCard),
        ):
            if hook in hooks:
                self._collect(plugin, info, hook, shelf, kind)

    def _collect(self, plugin: object, info: PluginInfo, hook: str, shelf: Shelf[Any], kind: type[Card]) -> None:
        try:
            cards = list(getattr(plugin, hook)())
        except Exception as error:
            info.broken(f"{hook} raised {type(error).__name__}: {error}")
            return
        for card in cards:
            if not isinstance(card, kind):
                info.broken(f"{hook} returned {type(card).__name__!r}, expected {kind.__name__}")
            elif not card.name or any(c in card.name for c in "=@/\\ \t\n"):
                info.broken(f"{hook}: bad name {card.name!r}: names may not be empty or hold spaces, '=', '@', '/' or '\\'")
            else:
                shelf.add(card, info)
                info.provides.append(f"{shelf.kind} {card.name}")

    def load_entry_point(self, point: EntryPoint) -> None:
        """Import an installed plugin; one that raises is listed as broken."""
        dist = point.dist
        info = PluginInfo(point.name, point.value, dist.name if dist else "", dist.version if dist else "")
        info.code = "" if _own(point) else f"{info.distribution} {info.version}".strip()
        try:
            module = point.load()
        except BaseException as error:  # a plugin may even call sys.exit at import
            if isinstance(error, KeyboardInterrupt):
                raise
            info.broken(f"import failed: {type(error).__name__}: {error}")
            self.plugins.append(info)
            return
        self.register(module, info)

    def load_file(self, file: Path) -> None:
        """Load a plugin from a Python file.

        Raises
        ------
        UserError : the file does not exist. A file that raises on import is listed as broken instead.
        """
        path = file.expanduser().resolve()
        if not path.is_file():
            raise UserError(f"--plugin {file}: no such file. Give the path of a Python file with mrbench hooks.")
        info = PluginInfo(path.stem, str(path), version="file", code=hashlib.sha256(path.read_bytes()).hexdigest())
        self._files.append(str(path))
        name = f"mrbench_plugin_file_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            info.broken("not a Python file")
            self.plugins.append(info)
            return
        module: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            sys.modules.pop(name, None)
            info.broken(f"import failed: {type(error).__name__}: {error}")
            self.plugins.append(info)
            return
        self.register(module, info)

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a life-cycle hook of every plugin, each in its own ``try``; what raised becomes one warning."""
        for impl in getattr(self._pm.hook, hook).get_hookimpls():
            try:
                impl.function(*[arguments[name] for name in impl.argnames])
            except Exception as error:
                warning = f"plugin {impl.plugin_name}: {hook} raised {type(error).__name__}: {error}"
                if warning not in self.warnings:
                    self.warnings.append(warning)

    def status(self, shelf: Shelf[Any], name: str) -> str:
        """``ok``, or why a card cannot be used."""
        return shelf.conflict(name) or "ok"


def discover(files: Sequence[str | Path] = (), environ: Mapping[str, str] | None = None) -> Registry:
    """Load built-in plugins, installed plugins (restricted by ``MRBENCH_PLUGINS``) and plugin files.

    ``MRBENCH_PLUGINS=a,b`` loads only these outside plugins (empty: none); built-in ones always load.

    Raises
    ------
    UserError : a plugin file does not exist, or ``MRBENCH_PLUGINS`` names a plugin that is not installed.
    """
    environ = os.environ if environ is None else environ
    registry = Registry()
    points = sorted(entry_points(group=GROUP), key=lambda p: (not _own(p), p.name, p.value))
    wanted = environ.get(RESTRICT)
    if wanted is not None:
        names = {n.strip() for n in wanted.split(",") if n.strip()}
        missing = sorted(names - {p.name for p in points})
        if missing:
            installed = ", ".join(sorted({p.name for p in points if not _own(p)})) or "none"
            raise UserError(f"{RESTRICT} names {', '.join(missing)}, not installed. Installed outside plugins: {installed}.")
        points = [p for p in points if _own(p) or p.name in names]
    seen: set[tuple[str, str]] = set()
    for point in points:
        if (point.name, point.value) in seen:  # one distribution seen twice on sys.path
            continue
        seen.add((point.name, point.value))
        registry.load_entry_point(point)
    for file in files:
        registry.load_file(Path(file))
    return registry


def _own(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == OWN_DISTRIBUTION
