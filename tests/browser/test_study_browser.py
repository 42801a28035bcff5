"""Two readers rate a study in a real browser with the keyboard alone; one of them is interrupted, and so is the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import OpenPage
from study_browser import SETTLED, Served, chosen, enter, pixels, rate_trial, watched
from study_support import make_study, write_runs

from mrbench.stats.presets import Plan
from mrbench.study.analysis import analyse_study
from mrbench.study.create import TRUTH
from mrbench.study.order import reading_order
from mrbench.study.readings import collect
from mrbench.study.records import KEY, read_key, read_study
from mrbench.study.store import reader_key

CRITERIA = ("contrast", "sharpness")
ANNA = {"zebranet": 4, "quokka_sr": 3, TRUTH: 5}
BEN = {"zebranet": 3, "quokka_sr": 3, TRUTH: 4}

pytestmark = pytest.mark.slow


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    runs = write_runs(tmp_path / "runs", {"zebranet": 0.0, "quokka_sr": -0.06}, {f"s{i}": 1 for i in range(4)})
    server = Served(make_study(runs, tmp_path / "study", images=4, criteria=CRITERIA, truth=True, repeats=2))
    server.start()
    yield server
    server.kill()


def opinions(folder: Path, name: str, level: dict[str, int]) -> list[list[int]]:
    """What a reader thinks of each trial in their order; sharpness is one less."""
    study = read_study(folder)
    key = read_key(folder / KEY, study)
    order = reading_order(study, reader_key(name))
    return [[level[key.images[c].method] - i for c in t.images for i in range(2)] for t in order]


def test_two_readers_one_interrupted(open_page: OpenPage, served: Served) -> None:
    folder = served.folder
    anna, ben = opinions(folder, "Anna", ANNA), opinions(folder, "Ben", BEN)
    assert len(anna) == 4 * 3 + 2

    # -- Anna, during whose reading the server dies and comes back
    opened = watched(open_page, served)
    page = opened.page
    enter(page, "Anna", new=True)
    for values in anna[:3]:
        rate_trial(page, values)
    served.kill()
    page.keyboard.press(str(anna[3][0]))
    page.wait_for_selector("#alert:not([hidden])")
    assert "Not saved yet" in page.locator("#alert").inner_text()
    assert page.locator(".row.wait").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.press(str(anna[3][1]))
    page.keyboard.press("Enter")  # goes on only when all is saved
    assert page.locator("#progress-text").inner_text().startswith("4 of 14")
    served.start()
    page.wait_for_function("() => document.querySelector('#progress-text').innerText.startsWith('5 of 14')")
    assert page.locator("#alert").is_hidden()
    for values in anna[4:]:
        rate_trial(page, values)
    page.wait_for_selector("#done:not([hidden])")
    assert "All 14 are rated" in page.locator("#done-text").inner_text()
    page.close()
    assert opened.strangers == []
    # a server that is killed refuses, or leaves a request that was on its way
    assert [
        m for m in opened.messages + opened.errors if not re.search("ERR_CONNECTION_(REFUSED|RESET)|ERR_EMPTY_RESPONSE", m)
    ] == []

    # -- Ben, whose page is closed in the middle of a trial; then the server is killed
    page = watched(open_page, served).page
    enter(page, "Ben", new=True)
    for values in ben[:5]:
        rate_trial(page, values)
    rate_trial(page, ben[5][:1], go_on=False)
    page.wait_for_function("() => document.querySelector('.row .mark').textContent === '✓'")
    page.close()
    served.kill()
    served.start()
    opened = watched(open_page, served)
    page = opened.page
    enter(page, " ben ", new=False)
    assert page.locator("#progress-text").inner_text() == "6 of 14, 5 rated"
    assert chosen(page) == [str(ben[5][0]), ""]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "sharpness"
    page.keyboard.press("Enter")  # not yet
    assert "sharpness is not rated yet" in page.locator("#alert").inner_text()
    rate_trial(page, ben[5][1:])
    for values in ben[6:]:
        rate_trial(page, values)
    page.wait_for_selector("#done:not([hidden])")
    opened.check()
    page.close()

    # -- the numbers
    result = analyse_study(collect(folder), Plan(resamples=500))
    assert [(r.name, r.rated, r.complete) for r in result.readers] == [("Anna", 28, True), ("Ben", 28, True)]
    assert result.warnings == ()
    for i, found in enumerate(result.criteria):
        assert {s.method: s.by_reader for s in found.scores} == {
            m: (float(ANNA[m] - i), float(BEN[m] - i)) for m in ("quokka_sr", "zebranet", TRUTH)
        }
        zebra = next(s for s in found.scores if s.method == "zebranet")
        assert (zebra.mean, zebra.n) == (3.5 - i, 8)
        assert zebra.sd == pytest.approx(np.std([4, 3] * 4, ddof=1))
        assert found.agreement.pairs[0].exact == pytest.approx(1 / 3)
        assert found.agreement.pairs[0].within_one == 1.0
        assert [(w.n, w.exact) for w in found.within] == [(2, 1.0), (2, 1.0)]
        assert found.test.pairs[0].difference == pytest.approx(-0.5)


def test_what_the_page_tells_and_shows(open_page: OpenPage, served: Served) -> None:
    folder = served.folder
    study = read_study(folder)
    opened = watched(open_page, served)
    page = opened.page
    bodies: list[str] = []
    page.on("response", lambda r: bodies.append(r.text() if "images/" not in r.url else r.url))
    page.reload()
    enter(page, "Carl", new=True)
    first = reading_order(study, reader_key("Carl"))[0]
    assert any(u.endswith(f"images/{first.images[0]}") for u in opened.requests)
    # the picture is there, zooms, and follows the window
    whole = pixels(page)
    assert max(whole) == 255 or max(whole) > 200
    page.keyboard.press("+")
    page.keyboard.press("+")
    near = pixels(page)
    assert sum(v > 150 for v in near) > 1.3 * sum(v > 150 for v in whole)
    for _ in range(10):
        page.keyboard.press("]")
    assert max(pixels(page)) < 200
    page.keyboard.press("r")
    assert pixels(page) == whole
    assert "zoom 1.0" in page.locator("#view-text").inner_text()
    page.locator(".stage canvas").hover()
    page.mouse.wheel(0, -300)
    page.wait_for_function("() => !document.querySelector('#view-text').textContent.endsWith('zoom 1.0')")
    # digits beyond the scale, and keys with Ctrl, rate nothing; a rating may be changed
    page.keyboard.press("9")
    page.keyboard.press("0")
    page.keyboard.press("Control+3")
    assert chosen(page) == ["", ""]
    page.keyboard.press("2")
    page.keyboard.press("5")
    assert chosen(page) == ["5", ""]
    page.keyboard.press("ArrowDown")
    page.locator(".row").nth(1).locator("button").nth(2).click()
    assert chosen(page) == ["5", "3"]
    page.wait_for_function("() => document.querySelectorAll('.row.wait').length === 0")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#progress-text').innerText.startsWith('2 of')")
    page.keyboard.press("Backspace")
    page.wait_for_function("() => document.querySelector('#progress-text').innerText.startsWith('1 of')")
    assert chosen(page) == ["5", "3"]
    # nothing in the page, its files or its requests names a method
    hidden = ("zebranet", "quokka_sr", TRUTH.replace(" ", ""), "toy/s", "repeat_of")
    everything = "\n".join([*bodies, *opened.requests, page.content()])
    assert "study.js" in everything
    assert not any(word in everything for word in hidden)
    opened.messages = [m for m in opened.messages if "getImageData" not in m]  # this test's own reading of pixels
    opened.check()
    lines = [json.loads(x) for x in next((folder / "ratings").glob("*.jsonl")).read_text().splitlines()[1:]]
    assert [(x["criterion"], x["value"]) for x in lines] == [("contrast", 2), ("contrast", 5), ("sharpness", 3)]


def test_a_name_with_markup_is_text(open_page: OpenPage, served: Served) -> None:
    opened = watched(open_page, served)
    page = opened.page
    name = "<img src=x onerror=alert(1)>"
    enter(page, name, new=True)
    assert page.locator("#reader").inner_text() == name
    assert page.locator("img").count() == 0
    opened.check()


def test_pairs_beside_a_reference(open_page: OpenPage, tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", {"zebranet": 0.0, "quokka_sr": -0.06}, {f"s{i}": 1 for i in range(3)})
    folder = make_study(runs, tmp_path / "study", images=3, criteria=CRITERIA, mode="pair", reference=True)
    server = Served(folder)
    server.start()
    try:
        opened = watched(open_page, server)
        page = opened.page
        enter(page, "Anna", new=True)
        assert page.locator(".panel h2").all_inner_texts() == ["Reference (ground truth)", "A", "B"]
        heights = page.eval_on_selector_all(".stage canvas", "all => all.map(c => c.clientHeight)")
        assert len(set(heights)) == 1  # one size for all
        page.keyboard.press("+")
        page.keyboard.press("d")
        edges = [np.flatnonzero(np.array(pixels(page, i)) > 60)[[0, -1]].tolist() for i in range(3)]
        assert np.ptp(np.array(edges), 0).max() <= 4  # and one place
        labels = page.eval_on_selector_all(".row:not(.blank)", "all => all.map(r => r.getAttribute('aria-label'))")
        assert labels == ["contrast of A", "sharpness of A", "contrast of B", "sharpness of B"]
        order = reading_order(read_study(folder), reader_key("Anna"))
        key = read_key(folder / KEY, read_study(folder))
        for trial in order:
            values = [ANNA[key.images[c].method] - i for c in trial.images for i in range(2)]
            page.wait_for_function(SETTLED)
            rate_trial(page, values)
        page.wait_for_selector("#done:not([hidden])")
        opened.check()
    finally:
        server.kill()
    scores = analyse_study(collect(folder), Plan(resamples=500)).criteria[1].scores
    assert {s.method: s.mean for s in scores} == {"quokka_sr": 2.0, "zebranet": 3.0}
