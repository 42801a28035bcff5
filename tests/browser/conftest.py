"""The browser of all tests in this folder."""

from browser import chromium, open_page

__all__ = ["chromium", "open_page"]
