"""Files of the Hugging Face Hub, by its own client: looked up in its cache first, and asked for only if it answers.

The client waits and tries again for 20 seconds and more where nobody answers, so the Hub is probed once before.
"""

from __future__ import annotations

import errno
import os
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote

import mrbench
from mrbench.errors import UserError
from mrbench.hub.places import is_commit

ENDPOINT = "https://huggingface.co"
ENDPOINT_VARIABLE = "HF_ENDPOINT"
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "MRBENCH_OFFLINE")
PROBE_SECONDS = 5.0
ON = ("1", "true", "yes", "on")
BUSY = 429  # Too Many Requests: the client would wait and try again
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


class NoSuchFile(UserError):
    """The Hub has the repository and the revision, but not this file in it."""


@dataclass(frozen=True)
class Fetched:
    """A file of the Hub on this machine. ``commit``: its revision; ``note``: what a reader should know, or empty."""

    file: Path
    commit: str
    note: str = ""


@dataclass(frozen=True)
class Hub:
    """How the Hub is reached.

    endpoint : its address (``HF_ENDPOINT`` names a mirror).
    offline : the environment variable that forbids any attempt, or empty.
    cache : the folder of its cache; ``None``: huggingface-hub's own (``HF_HUB_CACHE``, ``HF_HOME``).
    token : ``None``: the one that huggingface-hub finds (``hf auth login``, ``HF_TOKEN``).
    seconds : how long an answer to the first request is waited for.
    """

    endpoint: str = ENDPOINT
    offline: str = ""
    cache: Path | None = None
    token: str | None = None
    seconds: float = PROBE_SECONDS

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Hub:
        """As ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and ``MRBENCH_OFFLINE`` say."""
        environ = os.environ if environ is None else environ
        offline = next((v for v in OFFLINE_VARIABLES if environ.get(v, "").strip().lower() in ON), "")
        return cls((environ.get(ENDPOINT_VARIABLE) or ENDPOINT).rstrip("/"), offline)

    # -- the cache ---------------------------------------------------------------------------------------------
    def cache_folder(self) -> Path:
        """The folder of huggingface-hub's cache."""
        if self.cache is not None:
            return self.cache
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(HF_HUB_CACHE)

    def snapshot(self, repo_id: str, revision: str, file: str) -> Path:
        """Where a cached copy of a file is, or would be."""
        return self.cache_folder() / f"models--{repo_id.replace('/', '--')}" / "snapshots" / revision / file

    def cached(self, repo_id: str, revision: str, file: str) -> Fetched | None:
        """The cached copy of a file (of a branch: the one of the last look at it), or ``None``."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repo_id, file, cache_dir=self.cache_folder(), revision=revision)
        return self._fetched(Path(found), repo_id) if isinstance(found, str) else None

    def known_missing(self, repo_id: str, revision: str, file: str) -> bool:
        """Whether the cache remembers that the Hub has no such file in this revision."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repo_id, file, cache_dir=self.cache_folder(), revision=revision)
        return found is not None and not isinstance(found, str)

    def _fetched(self, file: Path, repo_id: str, note: str = "") -> Fetched:
        return Fetched(file, file.relative_to(self.snapshot(repo_id, "", "")).parts[0], note)

    # -- getting files -----------------------------------------------------------------------------------------
    def fetch(self, repo_id: str, revision: str, file: str, owner: str) -> Fetched:
        """A file of the Hub: the cached copy, else downloaded (with a progress bar on a terminal).

        A commit in the cache needs no network. A branch or tag is looked up each time, and its last cached copy serves
        where the Hub cannot be reached.

        Parameters
        ----------
        owner : what the user asked for (``METHOD@NAME``); begins every message.

        Raises
        ------
        NoSuchFile : the repository has no such file.
        UserError : not cached and the Hub cannot be reached (with the ways out), or it refuses (private, gated, unknown).
        OSError : the disk is full or the cache may not be written.
        """
        cached = self.cached(repo_id, revision, file)
        if cached is not None and is_commit(revision):
            return cached
        reason = f"{self.offline} is set" if self.offline else self.unreachable(self._url(repo_id, revision, file))
        if reason and cached is not None:
            note = f"{owner}: {reason}; {revision!r} is taken as it was last seen, commit {cached.commit}"
            return Fetched(cached.file, cached.commit, note)
        if reason:
            raise UserError(self._ways_out(reason, repo_id, revision, file, owner))
        return self._download(repo_id, revision, file, owner)

    def fetch_optional(self, repo_id: str, revision: str, file: str, owner: str) -> Path | None:
        """Like :meth:`fetch`, with ``None`` for a file that the repository does not have."""
        if self.known_missing(repo_id, revision, file):
            return None
        try:
            return self.fetch(repo_id, revision, file, owner).file
        except NoSuchFile:
            return None

    def _url(self, repo_id: str, revision: str, file: str) -> str:
        return f"{self.endpoint}/{repo_id}/resolve/{quote(revision, safe='')}/{quote(file)}"

    def _download(self, repo_id: str, revision: str, file: str, owner: str) -> Fetched:
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(
                repo_id,
                file,
                revision=revision,
                cache_dir=self.cache_folder(),
                endpoint=self.endpoint,
                token=self.token,
                library_name="mrbench",
                library_version=mrbench.__version__,
            )
        except Exception as error:  # the client raises what its HTTP library and its own checks raise
            raise self.explain(error, repo_id, revision, file, owner) from error
        found = self._fetched(Path(path), repo_id)
        if is_commit(revision):
            return found
        note = f"{owner}: {revision!r} of {repo_id} is commit {found.commit} now. Name the commit to keep these weights."
        return Fetched(found.file, found.commit, note)

    # -- what went wrong ---------------------------------------------------------------------------------------
    def unreachable(self, url: str) -> str:
        """Why ``url`` gives no answer within ``seconds`` (name resolution included), or the empty string.

        Whatever the server answers (401, 404, a redirect) counts as an answer, unless it is out of order or too busy.
        """
        outcome: list[str] = []

        def ask() -> None:
            try:
                opener = urllib.request.build_opener(_NoRedirect)
                with opener.open(urllib.request.Request(url, method="HEAD"), timeout=self.seconds):
                    outcome.append("")
            except HTTPError as error:
                with error:
                    down = error.code >= 500 or error.code == BUSY
                    outcome.append(f"it answers {error.code} {error.reason}" if down else "")
            except Exception as error:
                cause = error.reason if isinstance(error, URLError) else error
                if isinstance(cause, TimeoutError):
                    outcome.append(self._no_answer())
                else:  # the client brings its own certificates: let it try where only these are missing
                    outcome.append("" if isinstance(cause, ssl.SSLError) else f"no connection ({cause})")

        asking = threading.Thread(target=ask, daemon=True)  # name resolution knows no timeout, so it is left behind
        asking.start()
        asking.join(self.seconds)
        return outcome[0] if outcome else self._no_answer()

    def _no_answer(self) -> str:
        return f"no answer within {self.seconds:g} s"

    def _ways_out(self, reason: str, repo_id: str, revision: str, file: str, owner: str) -> str:
        method = owner.partition("@")[0]
        where = self.snapshot(repo_id, revision if is_commit(revision) else "COMMIT", file)
        lines = [
            f"{owner}: {file} of {repo_id} (revision {revision}) is not cached, and could not be had from the Hub ({self.endpoint}): "
            f"{reason}. Any of these helps:",
            f"  - a file that you have: --method {method}@PATH, or once for all: mrbench checkpoints add {method} PATH",
            f"  - a cached copy, from a machine that has one (mrbench pull {owner}): {where}",
            f"  - a mirror that can be reached: {ENDPOINT_VARIABLE}=https://... before the same command",
        ]
        if self.offline:
            lines.append(f"  - the network: unset {self.offline}")
        return "\n".join(lines)

    def explain(self, error: Exception, repo_id: str, revision: str, file: str, owner: str) -> Exception:
        """What an error of the client means to a person; a full or forbidden disk stays what it is."""
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if isinstance(error, OSError) and error.errno in DISK:
            return error
        if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # "not found here, and this happened there"
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, GatedRepoError):
            return UserError(
                f"{owner}: {repo_id} is gated: its owner lets in those who accept its conditions. Accept them at "
                f"{self.endpoint}/{repo_id}, then log in (`hf auth login`, or HF_TOKEN)."
            )
        if isinstance(error, RevisionNotFoundError):
            return UserError(
                f"{owner}: {repo_id} has no revision {revision!r}. Its commits: {self.endpoint}/{repo_id}/commits/main."
            )
        if isinstance(error, RepositoryNotFoundError) or status == 401:
            return UserError(
                f"{owner}: the Hub shows no repository {repo_id} (it does not exist, or is private). Check the name; for a "
                "private one log in (`hf auth login`, or HF_TOKEN)."
            )
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return NoSuchFile(
                f"{owner}: {repo_id} has no file {file!r} in revision {revision}. Its files: {self.endpoint}/{repo_id}/tree/{quote(revision, safe='')}."
            )
        if status == 403:
            return UserError(f"{owner}: the Hub forbids {repo_id} to this token ({first_line(error)}).")
        reason = f"{type(error).__name__}: {first_line(error)}"
        return UserError(self._ways_out(reason, repo_id, revision, file, owner))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer; the storage behind it need not be asked."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Any:
        """Follow nothing."""
        return None


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
