"""Local attribution maps: path, detector, completeness, support, and methods that have no gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from typer.testing import CliRunner

from mrbench.cards import MethodCard, Options
from mrbench.cli import attribute as cli
from mrbench.degradation.image_space import BicubicAA
from mrbench.degradation.interpolate import interpolation_matrix
from mrbench.degradation.measurement import Measurement, degrade, upsample
from mrbench.engine.attribution import BlurringPath, Explained, NotDifferentiable, PathSettings, attribute, detect
from mrbench.engine.restorer import Restorer
from mrbench.errors import UserError
from mrbench.plugins import discover
from mrbench.store.attributions import Attribution, Picture, Region, gini, read_attributions, write_attributions

REGION = Region(12, 8, 24, 20)
SIZE = (36, 32)


def measured(scale: int = 4, channels: int = 1) -> Measurement:
    hr = torch.rand(1, channels, *SIZE, generator=torch.Generator().manual_seed(3))
    card = discover().degradations.get("bicubic_aa")
    return degrade(hr, ["set/person/volume/1"], BicubicAA(card.parse({})), (scale, scale), seed_key="key")


def explained(implementation: Callable[..., Any] | type, m: Measurement, **more: Any) -> Explained:
    card = MethodCard("mine", implementation, **more)
    return Explained(Restorer(card, card.parse({}), torch.device("cpu")), m, REGION)


class Net(nn.Module):
    """Two convolutions on the interpolated image."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        for p in self.parameters():
            nn.init.normal_(p, 0, 0.3, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(nn.functional.gelu(self.first(x)))


def by_network(m: Measurement) -> Tensor:
    return Net().requires_grad_(False)(upsample(m))


class Sampler:
    """Adds noise of its own to every call, and a network."""

    def __init__(self, options: Options) -> None:
        self.net = Net().requires_grad_(False)

    def restore(self, m: Measurement, draws: int) -> Tensor:
        x = upsample(m)[:, None] + 0.1 * m.noise(draws).normal((1, *m.size))
        return self.net(x.flatten(0, 1)).reshape(x.shape)


# -- path and detector -------------------------------------------------------------------------------------------------
def test_the_path_leads_from_a_gaussian_blur_to_the_image() -> None:
    y = measured(2).y
    path = BlurringPath(y, 2.0)
    assert torch.equal(path.at(1.0), y.double())
    for alpha, sigma, tolerance in ((0.0, 2.0, 1e-6), (0.5, 1.0, 1e-3)):  # sampled kernels are wider than the true one
        expected = gaussian_filter(y[0, 0].double().numpy(), sigma, mode="reflect", truncate=8)
        assert np.abs(path.at(alpha)[0, 0].numpy() - expected).max() < tolerance
    assert float(path.at(0.3).mean()) == pytest.approx(float(y.double().mean()))


def test_the_detector_sums_gradient_magnitudes_of_the_region_alone() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 4:, :] = 3.0  # an edge of height 3, six columns of which lie in the region
    assert float(detect(image, Region(2, 1, 7, 7))) == pytest.approx(18.0, abs=1e-3)
    image[0, 0, 0, 0] = 100.0
    assert float(detect(image, Region(2, 1, 7, 7))) == pytest.approx(18.0, abs=1e-3)
    two = torch.cat([image, image], dim=1)  # channels are parts of one vector
    assert float(detect(two, Region(2, 1, 7, 7))) == pytest.approx(18.0 * 2**0.5, abs=1e-3)


@pytest.mark.parametrize("region", [Region(0, 0, 37, 8), Region(-1, 0, 4, 4), Region(4, 4, 4, 8), Region(4, 4, 5, 8)])
def test_a_region_outside_the_image_or_without_gradients_is_refused(region: Region) -> None:
    with pytest.raises(UserError, match="36 x 32 pixels"):
        region.check(SIZE)


# -- attributions ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("implementation", [by_network, Sampler, upsample], ids=["network", "sampler", "bicubic"])
def test_attributions_sum_to_the_change_of_the_detector(implementation: Any) -> None:
    m = measured()
    more = {"deterministic": False} if implementation is Sampler else {}
    e = explained(implementation, m, **more)
    errors = [attribute(e, m.y, PathSettings(steps)).completeness_error for steps in (8, 64)]
    assert errors[1] < 3e-3
    assert errors[1] < errors[0]
    found = attribute(e, m.y, PathSettings(8))
    assert found.detector == (e.value(BlurringPath(m.y, 3.0).at(0)), e.value(m.y))
    assert found.path.sum() == pytest.approx(found.total)


def test_the_map_of_bicubic_interpolation_has_the_support_of_its_kernel() -> None:
    m = measured()
    found = attribute(explained(upsample, m), m.y, PathSettings(4))
    rows, columns = (
        (interpolation_matrix(g, "bicubic")[part] != 0).any(0)
        for g, part in zip(m.grid, (slice(12, 24), slice(8, 20)), strict=True)
    )
    assert rows.sum() == 7  # 3 LR rows in the region, and two on either side
    assert np.array_equal(found.map != 0, rows[:, None] & columns)
    assert found.involved == 49


def test_a_sampler_sees_the_same_noise_all_along_the_path() -> None:
    m = measured()
    e = explained(Sampler, m, deterministic=False)
    first, second = (attribute(e, m.y, PathSettings(3)) for _ in range(2))
    assert np.array_equal(first.attributions, second.attributions)
    assert np.array_equal(first.estimate, second.estimate)


def test_complex_images_are_attributed_channel_by_channel() -> None:
    m = measured(2, channels=2)
    found = attribute(explained(upsample, m), m.y, PathSettings(8))
    assert found.attributions.shape == (2, 18, 16)
    assert found.completeness_error < 0.01


def test_it_works_after_the_method_ran_in_inference_mode() -> None:
    m = measured()
    e = explained(by_network, m)
    e._restorer.restore(m, 1)
    assert attribute(e, m.y, PathSettings(2)).involved == 49


# -- methods without gradients -----------------------------------------------------------------------------------------
def no_grad(m: Measurement) -> Tensor:
    with torch.no_grad():
        return upsample(m)


def rounded(m: Measurement) -> Tensor:
    return (255 * upsample(m)).round() / 255


def half_detached(m: Measurement) -> Tensor:
    x = upsample(m)
    return 0.5 * x + 0.5 * x.detach()


def through_numpy(m: Measurement) -> Tensor:
    return torch.from_numpy(upsample(m).numpy().copy())


def constant(m: Measurement) -> Tensor:
    return torch.rand(1, 1, *m.size, generator=torch.Generator().manual_seed(0)).to(m.y)


def raises(m: Measurement) -> Tensor:
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (no_grad, r"Gradients end at \w+, [\w.]+ line \d+"),
        (rounded, r"miss 100% .* Gradients end at round, test_attribution.py"),
        (half_detached, r"miss 50% .* Gradients end at detach, test_attribution.py"),
        (through_numpy, "leaves PyTorch"),
        (constant, "does not depend on the LR image"),
    ],
)
def test_a_method_without_right_gradients_is_refused_with_the_place(method: Any, reason: str) -> None:
    m = measured()
    with pytest.raises(NotDifferentiable, match=reason):
        attribute(explained(method, m), m.y, PathSettings(2))


def test_a_method_that_fails_says_so() -> None:
    m = measured()
    with pytest.raises(UserError, match=r"mine: failed .*\(ValueError: no such thing\)"):
        attribute(explained(raises, m), m.y, PathSettings(2))


def test_bad_settings_are_refused() -> None:
    for bad in ({"steps": 0}, {"sigma": 0.0}, {"sigma": float("nan")}):
        with pytest.raises(UserError, match="expected"):
            PathSettings(**bad)


# -- the record --------------------------------------------------------------------------------------------------------
def test_the_gini_coefficient_and_the_diffusion_index() -> None:
    values = np.random.default_rng(0).gamma(0.5, size=40)
    brute = np.abs(values[:, None] - values).sum() / (2 * 40**2 * values.mean())
    assert gini(values) == pytest.approx(brute)
    assert gini(np.ones((3, 4))) == pytest.approx(0)
    single = np.zeros(50)
    single[7] = 2
    assert gini(single) == pytest.approx(49 / 50)
    assert np.isnan(gini(np.zeros(5)))


def record(label: str = "a", shape: tuple[int, ...] = (1, 9, 8)) -> Attribution:
    values = np.zeros(shape)
    values[0, 0, 0] = -2.0
    return Attribution(label, "bicubic", "none", "", 3.0, (1.0, 4.0), values, np.zeros((1, *SIZE), np.float32), np.ones(5))


def picture() -> Picture:
    hr, y = np.zeros((1, *SIZE), np.float32), np.zeros((1, 9, 8), np.float32)
    return Picture("set/p/v/1", "set", "set", "uniform-x4", "ab", REGION, hr, y, ((4.0, 1.5), (4.0, 1.5)), 1.0)


def test_one_pixel_that_decides_all_has_the_least_diffusion_index() -> None:
    found = record()
    assert found.diffusion_index == pytest.approx(100 / 72)
    assert found.total == -2.0
    assert found.completeness_error == pytest.approx(5 / 3)
    assert record(shape=(1, 9, 8)).document()["diffusion_index"] == pytest.approx(100 / 72)


def test_records_are_stored_and_read_again(tmp_path: Path) -> None:
    names = ["a", "<script>alert(1)</script>$"]
    write_attributions(tmp_path / "x", picture(), [record(n) for n in names], {"dps": "why"})
    shown, found = read_attributions(tmp_path / "x")
    assert (shown.region, shown.grid, shown.item_id) == (REGION, picture().grid, "set/p/v/1")
    assert [a.document() for a in found] == [record(n).document() for n in names]
    assert json.loads((tmp_path / "x.json").read_text())["failed"] == {"dps": "why"}
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no attributions can be read"):
        read_attributions(tmp_path / "x")


def test_the_figure_shows_every_method_and_any_name(tmp_path: Path) -> None:
    from mrbench.report.attribution_figures import attribution_figure
    from mrbench.report.figures import save

    nothing = Attribution("0", "m", "", "", 3.0, (1.0, 1.0), np.zeros((1, 9, 8)), np.zeros((1, *SIZE), np.float32))
    found = [record("$x_{$ <b> " + "long " * 30), *[record(str(i)) for i in range(6)], nothing]
    figure = attribution_figure(picture(), found)
    assert len(figure.axes) == 3 * 9
    texts = [t.get_text() for a in figure.axes for t in a.texts]
    assert texts.count("DI 1.39") == 7
    assert "DI n/a" in texts
    first, _ = save(figure, tmp_path / "a")
    again, _ = save(attribution_figure(picture(), found), tmp_path / "b")
    assert first.read_bytes() == again.read_bytes()


# -- the command -------------------------------------------------------------------------------------------------------
APP = typer.Typer()
APP.command()(cli.attribute)


def test_the_command_writes_figure_and_numbers(tmp_path: Path) -> None:
    plugin = tmp_path / "cut.py"
    plugin.write_text(
        "import mrbench\n\n\ndef restore(m):\n    return mrbench.upsample(m).detach()\n\n\n@mrbench.hookimpl\ndef mrbench_methods():\n"
        "    return [mrbench.MethodCard('cut', restore)]\n"
    )
    given = ["-m", "bicubic", "-m", "cut", "--plugin", plugin, "--item", "102", "--region", "96,96,120,112", "--steps", "3"]
    done = CliRunner().invoke(APP, [*map(str, given), "--out", str(tmp_path / "out" / "lam.png"), "--threads", "1", "--json"])
    assert done.exit_code == 1
    assert "no attribution: cut cannot be attributed: Gradients end at detach, cut.py line 5" in done.stderr
    document = json.loads(done.stdout)
    assert document["item"].endswith("/102")
    assert [m["label"] for m in document["methods"]] == ["bicubic"]
    assert document["methods"][0]["pixels_involved"] == 80  # 6 x 4 LR pixels in the region, two more on every side
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["lam.json", "lam.npz", "lam.pdf", "lam.png"]
    assert read_attributions(tmp_path / "out" / "lam")[0].region == Region(96, 96, 120, 112)


def test_the_command_has_the_defaults_of_the_engine() -> None:
    assert PathSettings() == PathSettings(cli.STEPS, cli.SIGMA)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--region", "1,2,3"], "four whole numbers"),
        (["--region", "0,0,999,9"], "HR image"),
        (["--item", "nothing"], "no such slice"),
        (["--item", "sample/colin27/colin27_t1/12"], "no such slice"),
        (["--scale", "4", "--protocol", "uniform-x4"], "exclude each other"),
        (["--steps", "2", "--sigma", "-1"], "--sigma"),
        (["--set", "bicubic.a=1"], "no option"),
    ],
)
def test_mistakes_are_named(given: list[str], reason: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(APP, ["-m", "bicubic", *given, "--out", str(tmp_path / "x")])
    assert isinstance(done.exception, UserError)
    assert reason in str(done.exception)
    assert not list(tmp_path.iterdir())
