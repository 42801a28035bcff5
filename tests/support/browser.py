"""A headless Chromium for tests of pages: fixtures to import into a ``conftest.py``.

``chromium`` starts one browser for a module; ``open_page(url, ...)`` opens a page of its own that writes down what it prints,
what it asks for and what goes wrong. Both skip, with the reason, where Playwright or Chromium are not installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OFFLINE = ("file:", "data:", "blob:")


@dataclass
class Opened:
    """A page with what it did. ``allowed``: how addresses begin that it may ask for."""

    page: Any
    allowed: tuple[str, ...]
    messages: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def strangers(self) -> list[str]:
        """Requests for anything else."""
        return [r for r in self.requests if not r.startswith(self.allowed)]

    def check(self) -> None:
        """Nothing was printed, nothing went wrong, nothing else was asked for."""
        assert self.errors == []
        assert self.messages == []
        assert self.strangers == []


OpenPage = Callable[..., Opened]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One headless browser. Not for the whole session: while it runs, asyncio takes the process for busy."""
    api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium is installed (looked for {', '.join(NAMES)})")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[OpenPage]:
    """``open_page(url, width=1280, height=800, offline=True, allowed=OFFLINE, **context options)``."""
    contexts = []

    def call(
        url: str, *, width: int = 1280, height: int = 800, offline: bool = True, allowed: tuple[str, ...] = OFFLINE, **more: Any
    ) -> Opened:
        context = chromium.new_context(viewport={"width": width, "height": height}, offline=offline, **more)
        contexts.append(context)
        context.set_default_timeout(20_000)
        opened = Opened(context.new_page(), allowed)
        opened.page.on("console", lambda message: opened.messages.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.page.on("requestfailed", lambda request: opened.errors.append(f"failed: {request.url} {request.failure}"))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(url)
        return opened

    yield call
    for context in contexts:
        context.close()
