"""The static site in a real browser, from file://, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
from browser import OpenPage
from site_support import FOUR, Made, make_task

from mrbench.report.site.build import build_site
from mrbench.store.runs import load_runs

HOSTILE = "</script><script>window.broken = 1</script> $x_1$ & " + "long" * 40
ITEM = "toy/s1/vol/002"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four methods and a hostile one, five subjects."""
    root = tmp_path_factory.mktemp("site")
    methods = [*FOUR, Made(HOSTILE, 0.5, tier="retrained", failed=[1])]
    make_task(root / "runs", methods, subjects=5, slices=3, size=(96, 128), error=HOSTILE)
    return build_site(load_runs([root / "runs"]), root / "site").out


def address(site: Path, page: str, **fragment: str) -> str:
    made = "&".join(f"{k}={quote(v, safe='')}" for k, v in fragment.items())
    return f"{(site / page).as_uri()}{'#' + made if made else ''}"


def fragment(page: Any) -> dict[str, str]:
    """What the address says, once it has followed the last movement."""
    page.wait_for_timeout(250)
    return {k: v[0] for k, v in parse_qs(page.evaluate("location.hash.slice(1)")).items()}


def moved(page: Any) -> tuple[float, float, float]:
    """Zoom and shift (as shares of the frame), which all pictures of the page have in common."""
    found = page.evaluate(
        """() => [...document.querySelectorAll('.half img, .frame img')].map((image) => {
             const m = new DOMMatrix(getComputedStyle(image).transform);
             return [m.a, m.d, m.e / image.clientWidth, m.f / image.clientHeight];
           })"""
    )
    assert len(found) > 4
    assert all(f == pytest.approx(found[0], abs=0.005) for f in found)
    assert found[0][0] == found[0][1]
    return (*found[0][1:],)


def near(*numbers: float) -> Any:
    return pytest.approx(numbers, abs=0.01)


def split(page: Any) -> int:
    return int(page.locator("#divider").get_attribute("aria-valuenow"))


def first_column(page: Any, table: str) -> list[str]:
    return page.locator(f"{table} tbody:first-of-type th").evaluate_all("cells => cells.map((c) => c.dataset.value)")


@pytest.mark.parametrize("name", ["index.html", "statistics.html", "items.html", "runs.html"])
def test_pages_fit_print_nothing_and_ask_for_nothing(site: Path, open_page: OpenPage, name: str) -> None:
    opened = open_page(address(site, name), width=1280, height=800)
    page = opened.page
    assert page.evaluate("window.broken") is None
    assert page.locator("h1").is_visible()
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for width in (1280, 768, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter((i) => i.hasAttribute('src') && i.complete && !i.naturalWidth).map((i) => i.src)"
    assert page.evaluate(broken) == []
    opened.check()


def test_nothing_can_be_loaded_from_elsewhere(site: Path, open_page: OpenPage) -> None:
    """The watch works, and the page's own policy stops what a script would try."""
    opened = open_page(address(site, "index.html"))
    opened.page.evaluate(
        """() => new Promise((done) => {
             document.addEventListener('securitypolicyviolation', () => done(true));
             const image = new Image();
             image.src = 'http://127.0.0.1:9/x.png';
             document.body.append(image);
             const script = document.createElement('script');
             script.textContent = 'window.broken = 1';
             document.body.append(script);
           })"""
    )
    assert opened.page.evaluate("window.broken") is None
    assert opened.strangers == ["http://127.0.0.1:9/x.png"]
    assert opened.errors == ["failed: http://127.0.0.1:9/x.png csp"]  # stopped before it reached a network
    assert len([m for m in opened.messages if "Content Security Policy" in m]) >= 2
    with pytest.raises(AssertionError):
        opened.check()


def test_a_shade_tells_of_columns_out_of_sight(site: Path, open_page: OpenPage) -> None:
    from io import BytesIO

    import numpy as np
    from PIL import Image

    page = open_page(address(site, "index.html"), width=390, height=800).page
    table = page.locator(".scroll").first
    assert table.evaluate("e => e.scrollWidth > e.clientWidth + 100")

    def edge() -> float:
        """Brightness of the right edge above the table, over that of the page."""
        pixels = np.asarray(Image.open(BytesIO(table.screenshot())).convert("L"), dtype=float)
        return float(pixels[2:6, -3:].mean() / pixels.max())

    assert edge() < 0.9
    table.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    page.wait_for_timeout(100)
    assert edge() > 0.95


def test_sorting_by_mouse_and_keyboard(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "index.html"))
    page = opened.page
    table = "#task-1-table"
    psnr = page.locator(f"{table} thead th", has_text="PSNR")
    values = f"{table} tbody:first-of-type tr"

    def shown() -> list[float]:
        place = psnr.evaluate("th => th.cellIndex")
        return page.locator(values).evaluate_all("(rows, i) => rows.map((r) => Number(r.cells[i].dataset.value))", place)

    assert psnr.get_attribute("aria-sort") == "none"
    psnr.get_by_role("button").click()
    assert psnr.get_attribute("aria-sort") == "descending"  # best first
    assert shown() == sorted(shown(), reverse=True)
    page.keyboard.press("Enter")
    assert psnr.get_attribute("aria-sort") == "ascending"
    assert shown() == sorted(shown())
    names = page.locator(f"{table} thead th").first
    names.get_by_role("button").focus()
    page.keyboard.press("Space")
    assert names.get_attribute("aria-sort") == "ascending"
    assert psnr.get_attribute("aria-sort") == "none"
    assert first_column(page, table) == [HOSTILE, "bicubic", "many_draws", "sharp"]
    assert page.locator(f"{table} tbody.controls th").get_attribute("data-value") == "gt"  # stays below
    gmsd = page.locator(f"{table} thead th", has_text="GMSD")
    gmsd.get_by_role("button").click()
    assert gmsd.get_attribute("aria-sort") == "ascending"  # lower is better
    opened.check()


def test_missing_numbers_stay_last_in_both_directions(tmp_path: Path, open_page: OpenPage) -> None:
    make_task(tmp_path / "runs", [Made("full"), Made("best", 3)])
    make_task(tmp_path / "other", [Made("none_of_it", 1)], columns=["psnr"])
    (tmp_path / "other/toy/uniform-x4/run0").rename(tmp_path / "runs/toy/uniform-x4/run9")
    made = build_site(load_runs([tmp_path / "runs"]), tmp_path / "site")
    page = open_page(made.index.as_uri()).page
    button = page.locator("#task-1-table thead th", has_text="SSIM").get_by_role("button")
    button.click()
    assert first_column(page, "#task-1-table") == ["best", "full", "none_of_it"]
    button.click()
    assert first_column(page, "#task-1-table") == ["full", "best", "none_of_it"]


def test_slider_by_mouse_and_keyboard(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "items.html"))
    page = opened.page
    assert split(page) == 50
    box = page.locator("#stage").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, middle, steps=4)
    page.mouse.up()
    assert split(page) == 80
    left = page.locator(".half-a").evaluate("e => getComputedStyle(e).clipPath")
    right = page.locator(".half-b").evaluate("e => getComputedStyle(e).clipPath")
    assert left != right
    assert "80%" in right
    page.keyboard.press("ArrowLeft")  # the line has the focus
    assert split(page) == 78
    page.keyboard.press("Shift+ArrowRight")
    assert split(page) == 88
    page.keyboard.press("Home")
    assert split(page) == 0
    page.keyboard.press("End")
    assert split(page) == 100
    spoken = page.locator("#divider").get_attribute("aria-valuetext")
    assert spoken == "100 percent A (sharp), 0 percent B (ground truth)"
    assert fragment(page)["split"] == "1.000"
    opened.check()


def test_the_line_lies_between_the_two_pictures(site: Path, open_page: OpenPage) -> None:
    """Left of the line are pixels of A, right of it those of B."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    page = open_page(address(site, "items.html", item=ITEM, a="sharp", al="error", b="~truth", split="0.4")).page
    page.wait_for_function("[...document.querySelectorAll('.half img')].every((i) => i.complete && i.naturalWidth)")
    page.evaluate("document.querySelectorAll('.divider, .tag').forEach((e) => { e.hidden = true; })")
    shot = np.asarray(Image.open(BytesIO(page.locator("#stage").screenshot())).convert("RGB")).astype(int)
    coloured = np.abs(shot[..., 0] - shot[..., 2]) > 8  # error maps are coloured, images are grey
    wide = shot.shape[1]
    assert coloured[:, : int(0.39 * wide)].mean() > 0.2
    assert coloured[:, int(0.41 * wide) :].mean() < 0.01


def test_zoom_and_pan_move_all_pictures_together(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "items.html"))
    page = opened.page
    pictures = page.locator(".half img, .frame img").count()
    assert pictures == 2 + 2 + 5
    assert moved(page) == near(1, 0, 0)
    page.locator("#zoom-in").click()
    assert moved(page) == near(1.5, -0.25, -0.25)  # about the middle
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    assert moved(page) == near(1.5, -0.35, -0.25)
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    assert moved(page) == near(1.5, -0.5, -0.25)  # not beyond the edge
    page.keyboard.press("0")
    assert moved(page) == near(1, 0, 0)
    page.keyboard.press("+")
    assert moved(page) == near(1.25, -0.125, -0.125)
    page.locator("#zoom-detail").click()
    found = moved(page)
    assert found[0] == 4  # a quarter of each side
    page.locator(".frame").nth(1).scroll_into_view_if_needed()
    box = page.locator(".frame").nth(1).bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 55, steps=3)
    page.mouse.up()
    assert moved(page)[1:] != near(*found[1:])
    page.locator("#zoom-reset").click()
    assert moved(page) == near(1, 0, 0)
    opened.check()


def test_the_wheel_zooms_only_where_it_was_asked_to(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "items.html"), height=500)
    page = opened.page
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 40)
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(200)
    assert moved(page) == near(1, 0, 0)
    assert page.evaluate("scrollY") > 0  # the page moved instead
    page.evaluate("scrollTo(0, 0)")
    page.locator("#stage").focus()
    page.evaluate("scrollTo(0, 0)")
    page.mouse.wheel(0, -100)
    page.wait_for_timeout(200)
    z, x, y = moved(page)
    assert z == pytest.approx(1.28, abs=0.02)
    assert x == pytest.approx((1 - z) / 4, abs=0.02)  # the pixel under the pointer stays
    assert y < 0
    opened.check()


def test_links_to_items(site: Path, open_page: OpenPage) -> None:
    opened = open_page(
        address(site, "items.html", item=ITEM, a="bicubic", al="error", b="many_draws", bl="sd", z="2", x="-0.5", y="-0.5")
    )
    page = opened.page
    assert page.locator("#item-title").text_content() == ITEM
    assert page.locator("#a-entry").input_value() == "bicubic"
    assert page.locator("#a-layer").input_value() == "error"
    assert page.locator("#a-image").get_attribute("src").endswith("-error.png")
    assert page.locator("#b-image").get_attribute("src").endswith("-sd.png")
    assert moved(page) == near(2, -0.5, -0.5)
    assert page.locator("#list a[aria-current]").text_content().startswith(ITEM)
    assert page.locator("#error-scale").is_visible()
    assert page.locator("#sd-scale").is_visible()
    other = page.locator("#list a", has_text="toy/s0/vol/000")
    other.focus()
    page.keyboard.press("Enter")
    assert page.locator("#item-title").text_content() == "toy/s0/vol/000"
    assert page.locator("#a-entry").input_value() == "bicubic"  # the choice of pictures stays
    assert fragment(page)["item"] == "toy/s0/vol/000"
    page.go_back()
    page.wait_for_function("document.getElementById('item-title').textContent === 'toy/s1/vol/002'")
    page.locator("#next").click()
    assert page.locator("#item-title").text_content() != ITEM
    opened.check()


@pytest.mark.slow
def test_addresses_that_lead_nowhere_still_show_an_item(site: Path, open_page: OpenPage) -> None:
    for wrong in ("item=nowhere", "item=%E0%A4%A", "nonsense", "item=" + quote(ITEM) + "&a=nobody&z=abc&al=constructor"):
        again = open_page(f"{(site / 'items.html').as_uri()}#{wrong}")
        assert again.page.locator("#stage").is_visible()
        again.check()


def test_links_from_the_leaderboard_lead_to_items(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "index.html"))
    link = opened.page.locator(".looks a").first
    name = link.text_content()
    link.click()
    opened.page.wait_for_selector("#stage")
    assert opened.page.locator("#item-title").text_content() == name
    opened.check()


def test_order_of_the_list(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "items.html"))
    page = opened.page

    def scores() -> list[float]:
        return [float(t.split()[0].rstrip(",")) for t in page.locator(".list-score").all_text_contents()]

    assert scores() == sorted(scores())  # worst first
    page.locator("#order-how").select_option("best")
    assert scores() == sorted(scores(), reverse=True)
    page.locator("#order-of").select_option("bicubic")
    assert scores() == sorted(scores(), reverse=True)
    page.locator("#order-column").select_option(label="GMSD ↓")
    assert scores() == sorted(scores())  # lower is better: the best first
    page.locator("#order-column").select_option(label="PSNR ↑")
    page.locator("#b-entry").select_option("bicubic")
    page.locator("#order-how").select_option("a-b")
    assert scores() == sorted(scores(), reverse=True)
    assert all(1 < s < 3 for s in scores())  # sharp is 2 dB better
    page.locator("#order-how").select_option("name")
    assert page.locator(".list-id").first.text_content() == "toy/s0/vol/000"
    opened.check()


def test_hostile_names_are_text(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "items.html", item="toy/s0/vol/001", a=HOSTILE))
    page = opened.page
    assert page.evaluate("window.broken") is None
    assert page.locator("#numbers tbody").text_content().count("window.broken = 1") >= 2  # name and error
    assert page.locator("#a-entry").input_value() == HOSTILE
    assert page.locator(".frame p").text_content().startswith("failed: </script>")
    assert page.evaluate("document.scripts.length") == 4
    opened.check()


def test_on_a_phone_fingers_move_the_line_and_the_page(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "items.html"), width=390, height=844, has_touch=True, is_mobile=True)
    page = opened.page
    box = page.locator("#stage").bounding_box()
    assert box["width"] > 340
    client = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": box["x"] + u * box["width"], "y": box["y"] + v * box["height"], "id": i} for i, (u, v) in enumerate(points)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (0.2, 0.5))
    assert split(page) == 50  # a finger that only touches moves nothing
    for u in (0.25, 0.3, 0.4):
        touch("touchMove", (u, 0.5))
    touch("touchEnd")
    assert split(page) == pytest.approx(40, abs=1)
    touch("touchStart", (0.4, 0.5), (0.6, 0.5))
    for d in (0.15, 0.2):
        touch("touchMove", (0.5 - d, 0.5), (0.5 + d, 0.5))
    touch("touchEnd")
    assert moved(page)[0] == pytest.approx(2, abs=0.1)
    assert page.locator("#zoom").text_content() == "2x"
    opened.check()


@pytest.mark.slow
def test_everything_is_reachable_by_keyboard(site: Path, open_page: OpenPage) -> None:
    opened = open_page(address(site, "items.html"))
    page = opened.page
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
        )
    wanted = {"order-how", "order-column", "order-of", "a-entry", "b-entry", "zoom-in", "zoom-reset", "zoom-detail", "smooth"}
    assert wanted <= seen
    assert {"stage", "divider", "link", "next", "grid-layer", "skip"} <= seen
    assert any("pick" in s for s in seen)


@pytest.mark.slow
def test_dark_and_light_have_contrast(site: Path, open_page: OpenPage) -> None:
    """Text on the page, by the definition of WCAG 2: 4.5 at least."""
    ratio = """() => {
      const light = (c) => {
        const [r, g, b] = c.match(/[0-9.]+/g).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const back = light(getComputedStyle(document.body).backgroundColor);
      return ['body', '.dim', 'a', '.notes', 'thead th'].map((s) => {
        const [u, v] = [light(getComputedStyle(document.querySelector(s)).color), back].sort((p, q) => q - p);
        return (u + 0.05) / (v + 0.05);
      });
    }"""
    backs = set()
    for scheme in ("light", "dark"):
        page = open_page(address(site, "index.html"), color_scheme=scheme).page
        assert min(page.evaluate(ratio)) >= 4.5
        backs.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backs) == 2


@pytest.mark.slow
def test_printed_pages_hide_what_needs_a_screen(site: Path, open_page: OpenPage) -> None:
    page = open_page(address(site, "items.html")).page
    page.emulate_media(media="print")
    for gone in (".browse", ".tools", "nav"):
        assert not page.locator(gone).first.is_visible()
    assert page.locator("#numbers").is_visible()


@pytest.mark.slow
def test_without_scripts_the_tables_stay(site: Path, open_page: OpenPage) -> None:
    page = open_page(address(site, "index.html"), java_script_enabled=False).page
    assert page.locator("#task-1-table tbody tr").count() == 5
    page = open_page(address(site, "items.html"), java_script_enabled=False).page
    assert "needs JavaScript" in page.locator("main").inner_text()


def test_pages_without_pictures_show_the_numbers(tmp_path: Path, open_page: OpenPage) -> None:
    make_task(tmp_path / "runs", redistribution="none")
    made = build_site(load_runs([tmp_path / "runs"]), tmp_path / "site")
    opened = open_page((made.out / "items.html").as_uri())
    assert not opened.page.locator("#stage").is_visible()
    assert opened.page.locator("#numbers tbody tr").count() == 4
    assert "do not allow them to be published" in opened.page.locator("main").inner_text()
    opened.check()


@pytest.mark.slow
def test_the_site_of_real_runs(mrbench: Any, tmp_path: Path, open_page: OpenPage) -> None:
    done = mrbench(
        "run", "--method", "bicubic", "--method", "nearest", "--method", "gt", "--dataset", "sample", "--scale", 4, "--subset", 2,
        "--metrics", "psnr,ssim", "--images", "all", "--no-pictures", "--threads", 1, "--out", tmp_path / "runs",
    )  # fmt: skip
    assert done.code == 0
    made = build_site(load_runs([tmp_path / "runs"]), tmp_path / "site")
    assert made.pictured == 2
    assert made.size < 25_000_000
    for name in ("index.html", "statistics.html", "items.html", "runs.html"):
        opened = open_page(address(made.out, name))
        assert opened.page.locator("h1").is_visible()
        opened.check()


# -- boards as one page --------------------------------------------------------------------------------------------------
def test_names_on_a_wide_board_break_only_where_they_must(tmp_path: Path, open_page: OpenPage) -> None:
    from mrbench.report.leaderboard import build_boards
    from mrbench.report.render import render

    make_task(tmp_path / "runs", [Made("scale_cascaded"), Made("x" * 400, 1.0)])
    (tmp_path / "board.html").write_text(render(build_boards(load_runs([tmp_path / "runs"])), "html"), encoding="utf-8")
    page = open_page((tmp_path / "board.html").as_uri(), width=390, height=800).page
    short = page.locator("tbody th", has_text="scale_cascaded")
    assert short.bounding_box()["height"] < 40  # one line
    assert page.locator("tbody th", has_text="xxx").bounding_box()["width"] < 400
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
