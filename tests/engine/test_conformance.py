"""The conformance suite: built-in methods pass it, and every defect is caught by the check that is named after it."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mrbench.cards import Checkpoint, MethodCard
from mrbench.cli import check
from mrbench.engine.conformance import CHECKS, CheckResult, check_method, conforms
from mrbench.engine.probe import EVEN, ODD, phantom
from mrbench.errors import UserError
from mrbench.hub import find, takes_weights
from mrbench.plugins import discover

pytestmark = pytest.mark.usefixtures("one_thread")

BUILT_IN = discover(environ={"MRBENCH_PLUGINS": ""})


def write_plugin(folder: Path, body: str, card: str, name: str = "tested") -> Path:
    """A plugin file with one method."""
    file = folder / f"{name}_plugin.py"
    hook = f"@mrbench.hookimpl\ndef mrbench_methods():\n    return [mrbench.MethodCard('{name}', {card})]\n"
    file.write_text(f"import mrbench\n{dedent(body)}\n\n{hook}")
    return file


def a_function(body: str) -> str:
    """A plugin body: ``restore(measurement)`` of these lines, with ``x`` the bicubic estimate."""
    return (
        "import random\nimport numpy as np\nimport torch\n\n"
        "def restore(measurement):\n    x = mrbench.upsample(measurement)\n" + indent(dedent(body).strip(), "    ")
    )


def a_class(body: str, before: str = "") -> str:
    """A plugin body: a class whose ``restore(self, measurement, draws)`` has these lines, ``x [B, K, C, H, W]`` as above."""
    return (
        "import torch\n" + dedent(before) + "\n\nclass Method:\n    def __init__(self, options):\n        self.calls = 0\n\n"
        "    def restore(self, measurement, draws):\n"
        "        x = mrbench.upsample(measurement)[:, None].repeat(1, draws, 1, 1, 1)\n"
        "        shape = tuple(x.shape[2:])\n" + indent(dedent(body).strip(), "        ")
    )


def failing(results: list[CheckResult]) -> dict[str, str]:
    return {r.name: r.detail for r in results if r.status == "fail"}


def run_plugin(file: Path, name: str = "tested") -> list[CheckResult]:
    registry = discover([file])
    broken = [p.reason for p in registry.plugins if p.status != "ok"]
    assert not broken
    return check_method(registry.methods.get(name), registry)


GOOD = "summary='a method for tests', notes='none'"
FUNCTION = f"restore, {GOOD}, needs_operator=False"
CLASS = f"Method, {GOOD}, needs_operator=False"
STOCHASTIC = f"{CLASS}, deterministic=False"

# name: (body, card, the one check that catches it, words of its detail)
DEFECTS: dict[str, tuple[str, str, str, str]] = {
    "wrong shape": (a_function("return measurement.y"), FUNCTION, "shapes", "expected [B, C, H, W]"),
    "no draws axis": (a_class("return x[:, 0]"), CLASS, "shapes", "expected [B, K, C, H, W]"),
    "no tensor": (a_function("return x.numpy()"), FUNCTION, "shapes", "ndarray"),
    "one scale fails": (a_function("assert measurement.scale[0] < 8\nreturn x"), FUNCTION, "shapes", "scale 8"),
    "always raises": (a_function("raise RuntimeError('no luck')"), FUNCTION, "shapes", "no luck"),
    "integers": (a_function("return (x > 0.5).int()"), FUNCTION, "dtype", "int32"),
    "nan": (a_function("x[..., 3, 4] = float('nan')\nreturn x"), FUNCTION, "finite", "NaN or infinite values in"),
    "infinite": (a_function("x[..., 0, 0] = float('inf')\nreturn x"), FUNCTION, "finite", "NaN or infinite values in"),
    "0..255": (a_function("return 255 * x"), FUNCTION, "range", "[0, 1] range"),
    "[-1, 1]": (a_function("return 2 * x - 1"), FUNCTION, "range", "[0, 1] range"),
    "batch maximum": (a_function("return x / x.max()"), FUNCTION, "batch_size", "largest difference"),
    "reordered": (
        a_function("return x.flip(0) if measurement.y[0].mean() < measurement.y[-1].mean() else x"),
        FUNCTION, "item_order", "another order",
    ),
    "torch.rand": (a_function("return x + 0.05 * torch.rand(x.shape)"), FUNCTION, "global_random", "torch"),
    "numpy.random": (a_function("return x + 0.05 * float(np.random.rand())"), FUNCTION, "global_random", "numpy.random"),
    "random": (a_function("return x + 0.05 * random.random()"), FUNCTION, "global_random", "generator of random"),
    "forked torch.rand": (
        a_function("with torch.random.fork_rng(devices=[]):\n    return x + 0.05 * torch.rand(())"),
        FUNCTION, "global_random", "another torch.manual_seed",
    ),
    "random weights": (
        "import torch\nclass Method:\n"
        "    def __init__(self, options):\n        self.gain = 1 + 0.1 * torch.rand(())\n"
        "    def restore(self, measurement, draws):\n"
        "        return self.gain * mrbench.upsample(measurement)[:, None].repeat(1, draws, 1, 1, 1)\n",
        CLASS, "global_random", "weights are left as initialised",
    ),
    "seeds from the clock": (
        a_function("return x + 0.05 * float(np.random.default_rng().random())"), FUNCTION, "same_seed", "two calls",
    ),
    "remembers": (a_class("self.calls += 1\nreturn x + 0.001 * self.calls"), CLASS, "same_seed", "two calls"),
    "in place": (a_function("measurement.y.mul_(0.5)\nreturn x"), FUNCTION, "inputs", "measurement.y in place"),
    "odd sizes": (
        a_function("if measurement.size[0] % 2:\n    raise ValueError('even sizes only')\nreturn x"),
        FUNCTION, "odd_sizes", "even sizes only",
    ),
    "odd sizes are cut": (
        a_function("h, w = x.shape[2:]\nreturn x[..., : h // 2 * 2, : w // 2 * 2]"), FUNCTION, "odd_sizes", "45x37",
    ),
    "colour": (a_function("assert measurement.y.shape[1] < 3, 'grey only'\nreturn x"), FUNCTION, "channels", "colour"),
    "one degradation": (
        a_function("assert measurement.operator is None or measurement.operator.name != 'kspace_crop', 'no k-space'\nreturn x"),
        FUNCTION, "degradations", "kspace_crop",
    ),
    "operator": (a_function("return measurement.operator.pinv(measurement.y)"), FUNCTION, "no_operator", "AttributeError"),
    "gradients": (
        a_class(
            "z = x.clone().requires_grad_()\n"
            "(g,) = torch.autograd.grad(z.square().sum(), z)\n"
            "return x - 1e-3 * g"
        ),
        CLASS, "inference_mode", "works outside",
    ),
    "claims deterministic": (
        a_class("return x + 0.01 * measurement.noise(draws).normal(shape)"), CLASS, "other_seed", "says deterministic",
    ),
    "claims stochastic": (a_class("return x"), STOCHASTIC, "other_seed", "says not deterministic"),
    "one draw repeated": (
        a_class("return x + 0.01 * measurement.noise(1).normal(shape)"), STOCHASTIC, "draws", "are the same image",
    ),
    "draws depend on K": (
        a_class("return x + 0.01 * draws * measurement.noise(draws).normal(shape)"), STOCHASTIC, "draws", "draw 1 of 3",
    ),
    "stochastic function": (a_function("return x"), f"{FUNCTION}, deterministic=False", "load", "is a class"),
    "control function": (a_function("return x"), f"{FUNCTION}, control=True", "load", "control is a class"),
    "missing module": ("", f"'no_such_module_here:Method', {GOOD}", "load", "no_such_module_here"),
    "no summary": (a_function("return x"), "restore, notes='none', needs_operator=False", "card", "summary is empty"),
    "no source": (a_function("return x"), "restore, summary='s', needs_operator=False", "card", "neither paper nor notes"),
    "weights without licence": (a_function("return x"), f"{FUNCTION}, tier='official'", "card", "licence is empty"),
    "unknown tier": (a_function("return x"), f"{FUNCTION}, tier='best', licence='MIT'", "card", "tier 'best'"),
    "unknown expectation": (
        a_function("return x"), f"{FUNCTION}, expected_failures={{'shape': 'why not'}}", "card", "unknown checks: shape",
    ),
    "undocumented option": (
        a_class("return x", "class Options(mrbench.Options):\n    steps: int = 5\n"),
        f"{CLASS}, options=Options", "options", "without a description: steps",
    ),
    "swallows options": (
        a_class(
            "return x",
            """
            from pydantic import ConfigDict, Field
            class Options(mrbench.Options):
                model_config = ConfigDict(extra="ignore")
                steps: int = Field(5, description="number of steps")
            """,
        ),
        f"{CLASS}, options=Options", "unknown_option", "extra='forbid'",
    ),
}  # fmt: skip


# Samplers of many steps, shortened: the checks do not look at quality.
SHORTENED: dict[str, dict[str, int]] = {
    "dps": {"steps": 3},
    "diffpir": {"steps": 3},
    "msp_sr": {"steps": 3},
    "multigrid_pnp": {"iterations": 2, "cycles": 1, "coarse_steps": 1, "start_steps": 1, "levels": 2},
    "scale_cascaded": {"steps": 6},
    "tm_ddpm": {"steps": 3},
}


@pytest.mark.parametrize("name", BUILT_IN.methods.names())
def test_built_in_methods_conform(name: str) -> None:
    card = BUILT_IN.methods.get(name)
    if takes_weights(card) and not card.checkpoints:
        pytest.skip(f"{name} ships no weights; tests/methods checks it with random ones")
    found = find(card)
    options = card.parse(SHORTENED[name]) if name in SHORTENED else None
    results = check_method(card, BUILT_IN, options, checkpoint=None if found is None else found.record)
    assert [r.name for r in results] == [c.name for c in CHECKS]
    assert not failing(results)
    assert conforms(results)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_caught_by_its_own_check(tmp_path: Path, defect: str) -> None:
    body, card, expected, words = DEFECTS[defect]
    results = run_plugin(write_plugin(tmp_path, body, card))
    found = failing(results)
    assert set(found) == {expected}, found
    assert words in found[expected]
    assert not conforms(results)


def test_every_check_can_fail() -> None:
    caught = {expected for _, _, expected, _ in DEFECTS.values()}
    assert {c.name for c in CHECKS} - caught == {"checkpoint", "cpu"}  # their own tests below; cpu needs another device


def test_a_good_stochastic_method_conforms(tmp_path: Path) -> None:
    body = a_class(
        """
        noise = measurement.noise(draws)
        with torch.inference_mode(False), torch.enable_grad():
            z = x.clone().requires_grad_()
            (g,) = torch.autograd.grad(z.square().sum(), z)
        return x - 1e-3 * g + 0.01 * noise.normal(shape) + 0.01 * noise.normal(shape)
        """,
        """
        from pydantic import Field
        class Options(mrbench.Options):
            steps: int = Field(5, ge=1, description="number of steps")
        """,
    )
    results = run_plugin(write_plugin(tmp_path, body, f"{STOCHASTIC}, options=Options, scales=(3,), channels=(2,)"))
    assert not failing(results)
    by_name = {r.name: r for r in results}
    assert by_name["draws"].status == "pass"
    assert by_name["channels"].detail == "2 (complex); 1 and 3 are not asked for"
    assert "scales 3 at" in by_name["odd_sizes"].detail
    assert "differs" in by_name["other_seed"].detail


def test_what_builds_on_a_failed_check_is_not_judged(tmp_path: Path) -> None:
    results = {r.name: r for r in run_plugin(write_plugin(tmp_path, a_function("return measurement.y"), FUNCTION))}
    assert results["batch_size"].status == "skip"
    assert results["batch_size"].detail == "not judged: it builds on shapes"
    assert results["card"].status == "pass"


# -- expected failures -----------------------------------------------------------------------------------------------
NAN = a_function("x[..., 0, 0] = float('nan')\nreturn x")


def test_an_expected_failure_is_shown_with_its_reason(tmp_path: Path) -> None:
    card = f"{FUNCTION}, expected_failures={{'finite': 'the corner is unknown'}}"
    results = run_plugin(write_plugin(tmp_path, NAN, card))
    finite = next(r for r in results if r.name == "finite")
    assert finite.status == "expected"
    assert finite.detail.startswith("the corner is unknown (")
    assert conforms(results)


def test_an_expected_failure_that_passes_is_a_failure(tmp_path: Path) -> None:
    card = f"{FUNCTION}, expected_failures={{'range': 'overshoots'}}"
    results = run_plugin(write_plugin(tmp_path, a_function("return x"), card))
    assert [r.name for r in results if r.status == "unexpected_pass"] == ["range"]
    assert not conforms(results)


# -- checkpoints -----------------------------------------------------------------------------------------------------
LOADING = """
import torch
from safetensors.torch import load_file

class Method:
    def __init__(self, options):
        self.net = torch.nn.Conv2d(1, 1, 1)

    def load(self, checkpoint, device):
        {load}

    def restore(self, measurement, draws):
        x = mrbench.upsample(measurement)
        y = self.net(x.flatten(0, 1)[:, None]).unflatten(0, x.shape[:2])[:, :, 0]
        return y[:, None].repeat(1, draws, 1, 1, 1)
"""
STRICT = "self.net.load_state_dict(load_file(checkpoint.file))"
LENIENT = """state = {'weight': torch.ones(1, 1, 1, 1), 'bias': torch.zeros(1)}
        try:
            state |= {k: v for k, v in load_file(checkpoint.file).items() if k in state}
        except Exception:
            pass
        self.net.load_state_dict(state)"""


@pytest.mark.parametrize("load", [STRICT, LENIENT])
def test_a_wrong_checkpoint_is_refused(tmp_path: Path, load: str) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "weights.safetensors"
    save_file({"weight": torch.full((1, 1, 1, 1), 0.9), "bias": torch.zeros(1)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    weights = f"mrbench.Checkpoint('w', {str(file)!r}, '{digest}', 'demo', scale=2, licence='MIT')"
    plugin = write_plugin(tmp_path, LOADING.format(load=load), f"{CLASS}, licence='MIT', checkpoints=({weights},)")
    registry = discover([plugin])
    card: MethodCard = registry.methods.get("tested")
    results = {r.name: r for r in check_method(card, registry, checkpoint=card.checkpoints[0])}
    assert results["shapes"].detail.startswith("scales 2 at")  # made for one scale
    if load == STRICT:
        assert conforms(list(results.values())), failing(list(results.values()))
        assert "another network" in results["checkpoint"].detail
    else:
        assert set(failing(list(results.values()))) == {"checkpoint"}
        assert "loaded without complaint" in results["checkpoint"].detail


def test_checkpoint_records_are_checked() -> None:
    bad = Checkpoint("w", "w.safetensors", "abc", "none", repo_id="org/repo", revision="main", scale=3, channels=2)
    card = MethodCard("m", lambda m: m.y, "s", scales=(2, 4), channels=(1,), notes="n", checkpoints=(bad, bad))
    detail = failing(check_method(card, BUILT_IN))["card"]
    for words in ("licence", "two checkpoints", "64 hex digits", "tier 'none'", "not a commit", "scale 3", "channels 2"):
        assert words in detail


# -- surroundings ----------------------------------------------------------------------------------------------------
def test_the_global_generators_are_left_alone(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, a_function("return x + torch.rand(()) * random.random() * np.random.rand()"), FUNCTION)
    registry = discover([plugin])
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    check_method(registry.methods.get("tested"), registry)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), repr(np.random.get_state())) == before[1:]  # noqa: NPY002


def test_repeated_runs_say_the_same() -> None:
    card = BUILT_IN.methods.get("pinv")
    assert check_method(card, BUILT_IN) == check_method(card, BUILT_IN)


@pytest.mark.parametrize("size", [EVEN, ODD])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_phantom(size: tuple[int, int], channels: int) -> None:
    images = [phantom(s, p, size, channels) for s, p in (("a", 0), ("b", 0), ("a", 1))]
    for image in images:
        assert image.shape == (channels, *size)
        assert image.dtype == torch.float32
        magnitude = image.square().sum(0).sqrt() if channels == 2 else image
        assert float(magnitude.min()) >= 0
        assert 0.4 < float(magnitude.max()) <= 1
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert float((images[i] - images[j]).square().mean().sqrt()) > 0.03
        assert abs(float(images[i].max() - images[j].max())) > 0.02


# -- the command -----------------------------------------------------------------------------------------------------
def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(check.app, list(arguments))


def test_command_prints_a_table_and_a_last_line() -> None:
    result = invoke("method", "bicubic")
    assert result.exit_code == 0, result.output
    lines = result.stdout.strip().splitlines()
    assert lines[0].split() == ["check", "status", "detail"]
    assert [line.split()[0] for line in lines[1:-1] if not line.startswith(" ")] == [c.name for c in CHECKS]
    assert lines[-1] == "bicubic: 20 passed, 2 skipped. Conforming."


def test_command_fails_with_code_1_and_names_the_check(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, NAN, FUNCTION)
    result = invoke("method", "tested", "--plugin", str(plugin))
    assert result.exit_code == 1
    assert result.stdout.strip().splitlines()[-1].endswith("1 failed, 3 skipped. Not conforming: finite.")


def test_command_json(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, NAN, FUNCTION)
    result = invoke("method", "tested", "--plugin", str(plugin), "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["method"], document["passed"]) == ("tested", False)
    assert [c["name"] for c in document["checks"]] == [c.name for c in CHECKS]
    assert {c["name"] for c in document["checks"] if c["status"] == "fail"} == {"finite"}
    assert json.loads(invoke("method", "gt", "--json").stdout)["passed"] is True


def test_command_sets_options(tmp_path: Path) -> None:
    body = """
    from pydantic import Field
    class Options(mrbench.Options):
        gain: float = Field(1.0, description="factor")
    class Method:
        def __init__(self, options):
            self.gain = options.gain
        def restore(self, measurement, draws):
            return self.gain * mrbench.upsample(measurement)[:, None].repeat(1, draws, 1, 1, 1)
    """
    plugin = str(write_plugin(tmp_path, body, f"{CLASS}, options=Options"))
    assert invoke("method", "tested", "--plugin", plugin).exit_code == 0
    result = invoke("method", "tested", "--plugin", plugin, "--set", "tested.gain=255", "--json")
    assert {c["name"] for c in json.loads(result.stdout)["checks"] if c["status"] == "fail"} == {"range"}
    for wrong in ("tested.gian=2", "other.gain=2", "tested.gain=much"):
        assert isinstance(invoke("method", "tested", "--plugin", plugin, "--set", wrong).exception, UserError)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bicubik",), "Did you mean 'bicubic'"),
        (("bicubic@best",), "no checkpoint 'best'"),
        (("bicubic", "--device", "abacus"), "--device abacus"),
        (("bicubic", "--plugin", "nowhere.py"), "no such file"),
    ],
)
def test_mistakes_are_user_errors(arguments: tuple[str, ...], words: str) -> None:
    result = invoke("method", *arguments)
    assert isinstance(result.exception, UserError)  # the command line turns it into exit code 2
    assert words in str(result.exception)


def test_an_unknown_method_ends_with_code_2() -> None:
    command = [sys.executable, "-m", "mrbench.cli.main", "check", "method", "bicubik"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: no method named 'bicubik'")


def test_the_word_method_is_needed() -> None:
    assert invoke("bicubic").exit_code == 2
    assert "method" in invoke("--help").stdout


def test_a_broken_neighbour_is_a_warning(tmp_path: Path) -> None:
    broken = tmp_path / "broken_plugin.py"
    broken.write_text("raise RuntimeError('out of order')")
    result = invoke("method", "bicubic", "--plugin", str(broken))
    assert result.exit_code == 0
    assert "out of order" in result.stderr


def test_the_command_is_light_at_import() -> None:
    code = "import sys, mrbench.cli.check; assert not {'torch', 'pandas', 'scipy', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
