"""A seeded search of a method's options on validation subjects: every trial is an ordinary stored run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import qmc

from mrbench.cards import MetricCard
from mrbench.data.items import Progress
from mrbench.data.records import VolumeRef
from mrbench.data.splits import SPLITS, Split
from mrbench.engine.entries import DatasetChoice, Entry, parse_given
from mrbench.engine.folders import run_folder
from mrbench.engine.run import Runner
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Task, absolute_options, open_task
from mrbench.errors import UserError
from mrbench.metrics.uncertainty_cards import DRAWS
from mrbench.plugins import Registry, Shelf, did_you_mean
from mrbench.protocol import Protocol, SplitSpec
from mrbench.seeds import derive_seed
from mrbench.store.manifest import ColumnInfo
from mrbench.store.runs import load_run
from mrbench.store.tuned import ObjectiveInfo, TrialRecord
from mrbench.tuning_space import Space

VALIDATION: Split = "val"
CHUNK = 64  # points drawn at once
IDLE = 1000  # points in a row that repeat known ones (more for large discrete spaces): the space is exhausted
DIRECTIONS = {"min": False, "max": True}


# -- what is searched --------------------------------------------------------------------------------------------
def points(space: Space, seed: int) -> Iterator[dict[str, Any]]:
    """Endless points of a space: the Halton sequence, shifted modulo 1 by a seeded offset per option.

    A longer search begins with the points of a shorter one. Halton 1960, Numer. Math. 2, 84; Cranley and Patterson 1976,
    SIAM J. Numer. Anal. 13, 904 (the shift).
    """
    names = sorted(space)
    shift = np.array([derive_seed("tune", seed, name) / 2.0**63 for name in names])
    sequence = qmc.Halton(len(names), scramble=False)
    while True:
        for row in (sequence.random(CHUNK) + shift) % 1.0:
            at = dict(zip(names, row, strict=True))
            yield {name: dimension.at(float(at[name])) for name, dimension in space.items()}


def settings_to_try(space: Space, trials: int, seed: int, default: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``{}`` (the default options), then different points of the space: ``trials`` in all, or all that there are.

    Parameters
    ----------
    default : the values that the options have without being searched; a point equal to them is trial 0 already.
    """
    chosen: list[dict[str, Any]] = [{}]
    known = {_text({name: default.get(name) for name in space})}
    size, idle = math.prod(d.size for d in space.values()), 0
    patience = IDLE + (16 * min(int(size), 100_000) if math.isfinite(size) else 0)
    for point in points(space, seed):
        if len(chosen) >= trials or idle >= patience:
            break
        idle += 1
        if _text(point) not in known:
            known.add(_text(point))
            chosen.append(point)
            idle = 0
    return chosen


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)


# -- what is measured --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Objective:
    """A metric column and its direction. ``cap``: values above it enter means as it (infinite PSNR)."""

    info: ObjectiveInfo
    cap: float | None = None

    @property
    def column(self) -> str:
        """The column of the rows."""
        return self.info.column

    def better(self, score: float, than: float | None) -> bool:
        """Whether a score beats another one; ties do not."""
        return than is None or (score > than if self.info.higher_is_better else score < than)


def parse_objective(text: str, metrics: Shelf[MetricCard]) -> tuple[str, str, bool | None]:
    """``[min:|max:]COLUMN`` -> (column, metric, higher is better or as the metric says).

    Raises
    ------
    UserError : an empty column, another prefix, an unknown metric, or ``@best``, which knows the truth.
    """
    prefix, colon, column = text.rpartition(":")
    if not column or (colon and prefix not in DIRECTIONS):
        raise UserError(
            f"--objective {text}: expected COLUMN, min:COLUMN or max:COLUMN, e.g. psnr, psnr@mean, min:lpips_squeeze."
        )
    base, at, of = column.partition("@")
    if at and of != "mean":
        raise UserError(f"--objective {text}: options are tuned on draw 1 ({base}) or on the mean of draws ({base}@mean).")
    stem = base.removesuffix("_fg")
    owners = [n for n in metrics.names() if stem.startswith(n) and metrics.card(n).kind == DRAWS]  # coverage50 is of coverage
    card = metrics.get(stem if stem in metrics.names() or not owners else max(owners, key=len))
    return column, card.name, DIRECTIONS.get(prefix)


def make_objective(
    column: str, higher: bool | None, scorer: Scorer, draws: int, cap: Callable[[ColumnInfo], float | None]
) -> Objective:
    """The objective, once its metric is loaded.

    Parameters
    ----------
    draws : that the method gives. cap : of a column (``mrbench.report.summary.cap_of``).

    Raises
    ------
    UserError : the metric cannot be computed here, gives no such column, or one without a better direction.
    """
    columns = scorer.columns(draws)
    if scorer.unavailable:
        name, reason = next(iter(scorer.unavailable.items()))
        raise UserError(f"--objective {column}: metric {name} is not available: {reason}.")
    if column not in columns:
        usable = [c for c in columns if not c.endswith("@best")]
        raise UserError(
            f"--objective {column}: no such column.{did_you_mean(column, usable)} Columns: {', '.join(usable)}."
            + (
                f" The method gives {draws} draw; for @mean, ask for more with --draws K, if it draws samples."
                if "@" in column
                else ""
            )
        )
    info = columns[column]
    if higher is None and not info.ranked:
        raise UserError(
            f"--objective {column}: neither higher nor lower is better. Say min:{column} or max:{column} if one is here."
        )
    better = info.higher_is_better if higher is None else higher
    return Objective(
        ObjectiveInfo(column=column, metric=info.metric, signature=info.signature, higher_is_better=better, draws=draws),
        cap(info),
    )


# -- on whom -----------------------------------------------------------------------------------------------------
def open_validation(
    choices: Sequence[DatasetChoice], protocol: Protocol, registry: Registry, progress: Progress | None = None
) -> tuple[list[Task], list[str]]:
    """The validation subjects of the data sets under a protocol, and warnings. Test volumes are not read.

    Raises
    ------
    UserError : a data set without validation subjects (saying how to split it), or one person on two sides.
    """
    sides: dict[str, tuple[str, set[str]]] = {}  # subject -> (alias, its splits)
    warnings = []
    for choice in choices:
        found = _splits(choice)
        for subject, splits in found.items():
            if VALIDATION in splits and len(splits) > 1:
                raise UserError(
                    f"data set {choice.alias}: subject {subject!r} is {' and '.join(sorted(splits))}: splits are by subject."
                )
            alias, other = sides.setdefault(subject, (choice.alias, splits))
            if other != splits and VALIDATION in other | splits:
                warnings.append(
                    f"subject {subject!r} is {'/'.join(sorted(other))} in {alias} and {'/'.join(sorted(splits))} in {choice.alias}; "
                    "if they are one person, give them one split"
                )
        if found and not any(VALIDATION in splits for splits in found.values()):
            counts = ", ".join(f"{s}: {sum(s in splits for splits in found.values())}" for s in SPLITS)
            hint = ""
            if "split" in choice.card.options.model_fields:
                hint = f" Split it by a hash of the subject: --set {choice.alias}.split=hash, or give its manifest.csv a column 'split'."
            raise UserError(
                f"data set {choice.alias} has no validation subjects ({counts}), and options are tuned on no others. "
                f"Its rule: {choice.card.split_rule or 'not stated'}.{hint}"
            )
    rules = protocol.model_copy(update={"split": SplitSpec(part=VALIDATION)})
    return [open_task(choice, rules, registry, progress) for choice in choices], warnings


def _splits(choice: DatasetChoice) -> dict[str, set[str]]:
    dataset = choice.card.load()(choice.card.parse(absolute_options(choice), choice.alias))
    found: dict[str, set[str]] = {}
    for ref in dataset.refs():
        if isinstance(ref, VolumeRef):
            found.setdefault(ref.subject, set()).add(ref.split)
    return found


# -- trials ------------------------------------------------------------------------------------------------------
@dataclass
class _Measured:
    """What a trial left: per (data set, subject) the mean, the slices with a value, and its run folders."""

    means: list[float]
    items: int
    seconds: float | None
    runs: list[str]
    error: str = ""


@dataclass
class Search:
    """Trials of one entry on the chosen items of some tasks.

    runners : one per data set, all writing under one folder. fixed : options given by hand, equal in all trials.
    """

    entry: Entry
    runners: Sequence[Runner]
    objective: Objective
    fixed: Mapping[str, Any]

    def run(
        self,
        settings: Sequence[Mapping[str, Any]],
        started: Callable[[int], None] | None = None,
        done: Callable[[TrialRecord], None] | None = None,
    ) -> list[TrialRecord]:
        """Carry out the trials in order; trials that are stored with equal settings are read instead.

        A trial with a failed item, options that exclude each other, or no finite score is failed: it is recorded and cannot win.

        Parameters
        ----------
        started : gets the number of each trial. done : gets its record.
        """
        records = []
        for number, values in enumerate(settings):
            if started is not None:
                started(number)
            records.append(self._trial(number, values))
            if done is not None:
                done(records[-1])
        return comparable(records)

    def winner(self, records: Sequence[TrialRecord]) -> int | None:
        """The number of the best trial, the earlier one of equals; ``None`` if all failed."""
        best: TrialRecord | None = None
        for record in records:
            if record.score is not None and self.objective.better(record.score, best.score if best else None):
                best = record
        return best.trial if best else None

    def _trial(self, number: int, values: Mapping[str, Any]) -> TrialRecord:
        record = TrialRecord(trial=number, values=dict(values))
        try:
            options = parse_given(self.entry.card, {**self.fixed, **values}, self.entry.label)
        except UserError as error:
            record.status, record.error = "failed", str(error)
            return record
        record.options = options.model_dump(mode="json")
        measured = self._measure(replace(self.entry, options=options))
        record.runs, record.seconds_per_item, record.items = measured.runs, measured.seconds, measured.items
        score = float(np.mean(measured.means)) if measured.means else math.nan
        if not measured.error and not math.isfinite(score):
            measured.error = f"{self.objective.column} is {'infinite' if math.isinf(score) else 'not available for any slice'}"
        if measured.error:
            record.status, record.error = "failed", measured.error
        else:
            record.score = score
        return record

    def _measure(self, entry: Entry) -> _Measured:
        measured = _Measured([], 0, None, [])
        seconds: list[float] = []
        for runner in self.runners:
            folder = run_folder(runner.options.out, entry, runner.task, runner.conditions)
            folder.path.mkdir(parents=True, exist_ok=True)  # a sibling of other options is the rule here, not news
            report = runner.run([entry])[0]
            measured.runs.append(folder.path.relative_to(runner.options.out.parent).as_posix())
            if report.failed:
                item, reason = next(iter(report.failed.items()))
                measured.error = f"{len(report.failed)} of {len(report.requested)} items failed ({item}: {reason})"
                break  # it cannot win
            rows = load_run(folder.path).rows
            rows = rows[rows["item_id"].isin(set(report.requested))].sort_values("item_id")
            other = rows[rows["status"] != "ok"]
            if len(other):
                measured.error = f"{len(other)} of {len(rows)} items were {other['status'].iloc[0]} ({other['error'].iloc[0]})"
                break
            values = rows[self.objective.column].astype(float)
            if self.objective.cap is not None:
                values = values.clip(upper=self.objective.cap)
            measured.items += int(values.notna().sum())
            measured.means += _subject_means(values, rows["subject"])
            seconds += rows["seconds"].dropna().tolist()
        measured.seconds = float(np.mean(seconds)) if seconds else None
        return measured


def _subject_means(values: pd.Series, subjects: pd.Series) -> list[float]:
    return [float(m) for m in values.groupby(subjects.to_numpy()).mean() if not math.isnan(m)]


def comparable(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials whose score is over fewer slices than others' are failed: their means are of something else."""
    most = max((r.items for r in records if r.status == "ok"), default=0)
    return [
        r.model_copy(
            update={"status": "failed", "score": None, "error": f"a value on {r.items} slices only, others have {most}"}
        )
        if r.status == "ok" and r.items < most
        else r
        for r in records
    ]
