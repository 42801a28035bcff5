"""A study server that can be killed, and a reader who uses the keyboard. The browser is that of ``browser.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from browser import Opened, OpenPage
from study_support import COMMAND

if TYPE_CHECKING:
    from playwright.sync_api import Page

SETTLED = "() => !document.querySelector('#reading').hidden && document.querySelectorAll('.stage p:not([hidden])').length === 0"


class Served:
    """``mrbench study serve`` as a process; started again it has the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.url = folder, 0, ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, and wait until it says where it is."""
        command = [sys.executable, "-u", "-c", COMMAND, "serve", str(self.folder), "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ)
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.url = next(word for word in line.split() if word.startswith("http"))
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def watched(open_page: OpenPage, served: Served) -> Opened:
    """The study's first page; anything that it asks of another address is a stranger."""
    return open_page(served.url, width=1200, offline=False, allowed=(served.url, "data:"))


def enter(page: Page, name: str, new: bool) -> None:
    """Give a name; a new reader confirms and closes the list of keys."""
    page.wait_for_selector("#welcome:not([hidden])")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    if new:
        page.wait_for_selector("#unknown:not([hidden])")
        page.keyboard.press("Enter")
        page.wait_for_selector("#help[open]")
        page.keyboard.press("Enter")
    page.wait_for_function(SETTLED)


def rate_trial(page: Page, values: Sequence[int], *, go_on: bool = True) -> None:
    """Type the ratings of the trial on screen, Tab between them, Enter behind the last."""
    page.wait_for_function(SETTLED)
    before = page.locator("#progress-text").inner_text()
    for i, value in enumerate(values):
        if i:
            page.keyboard.press("Tab")
        page.keyboard.press(str(value))
    if not go_on:
        return
    page.keyboard.press("Enter")
    page.wait_for_function(
        "before => !document.querySelector('#done').hidden || "
        "document.querySelector('#progress-text').innerText.split(' ')[0] !== before.split(' ')[0]",
        arg=before,
    )


def chosen(page: Page) -> list[str]:
    """The rating of each row of the trial on screen, empty where there is none."""
    script = "rows => rows.map(r => r.querySelector('[aria-checked=true]')?.textContent ?? '')"
    found: list[str] = page.eval_on_selector_all(".row:not(.blank)", script)
    return found


def pixels(page: Page, panel: int = 0) -> list[int]:
    """The red values of a panel's middle row."""
    script = """(canvases, i) => { const c = canvases[i], x = c.getContext('2d');
        return Array.from(x.getImageData(0, c.height >> 1, c.width, 1).data).filter((_, j) => j % 4 === 0); }"""
    found: list[int] = page.eval_on_selector_all(".stage canvas", script, panel)
    return found
