"""`mrbench new`: what it writes runs as it is, passes its checks, and takes nobody's place."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from tests_support import Done
from typer.testing import CliRunner

from mrbench.cli import check, new
from mrbench.errors import UserError
from mrbench.plugins import discover
from mrbench.scaffold import KINDS, choose_names, make, making

ROOT = Path(__file__).resolve().parents[2]
BUILT_IN = discover(environ={"MRBENCH_PLUGINS": ""})
TAKEN = {"method": "bicubic", "dataset": "sample", "metric": "psnr"}
HOOKS = {"method": "methods", "dataset": "datasets", "metric": "metrics"}
LONG = "Long-Name.of+many_characters-" + "x" * 31
LEGAL = (
    "demo_x",
    "class",
    "match",
    "None",
    "my-method",
    "3d.sr",
    "random",
    "folder",
    "edsr",
    "torch",
    "methods",
    "A+b.C-1",
    LONG,
)


def new_(*arguments: object) -> Any:
    return CliRunner().invoke(new.app, list(map(str, arguments)))


def made(kind: str, name: str, out: Path, *more: str) -> Path:
    done = new_(kind, name, "--out", out, "--json", *more)
    assert done.exit_code == 0, done.output + str(done.exception)
    return Path(json.loads(done.stdout)["place"])


def images(root: Path) -> Path:
    """A small data set in the format that the skeleton reads."""
    for k in range(2):
        values = np.random.default_rng(k).integers(0, 50, (48, 40, 5))
        values[12:36, 10:30] += 500
        (root / f"sub-{k}").mkdir(parents=True)
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([0.9, 0.9, 3.0, 1.0])), root / f"sub-{k}" / "t1.nii.gz")
    return root


# -- one file --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_passes_its_check_and_runs(kind: str, tmp_path: Path, mrbench: Callable[..., Done]) -> None:
    file = made(kind, "demo_x", tmp_path)
    assert file == tmp_path / "demo_x.py"
    data = images(tmp_path / "data")
    path = ["--set", f"demo_x.path={data}"] if kind == "dataset" else []
    done = CliRunner().invoke(check.app, [kind, "demo_x", "--plugin", str(file), *path, "--json"])
    assert done.exit_code == 0, done.output
    skipped = {c["name"] for c in json.loads(done.stdout)["checks"] if c["status"] == "skip"}
    assert skipped <= {"checkpoint", "draws", "no_operator"}
    asked = {
        "method": ["--method", "demo_x", "--dataset", "sample", "--subset", 2, "--metrics", "psnr"],
        "dataset": ["--method", "bicubic", "--dataset", "demo_x", *path, "--metrics", "psnr"],
        "metric": ["--method", "bicubic", "--dataset", "sample", "--subset", 2, "--metrics", "demo_x"],
    }[kind]
    ran = mrbench("run", "--plugin", file, *asked, "--scale", 2, "--images", "none", "--out", tmp_path / "runs")
    assert ran.code == 0, ran.err


def test_the_method_is_as_short_as_the_readme_says(tmp_path: Path) -> None:
    """Twelve lines besides its docstrings, the two hooks of the README among them."""
    text = made("method", "demo_x", tmp_path).read_text()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef)):
            assert ast.get_docstring(node)
            node.body = node.body[1:]
    lines = [line for line in ast.unparse(tree).splitlines() if line.strip()]
    assert len(lines) <= 12
    readme = (ROOT / "README.md").read_text()
    for line in ("import mrbench", "@mrbench.hookimpl", 'return mrbench.upsample(measurement, kernel="bicubic")'):
        assert line in readme
        assert line in text


# -- names -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_any_legal_name(kind: str, tmp_path: Path) -> None:
    """Keywords, dashes, digits in front, names of modules and of other plugins."""
    for name in LEGAL:
        if name in getattr(BUILT_IN, HOOKS[kind]).names():
            continue
        file = made(kind, name, tmp_path)
        registry = discover([file], environ={"MRBENCH_PLUGINS": ""})
        assert not [p.reason for p in registry.plugins if p.status != "ok"], name
        assert getattr(registry, HOOKS[kind]).get(name).name == name
        assert file.stem not in sys.stdlib_module_names
        folder = made(kind, name, tmp_path, "--package")
        assert folder == tmp_path / name
        for module in folder.rglob("*.py"):
            compile(module.read_text(), module, "exec")
        document = tomllib.loads((folder / "pyproject.toml").read_text())
        ((entry, package),) = document["project"]["entry-points"]["mrbench"].items()
        assert entry not in {p.name for p in BUILT_IN.plugins}
        assert package.isidentifier()
        assert (folder / "src" / package / "py.typed").read_text() == ""
        assert (folder / "tests" / f"test_{package}.py").is_file()
        assert package not in ("mrbench_methods", "mrbench_datasets")


@pytest.mark.parametrize("kind", KINDS)
def test_taken_names_are_refused_with_suggestions(kind: str, tmp_path: Path) -> None:
    done = new_(kind, TAKEN[kind], "--out", tmp_path)
    assert isinstance(done.exception, UserError)
    assert f"named {TAKEN[kind]!r} already: the plugin" in str(done.exception)
    assert f"my_{TAKEN[kind]} or {TAKEN[kind]}_2" in str(done.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("method", "my method", "names start with a letter or digit and hold letters, digits and _ . + -. Choose another name, for example my_method"),
        ("method", "a=b", "for example a_b or my_a_b"),
        ("method", "a@b/c", "a_b_c"),
        ("dataset", "", "for example my_dataset"),
        ("dataset", "../up", "for example up"),
        ("method", "é", "for example my_method"),
        ("method", "x" * 61, "61 characters, more than 60"),
        ("method", "metric", "is an option of a metric"),
        ("metric", "error_fg", "foreground column. Choose another name, for example error"),
        ("metric", "a,b", "a_b"),
    ],
)  # fmt: skip
def test_illegal_names_are_refused_with_suggestions(kind: str, name: str, words: str, tmp_path: Path) -> None:
    done = new_(kind, "--out", tmp_path, "--", name)
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_suggestions_can_be_used() -> None:
    for kind, name in (("method", "bicubic"), ("method", "bi cubic"), ("metric", "psnr_fg"), ("dataset", "sample")):
        with pytest.raises(UserError) as error:
            choose_names(kind, name, BUILT_IN)  # type: ignore[arg-type]
        suggested = str(error.value).rpartition("for example ")[2].rstrip(".").split(" or ")
        for one in suggested:
            assert choose_names(kind, one, BUILT_IN).name == one  # type: ignore[arg-type]


def test_names_of_remembered_places_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mrbench.data.places import Place, Places

    monkeypatch.setenv("MRBENCH_DATA", str(tmp_path / "places"))
    Places.from_environment().add(Place("study1", "folder", {"path": str(tmp_path)}))
    done = new_("dataset", "study1", "--out", tmp_path / "out")
    assert "it is in use" in str(done.exception)
    assert made("method", "study1", tmp_path / "out").name == "study1.py"


def test_names_of_loaded_plugins_are_taken(tmp_path: Path) -> None:
    file = made("method", "demo_x", tmp_path)
    done = new_("method", "demo_x", "--plugin", file, "--out", tmp_path / "other")
    assert "named 'demo_x' already" in str(done.exception)
    place = made("metric", "demo_x", tmp_path / "other", "--plugin", str(file))
    assert place.name == "demo_x_metric.py"  # both can be loaded at once
    assert all(p.status == "ok" for p in discover([file, place]).plugins)


# -- nothing is overwritten ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("package", [False, True])
def test_nothing_is_overwritten(package: bool, tmp_path: Path) -> None:
    more = ["--package"] if package else []
    place = made("method", "demo_x", tmp_path, *more)
    file = place / "README.md" if package else place
    file.write_text("my work")
    before = sorted(tmp_path.rglob("*"))
    done = new_("method", "demo_x", "--out", tmp_path, *more)
    assert isinstance(done.exception, UserError)
    assert "exists already, and nothing is overwritten" in str(done.exception)
    assert file.read_text() == "my work"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("package", [False, True])
def test_what_appears_meanwhile_is_not_overwritten(package: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = choose_names("method", "demo_x", BUILT_IN)
    target = tmp_path / ("demo_x" if package else "demo_x.py")

    def contents(*arguments: Any) -> dict[str, str]:
        mine = target / "mine.txt" if package else target
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("my work")
        return original(*arguments)

    original = making._contents
    monkeypatch.setattr(making, "_contents", contents)
    with pytest.raises(UserError, match="exists already"):
        make(names, tmp_path, package)
    assert (target / "mine.txt" if package else target).read_text() == "my work"
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("package", [False, True])
def test_a_failure_leaves_nothing(package: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    names = choose_names("method", "demo_x", BUILT_IN)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        make(names, tmp_path, package)
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    file = made("method", "demo_x", tmp_path)
    assert "def restore" in file.read_text()
    with pytest.raises(UserError, match="exists already"):
        making._move_file(file, file)


def test_out_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "expected a folder" in str(new_("method", "demo_x", "--out", tmp_path / "file").exception)


def test_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = new_("method", "demo_x")
    assert done.exit_code == 0, done.output
    assert "mrbench check method demo_x --plugin demo_x.py" in done.stdout
    done = new_("dataset", "demo_x", "--package")
    assert "pip install ./demo_x" in done.stdout
    assert "mrbench check dataset demo_x --set demo_x.path=DIR" in done.stdout
    assert new_().exit_code == 2
    assert new_("protocol", "x").exit_code == 2


# -- a package -------------------------------------------------------------------------------------------------------
def test_what_a_package_holds(tmp_path: Path) -> None:
    folder = made("method", "demo_x", tmp_path, "--package")
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert found == [
        ".github/workflows/test.yml", ".gitignore", "README.md", "pyproject.toml", "src/mrbench_demo_x/__init__.py",
        "src/mrbench_demo_x/method.py", "src/mrbench_demo_x/py.typed", "tests/test_mrbench_demo_x.py",
    ]  # fmt: skip
    workflow = yaml.safe_load((folder / ".github/workflows/test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert workflow[True] == ["push", "pull_request"]  # YAML 1.1 reads `on` so
    assert job["steps"][1]["with"]["python-version"] == "${{ matrix.python }}"
    assert [s["run"] for s in job["steps"] if "run" in s][-4:] == ["ruff check .", "ruff format --check .", "mypy", "pytest"]
    assert job["env"]["MRBENCH"].startswith("mrbench>=")
    document = tomllib.loads((folder / "pyproject.toml").read_text())
    assert document["project"]["entry-points"] == {"mrbench": {"demo_x": "mrbench_demo_x"}}
    for file in folder.rglob("*"):
        assert not file.is_file() or "${name}" not in file.read_text()


def test_templates_are_all_used() -> None:
    templates = {p.name for p in (ROOT / "mrbench" / "scaffold" / "templates").iterdir()}
    named = {t.format(kind=k) + making._SUFFIX for k in KINDS for t in (*making.PACKAGE.values(), making.FILE) if t}
    assert templates == named


def test_listing_a_package_imports_nothing_slow(tmp_path: Path) -> None:
    for kind in KINDS:
        package = made(kind, f"demo_{kind}", tmp_path, "--package") / "src"
        code = f"import mrbench_demo_{kind}, sys; assert not {{'torch', 'numpy', 'pandas', 'scipy'}} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(package)})


def tool(name: str, *arguments: object, cwd: Path, **environment: str) -> str:
    program = Path(sys.executable).with_name(name)
    if not program.is_file():
        pytest.skip(f"needs {name} in this environment")
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_ruff(kind: str, tmp_path: Path) -> None:
    """Files by the rules of this project, packages by their own."""
    for name in ("demo_x", "class", LONG):
        made(kind, name, tmp_path)
        folder = made(kind, name, tmp_path, "--package")
        assert not tool("ruff", "check", "--no-cache", ".", cwd=folder)
        assert not tool("ruff", "format", "--no-cache", "--check", "--diff", ".", cwd=folder)
    plugins = sorted(tmp_path.glob("*.py"))
    assert len(plugins) == 3
    assert not tool("ruff", "check", "--no-cache", "--config", ROOT / "pyproject.toml", *plugins, cwd=tmp_path)


@pytest.mark.slow
def test_mypy(tmp_path: Path) -> None:
    """Packages strictly, files as they come."""
    given = ("--follow-imports=silent", "--cache-dir", tmp_path / "cache")
    folders = [made(k, f"demo_{k}", tmp_path, "--package") / "src" / f"mrbench_demo_{k}" for k in KINDS]
    assert not tool("mypy", "--strict", *given, *folders, cwd=tmp_path, MYPYPATH=str(ROOT))
    plugins = [made(k, f"demo_{k}", tmp_path) for k in KINDS]
    assert not tool("mypy", *given, *plugins, cwd=tmp_path, MYPYPATH=str(ROOT))


@pytest.mark.slow
def test_packages_install_and_work(tmp_path: Path) -> None:
    """`pip install` in a fresh environment that sees what is installed here, then the commands that the README names."""
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    python = fresh / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())
    outer = sysconfig.get_path("purelib")  # with its own .pth files: mrbench may be installed as editable
    (site / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    folders = [made(kind, "demo_x" if kind == "method" else f"demo_{kind}", tmp_path, "--package") for kind in KINDS]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, *map(str, folders)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = [str(python), "-m", *map(str, arguments)]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = call("mrbench.cli.main", "check", "method", "demo_x")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("Conforming.")
    done = call("mrbench.cli.main", "run", "--method", "demo_x", "--dataset", "sample")
    assert done.returncode == 0, done.stderr
    assert "16 slices of 2 subjects" in done.stdout
    for folder in folders:  # the tests that come with them: conformance, and a run
        done = call(
            "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", folder / "pyproject.toml", folder / "tests"
        )
        assert done.returncode == 0, done.stdout + done.stderr
