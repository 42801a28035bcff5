"""Publishing a checkpoint folder on the Hub: what would go up, and the upload as one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mrbench
from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint, read_folder
from mrbench.hub.client import ENDPOINT_VARIABLE, Hub, first_line
from mrbench.hub.hashing import weights_sha256
from mrbench.hub.places import CARD, CONFIG, TRAINING, WEIGHTS, HubReference, is_repo

FILES = (WEIGHTS, CONFIG, TRAINING, CARD)


@dataclass(frozen=True)
class PushFile:
    """A file that goes up. ``path``: in the repository."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class PushPlan:
    """What a push would do. ``left_out``: files of the folder that stay here; ``warnings``: what a publisher should see."""

    folder: Path
    repo_id: str
    endpoint: str
    private: bool
    files: tuple[PushFile, ...]
    left_out: tuple[str, ...]
    checkpoint: LocalCheckpoint
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "repo_id": self.repo_id,
            "endpoint": self.endpoint,
            "private": self.private,
            "files": [asdict(f) for f in self.files],
            "left_out": list(self.left_out),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Pushed:
    """What was published. ``record``: for the method's card; ``reference``: what after ``@`` finds it."""

    commit: str
    url: str
    record: Checkpoint
    reference: str


def plan_push(folder: Path, repo_id: str, hub: Hub, *, path_in_repo: str = "", private: bool = False) -> PushPlan:
    """Check a checkpoint folder and say what would be uploaded. Asks no network.

    Raises
    ------
    UserError : not a whole checkpoint folder, weights that cannot be read, or a bad repository name or path.
    """
    if not is_repo(repo_id):
        raise UserError(f"{repo_id!r} is no repository name. Expected ORG/REPO, for example my-group/res_srdiff-x4.")
    parts = [p for p in path_in_repo.split("/") if p]
    if any(p in (".", "..") for p in parts):
        raise UserError(f"--path-in-repo {path_in_repo}: holds '.' or '..'. Expected a path like x4.")
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder. Give a checkpoint folder ({', '.join(FILES)}), as `mrbench train` writes it."
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: {', '.join(missing)} missing. A checkpoint folder holds {', '.join(FILES)}.")
    checkpoint = read_folder(folder)
    checkpoint.tensors()  # what is published can be read
    files = []
    for name in FILES:
        file = folder / name
        files.append(PushFile("/".join([*parts, name]), file.stat().st_size, weights_sha256(file)))
    left_out = tuple(sorted(f.name + ("/" if f.is_dir() else "") for f in folder.iterdir() if f.name not in FILES))
    notes = {
        f"{CONFIG} names no licence: nobody may use the weights without one": not checkpoint.record.licence,
        f"{TRAINING} holds no probe scores: nobody can check the weights": not checkpoint.record.probe_scores,
        f"{TRAINING} does not say what the weights were trained on": not checkpoint.record.trained_on,
    }
    warnings = tuple(text for text, applies in notes.items() if applies)
    return PushPlan(folder, repo_id, hub.endpoint, private, tuple(files), left_out, checkpoint, warnings)


def push(plan: PushPlan, hub: Hub, message: str = "") -> Pushed:
    """Upload what the plan says, as one commit; the repository is made if it does not exist.

    Raises
    ------
    UserError : the Hub cannot be reached or refuses (no token, no right to write).
    """
    if hub.offline:
        raise UserError(f"push: {hub.offline} is set, so nothing is uploaded. Unset it.")
    reason = hub.unreachable(f"{hub.endpoint}/api/models/{plan.repo_id}")
    if reason:
        raise UserError(
            f"push: the Hub ({hub.endpoint}) is not reached: {reason}. Another address: {ENDPOINT_VARIABLE}=https://..."
        )

    from huggingface_hub import CommitOperationAdd, HfApi

    record = plan.checkpoint.record
    api = HfApi(endpoint=hub.endpoint, token=hub.token, library_name="mrbench", library_version=mrbench.__version__)
    operations = [CommitOperationAdd(f.path, str(plan.folder / Path(f.path).name)) for f in plan.files]
    summary = message or f"{plan.checkpoint.config['method']}: {record.name}"
    try:
        api.create_repo(plan.repo_id, private=plan.private, exist_ok=True)
        commit = api.create_commit(plan.repo_id, operations, commit_message=summary)
    except Exception as error:  # the client raises what its HTTP library and its own checks raise
        raise _refused(error, plan, hub) from error
    weights = plan.files[0].path
    published = replace(record, file=weights, repo_id=plan.repo_id, revision=commit.oid)
    return Pushed(commit.oid, commit.commit_url, published, str(HubReference(plan.repo_id, commit.oid, weights)))


def _refused(error: Exception, plan: PushPlan, hub: Hub) -> Exception:
    from huggingface_hub.errors import LocalTokenNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        return UserError(
            f"push: the Hub does not let this token write to {plan.repo_id}. Log in with a token that may "
            "(`hf auth login`, or HF_TOKEN), and check that you belong to the organisation."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return UserError(
        f"push: {plan.repo_id} could not be written at {hub.endpoint}: {type(error).__name__}: {first_line(error).rstrip('.')}. "
        "Nothing was published: files appear with the commit, at the very end. The same command tries again."
    )


def record_source(record: Checkpoint) -> str:
    """A record as it is written on a card, in Python, without the fields that hold their defaults."""
    import dataclasses

    lines = []
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Mapping):
            value = dict(value)
        default = field.default if field.default is not dataclasses.MISSING else None
        if value == default or value in ({}, ()):
            continue
        lines.append(f"    {field.name}={value!r},")
    return "\n".join(["mrbench.Checkpoint(", *lines, ")"])
