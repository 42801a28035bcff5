"""What a user installs: the wheel, the editable install, the README's plugin, the commands of the Makefile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
MAPPED = {"mrbench": "mrbench", "methods": "mrbench_methods", "datasets": "mrbench_datasets"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        pytest.skip("not a git checkout: the tracked files are not known")
    return done.stdout.splitlines()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tracked files (so that nothing stale in build/ gets in)."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A new virtual environment that borrows the heavy packages of this one (not its mrbench) through a .pth file."""
    folder = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, what: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--force-reinstall",
        "--ignore-installed",
        str(what),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def mrbench(python: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "mrbench.cli.main", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.mark.slow
def test_wheel_holds_all_tracked_package_files(wheel: Path) -> None:
    expected = set()
    for name in tracked():
        top, _, rest = name.partition("/")
        if top in MAPPED and (ROOT / name).is_file():
            expected.add(f"{MAPPED[top]}/{rest}")
    with zipfile.ZipFile(wheel) as archive:
        found = {n for n in archive.namelist() if ".dist-info/" not in n}
        metadata = next(n for n in archive.namelist() if n.endswith("METADATA"))
        text = archive.read(metadata).decode()
    assert found == expected
    assert any(n.startswith("mrbench_datasets/sample/data/LICENSE") for n in found)
    assert "License-Expression: Apache-2.0" in text


@pytest.mark.slow
def test_installed_wheel_runs_the_main_job(wheel: Path, fresh: Path, tmp_path: Path) -> None:
    install(fresh, wheel)
    place = subprocess.run(
        [fresh, "-c", "import mrbench, mrbench_methods; print(mrbench.__file__, mrbench_methods.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert place.stdout.count(str(fresh.parent.parent)) == 2, place.stdout + place.stderr
    done = mrbench(
        fresh,
        "run",
        "--method",
        "bicubic",
        "--method",
        "lanczos",
        "--dataset",
        "sample",
        "--scale",
        4,
        "--metrics",
        "psnr",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "16 slices of 2 subjects" in done.stdout
    assert (tmp_path / "runs" / "sample" / "uniform-x4" / "figures" / "boxplots.png").is_file()


def test_every_package_is_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = set()
    for top, name in MAPPED.items():
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(ROOT / top).parts]))
    assert declared == found


def test_readme_plugin_is_short() -> None:
    code = next(b for b in blocks("python") if "hookimpl" in b)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 12
    assert len(blocks("toml")[0].splitlines()) <= 3


def test_readme_plugin_runs_end_to_end(mrbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed: the file, and the two commands below it, from a folder of the user's."""
    code = next(b for b in blocks("python") if "hookimpl" in b)
    (tmp_path / "my_method.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    commands = [line.split() for b in blocks("console") for line in b.splitlines() if "my_method" in line]
    assert len(commands) == 2
    for words in commands:
        assert words[0] == "mrbench"
        done = mrbench(*words[1:])
        assert done.code == 0, done.err
    board = mrbench("leaderboard", "runs", "--format", "json").json
    values = {r["method"]: r["psnr"] for r in board["rows"]}
    assert values["my_method"] == values["bicubic"]


@pytest.mark.slow
def test_readme_plugin_installs_with_its_three_lines(wheel: Path, fresh: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "my_method.py").write_text(next(b for b in blocks("python") if "hookimpl" in b))
    (package / "pyproject.toml").write_text(blocks("toml")[0])
    install(fresh, wheel)
    install(fresh, package)
    done = mrbench(fresh, "plugins", "my_method", "--json", cwd=tmp_path)
    assert '"status": "ok"' in done.stdout, done.stdout + done.stderr
    assert '"distribution": "my-method"' in done.stdout


def test_readme_commands_exist(mrbench) -> None:
    """Every subcommand that the README names answers --help."""
    names = {line.split()[1] for b in blocks("console") for line in b.splitlines() if line.startswith("mrbench ")}
    assert {"run", "score", "verify", "show", "leaderboard", "protocols", "check"} <= names
    for name in sorted(names | {"methods", "datasets", "metrics", "degradations", "plugins", "doctor"}):
        assert mrbench(name, "--help").code == 0


def test_makefile_names_what_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for b in blocks("console") for line in b.splitlines() if line.startswith("make ")}
    assert {"demo", "test"} <= named <= targets
    ci = (ROOT / ".ci" / "run").read_text()
    assert all(f"make {t}" in ci for t in ("check", "test", "test-all"))


def test_tests_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_root_is_not_on_the_path_of_the_tests(tmp_path: Path) -> None:
    """`python -m pytest` would put it there, and the root's `datasets/` would shadow the package `datasets` of others."""
    makefile = (ROOT / "Makefile").read_text()
    assert "-m pytest" not in makefile
    assert "$(BIN)/pytest" in makefile
    (tmp_path / "root_probe.py").write_text(
        f"import sys; print('on the path' if {str(ROOT)!r} in sys.path else 'not on the path')"
    )
    command = [Path(sys.executable).parent / "pytest", "--collect-only", "-q", "-p", "root_probe", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*command, "tests/packaging"], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "not on the path" in done.stdout
