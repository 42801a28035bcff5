"""Publishing: what would go up, and the real client's commit against the Hub on this machine."""

from __future__ import annotations

import dataclasses

import pytest

import mrbench
from mrbench.errors import UserError
from mrbench.hub import Hub, find, plan_push, push, resolve
from mrbench.hub.pushing import record_source

NEW = "my-group/toy-x4"


@pytest.fixture
def writer(hub, loopback) -> Hub:
    return dataclasses.replace(hub, token=loopback.write_token)


def test_plan_shows_what_goes_up_and_asks_nobody(make_folder, hub, loopback) -> None:
    folder = make_folder()
    (folder / "optimizer.pt").write_bytes(b"large")
    (folder / "logs").mkdir()
    plan = plan_push(folder, NEW, hub, path_in_repo="x4/")
    assert [f.path for f in plan.files] == ["x4/model.safetensors", "x4/config.json", "x4/training.json", "x4/README.md"]
    assert plan.left_out == ("logs/", "optimizer.pt")
    assert plan.warnings == ()
    assert plan.files[0].size == (folder / "model.safetensors").stat().st_size
    assert plan.files[0].sha256 == plan.checkpoint.record.sha256
    assert plan.document()["repo_id"] == NEW
    assert loopback.requests == []


def test_plan_warns_of_what_a_reader_would_miss(make_folder, hub) -> None:
    plan = plan_push(make_folder(licence="", data=[], probe={}), NEW, hub)
    assert [w.partition(":")[0].partition(" ")[0] for w in plan.warnings] == ["config.json", "training.json", "training.json"]
    assert "licence" in plan.warnings[0]


def test_bad_plans_are_refused(make_folder, hub, tmp_path) -> None:
    folder = make_folder()
    with pytest.raises(UserError, match="'toy' is no repository name"):
        plan_push(folder, "toy", hub)
    with pytest.raises(UserError, match=r"--path-in-repo \.\./x"):
        plan_push(folder, NEW, hub, path_in_repo="../x")
    with pytest.raises(UserError, match="no such folder"):
        plan_push(tmp_path / "absent", NEW, hub)
    (folder / "README.md").unlink()
    (folder / "training.json").unlink()
    with pytest.raises(UserError, match=r"training\.json, README\.md missing"):
        plan_push(folder, NEW, hub)


def test_weights_that_cannot_be_read_are_not_published(make_folder, hub, weights) -> None:
    with pytest.raises(UserError, match="not a whole safetensors file"):
        plan_push(make_folder(content=weights[:-3]), NEW, hub)


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # the client's own use of its HTTP library
def test_push_makes_one_commit_that_can_be_pulled(
    make_folder, writer, hub, loopback, weights, card, registered, monkeypatch
) -> None:
    with monkeypatch.context() as patch:  # as HF_ENDPOINT sets it: versions of the client before 1.0 read it there
        patch.setattr("huggingface_hub.constants.ENDPOINT", loopback.endpoint)
        done = push(plan_push(make_folder(), NEW, writer, path_in_repo="x4"), writer)
        again = push(plan_push(make_folder("second", steps=20), NEW, writer), writer, "longer")
    files = loopback.repositories[NEW].commits[done.commit]
    assert sorted(files) == ["x4/README.md", "x4/config.json", "x4/model.safetensors", "x4/training.json"]
    assert files["x4/model.safetensors"] == weights
    assert again.commit != done.commit
    assert loopback.messages == ["toy: toy-x4", "longer"]
    assert len(loopback.asked("POST", "/commit/main")) == 2
    assert (done.record.repo_id, done.record.revision, done.record.file) == (NEW, done.commit, "x4/model.safetensors")
    assert done.reference == f"hf://{NEW}@{done.commit}/x4/model.safetensors"
    # what was printed works: by the reference, and as a record on a card
    found = find(card(), done.reference, 4, hub, registered)
    assert dataclasses.replace(found.record, name=done.record.name) == done.record
    assert resolve(done.record, "toy", hub).tensors()


def test_record_as_python(make_folder, hub) -> None:
    record = plan_push(make_folder(), NEW, hub).checkpoint.record
    assert eval(record_source(record), {"mrbench": mrbench}) == record
    assert "repo_id" not in record_source(record)


@pytest.mark.parametrize("token", ["hf_may_only_read", None])
def test_push_without_the_right_to_write(make_folder, hub, loopback, token) -> None:
    reader = dataclasses.replace(hub, token=token)
    with pytest.raises(UserError, match=r"does not let this token write to my-group/toy-x4\. Log in .*hf auth login"):
        push(plan_push(make_folder(), NEW, reader), reader)
    assert NEW not in loopback.repositories


def test_push_that_fails_on_the_way(make_folder, writer, loopback, monkeypatch) -> None:
    import huggingface_hub

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Error while uploading\nmany lines")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", broken)
    with pytest.raises(UserError, match=r"RuntimeError: Error while uploading\. Nothing was published"):
        push(plan_push(make_folder(), NEW, writer), writer)


def test_push_needs_a_hub_that_answers(make_folder, hub, silent, closed, loopback) -> None:
    folder = make_folder()
    for changes, text in (
        ({"offline": "MRBENCH_OFFLINE"}, "MRBENCH_OFFLINE is set, so nothing is uploaded"),
        ({"endpoint": silent, "seconds": 0.2}, r"no answer within 0\.2 s.*HF_ENDPOINT"),
        ({"endpoint": closed}, "no connection"),
    ):
        other = dataclasses.replace(hub, **changes)
        with pytest.raises(UserError, match=text):
            push(plan_push(folder, NEW, other), other)
    assert loopback.requests == []
