"""Errors that a person reads. The command line prints them without a traceback."""

from __future__ import annotations


class MrbenchError(Exception):
    """Base of all errors that mrbench raises on purpose."""


class UserError(MrbenchError):
    """A mistake in what was asked for (exit code 2): what was wrong, what was expected, what to do next."""


class PluginError(MrbenchError):
    """A plugin that does not do what its contract says (the run goes on without it)."""


class DataError(MrbenchError):
    """A file that cannot be used as an image or volume.

    Parameters
    ----------
    file : path of the file, as the user knows it.
    reason : what is wrong with it.
    fix : what to do about it.
    """

    def __init__(self, file: object, reason: str, fix: str = "") -> None:
        self.file, self.reason, self.fix = str(file), reason, fix
        super().__init__(f"{file}: {reason}" + (f" {fix}" if fix else ""))


class MetricUnavailable(MrbenchError):
    """A metric that cannot be computed here (weights not at hand, image too small): its column becomes ``n/a``."""
