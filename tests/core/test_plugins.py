"""Discovery is guarded: whatever a plugin does, the others work and the reason is told."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mrbench.cards import MethodCard, NoOptions, Options
from mrbench.errors import PluginError, UserError
from mrbench.hookspecs import hookimpl
from mrbench.plugins import PluginInfo, Registry, discover


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


GOOD = """
    import mrbench

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("mine", "nowhere:Nothing", "a method")]
"""


def test_builtins_are_all_ok() -> None:
    registry = discover()
    assert {p.name: p.reason for p in registry.plugins if p.status != "ok"} == {}
    assert {"nearest", "bilinear", "bicubic", "lanczos", "bspline", "zero_filled", "gt", "pinv", "impostor"} <= set(
        registry.methods.names()
    )
    assert {"sample", "folder"} <= set(registry.datasets.names())


def test_plugin_file(tmp_path: Path) -> None:
    registry = discover([write(tmp_path, "extra.py", GOOD)])
    assert registry.methods.get("mine").summary == "a method"
    with pytest.raises(PluginError, match="cannot load 'nowhere:Nothing': ModuleNotFoundError"):
        registry.methods.get("mine").load()


def test_missing_plugin_file() -> None:
    with pytest.raises(UserError, match=r"--plugin /nowhere/x.py: no such file"):
        discover([Path("/nowhere/x.py")])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise RuntimeError('broken on purpose')", "import failed: RuntimeError: broken on purpose"),
        ("import sys; sys.exit(3)", "import failed: SystemExit: 3"),
        ("def f(:", "import failed: SyntaxError"),
        ("x = 1", "implements no hook"),
        ("import mrbench\n@mrbench.hookimpl\ndef mrbench_method():\n    return []", "Did you mean 'mrbench_methods'"),
        (
            "import mrbench\n@mrbench.hookimpl\ndef mrbench_methods():\n    return 1/0",
            "mrbench_methods raised ZeroDivisionError",
        ),
        ("import mrbench\n@mrbench.hookimpl\ndef mrbench_methods():\n    return ['x']", "returned 'str', expected MethodCard"),
        (
            "import mrbench\n@mrbench.hookimpl\ndef mrbench_methods():\n    return [mrbench.MethodCard('a b', 'x:y')]",
            "bad name 'a b'",
        ),
        ("import mrbench\n@mrbench.hookimpl\ndef mrbench_item_done(rows):\n    pass", "PluginValidationError"),
    ],
)
def test_broken_plugins_are_listed_and_harm_nobody(tmp_path: Path, text: str, reason: str) -> None:
    bad = write(tmp_path, "bad.py", text)
    good = write(tmp_path, "good.py", GOOD)
    registry = discover([bad, good])
    info = next(p for p in registry.plugins if p.name == "bad")
    assert info.status == "broken"
    assert reason in info.reason
    assert registry.methods.get("mine").name == "mine"
    assert registry.methods.get("bicubic").name == "bicubic"


def test_two_plugins_with_one_method_name_are_refused_naming_both(tmp_path: Path) -> None:
    one = write(tmp_path, "one.py", GOOD)
    two = write(tmp_path, "two.py", GOOD)
    registry = discover([one, two])
    with pytest.raises(UserError, match=r"two plugins bring a method named 'mine': one \(.*one.py\) and two \(.*two.py\)"):
        registry.methods.get("mine")
    assert registry.methods.get("bicubic").name == "bicubic"
    assert "two plugins" in registry.status(registry.methods, "mine")


def test_two_plugins_with_one_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    registry = discover([write(tmp_path / "a", "same.py", GOOD), write(tmp_path / "b", "same.py", GOOD)])
    second = [p for p in registry.plugins if p.name == "same"][1]
    assert second.status == "broken"
    assert "a/same.py" in second.reason
    assert "b/same.py" in second.reason


def test_unknown_name_says_what_is_near_and_what_exists() -> None:
    with pytest.raises(UserError, match=r"no method named 'bicubi'. Did you mean 'bicubic'.* Known: .*zero_filled"):
        discover().methods.get("bicubi")


def test_restrict_outside_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path, "outside_plugin.py", GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    import mrbench.plugins as plugins

    points = [*plugins.entry_points(group="mrbench"), EntryPoint("outside", "outside_plugin", "mrbench")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    assert "mine" in discover(environ={}).methods.names()
    assert "mine" in discover(environ={"MRBENCH_PLUGINS": "outside"}).methods.names()
    without = discover(environ={"MRBENCH_PLUGINS": ""})
    assert "mine" not in without.methods.names()
    assert "bicubic" in without.methods.names()
    with pytest.raises(UserError, match=r"MRBENCH_PLUGINS names other, not installed. Installed outside plugins: outside"):
        discover(environ={"MRBENCH_PLUGINS": "other"})


def test_life_cycle_hooks_are_guarded() -> None:
    seen = []

    class Good:
        @hookimpl
        def mrbench_item_done(self, row: dict) -> None:
            seen.append(row["item_id"])

    class Bad:
        @hookimpl
        def mrbench_item_done(self, row: dict) -> None:
            raise ValueError("no")

    registry = Registry()
    registry.register(Bad(), PluginInfo("bad", "test"))
    registry.register(Good(), PluginInfo("good", "test"))
    registry.register(Bad(), PluginInfo("bad2", "test"))
    for i in range(2):
        registry.notify("mrbench_item_done", row={"item_id": i})
    assert seen == [0, 1]
    assert sorted(registry.warnings) == [
        "plugin bad2: mrbench_item_done raised ValueError: no",
        "plugin bad: mrbench_item_done raised ValueError: no",
    ]


def test_options_are_refused_with_the_known_ones() -> None:
    class Steps(Options):
        steps: int = 4

    card = MethodCard("m", "x:y", options=Steps)
    assert card.parse({"steps": 8}).steps == 8
    with pytest.raises(UserError, match=r"^A has no option 'step'. Known options: steps\.$"):
        card.parse({"step": 8}, "A")
    with pytest.raises(UserError, match=r"bad option value: steps: .*got 'many'"):
        card.parse({"steps": "many"})
    with pytest.raises(UserError, match="none: it has no options"):
        MethodCard("m", "x:y", options=NoOptions).parse({"a": 1})


@pytest.mark.parametrize(
    "command", [["--help"], ["methods"], ["datasets"], ["metrics"], ["degradations"], ["plugins", "--json"], ["protocols"]]
)
def test_listing_imports_nothing_heavy(command: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["mrbench", *{command!r}]
from mrbench.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = [m for m in ("torch", "pandas", "scipy", "skimage", "matplotlib", "pyarrow") if m in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "module", ["mrbench.data.items", "mrbench.store.runs", "mrbench.report.leaderboard", "mrbench.protocol", "mrbench.seeds"]
)
def test_floors_without_torch(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
