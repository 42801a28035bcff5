"""What the ratings of a study say: means, intervals, agreement, paired tests.

A mean is over *blocks*: an image and a reader who rated all of its methods, so that all methods have the same readers and images.
Intervals resample subjects (or images) with all their ratings, not ratings. Tests compare methods on the means over readers of
each image, averaged per subject unless images are to count (``mrbench.stats.presets``). Readers count as these readers: nothing
is claimed about others.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.text import count, listing
from mrbench.stats.agreement import agreement_within
from mrbench.stats.agreement_intervals import Agreed, Clusters, alpha_interval, icc_interval, kappa_interval
from mrbench.stats.bootstrap import bca, cluster_bootstrap, percentile
from mrbench.stats.presets import FEW, LEAST, Plan, analyse
from mrbench.stats.results import Interval, MetricResult
from mrbench.stats.table import Measure, make_block
from mrbench.study.readings import Readings
from mrbench.study.results import (
    Agreement,
    CriterionResult,
    Mark,
    PairAgreement,
    Score,
    SelfAgreement,
    StudyResult,
    Unit,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANNER = "demonstration weights: these ratings say nothing about the methods that the weights stand in for"
DIGITS = 2  # of printed means


def analyse_study(readings: Readings, plan: Plan, unit: Unit = "subjects") -> StudyResult:
    """Everything about a study's ratings.

    Raises
    ------
    UserError : the control is no method of the study.
    """
    key, study = readings.key, readings.study
    if plan.control and plan.control not in readings.methods:
        hint = did_you_mean(plan.control, readings.methods)
        raise UserError(f"--control {plan.control}: no such method.{hint} Methods: {', '.join(readings.methods)}.")
    codes = readings.subject if unit == "subjects" else np.arange(len(readings.items), dtype=np.intp)
    clusters = Clusters(
        codes,
        len(readings.subjects) if unit == "subjects" else len(readings.items),
        unit,
        1 - plan.alpha,
        plan.resamples,
        plan.seed,
    )
    found = tuple(_criterion(readings, c, plan, clusters) for c in range(len(study.criteria)))
    found, shared = _apart(found)
    demo = any(m.tier == "demo" for m in key.methods)
    return StudyResult(
        title=study.title,
        study=study.id,
        dataset=key.dataset,
        dataset_version=key.dataset_version,
        protocol=key.protocol,
        protocol_hash=key.protocol_hash,
        mode=study.mode,
        scale=study.scale,
        anchors=study.anchors,
        readers=readings.readers,
        missing=tuple(
            f"{r.name} has not finished: {r.rated} of {r.expected} ratings" for r in readings.readers if not r.complete
        ),
        subjects=len(readings.subjects),
        images=len(readings.items),
        repeats=len(readings.repeated),
        unit=unit,
        clusters=clusters.count,
        level=clusters.level,
        resamples=plan.resamples,
        seed=plan.seed,
        criteria=tuple(_marked(c) for c in found) if not demo else found,
        notes=(*_notes(readings, plan, clusters, found), *shared),
        warnings=readings.warnings,
        banner=BANNER if demo else "",
    )


def _criterion(readings: Readings, c: int, plan: Plan, clusters: Clusters) -> CriterionResult:
    values = readings.values[..., c]  # [readers, items, methods]
    rated = ~np.isnan(values)
    complete: NDArray[np.bool_] = np.asarray(rated.all(2))
    blocks = complete.sum(0)  # per item
    test = _test(readings, c, plan, clusters, complete)
    return CriterionResult(
        criterion=readings.study.criteria[c],
        scores=tuple(_scores(readings, values, complete, clusters, test)),
        blocks=int(blocks.sum()),
        incomplete=int((rated.any(2) & ~complete).sum()),
        images=int((blocks > 0).sum()),
        of=len(readings.items),
        test=test,
        agreement=_agreement(readings, values, clusters),
        within=tuple(_within(readings, c, clusters)),
    )


# -- means -------------------------------------------------------------------------------------------------------------
def _scores(
    readings: Readings, values: NDArray[np.float64], complete: NDArray[np.bool_], clusters: Clusters, test: MetricResult
) -> list[Score]:
    """Per method, in the order of the study."""
    kept = np.where(complete[:, :, None], values, np.nan)
    flat = values[complete]  # [blocks, methods]
    low, high = readings.study.scale
    letters = {s.method: s.letters for s in test.standings}
    intervals = _intervals(values, complete, clusters)
    found = []
    for m, record in enumerate(readings.key.methods):
        ratings = flat[:, m]
        n = ratings.size
        by_reader = [kept[r, :, m][complete[r]] for r in range(len(values))]
        percentiles, corrected = intervals[m]
        found.append(
            Score(
                method=record.label,
                control=record.control,
                mean=float(ratings.mean()) if n else math.nan,
                sd=float(ratings.std(ddof=1)) if n > 1 else math.nan,
                n=n,
                counts=tuple(int((ratings == value).sum()) for value in range(low, high + 1)),
                by_reader=tuple(float(x.mean()) if x.size else math.nan for x in by_reader),
                percentile=percentiles,
                bca=corrected,
                letters=letters.get(record.label, ""),
            )
        )
    return found


def _intervals(
    values: NDArray[np.float64], complete: NDArray[np.bool_], clusters: Clusters
) -> list[tuple[Interval | None, Interval | None]]:
    """Percentile and BCa intervals of the means over blocks, whole clusters resampled; none with fewer than three."""
    methods = values.shape[2]
    sums = np.zeros((clusters.count, methods))
    sizes = np.zeros(clusters.count)
    np.add.at(sums, clusters.codes, np.where(complete[:, :, None], values, 0.0).sum(0))
    np.add.at(sizes, clusters.codes, complete.sum(0))
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    if sizes.size < LEAST:
        return [(None, None)] * methods
    boot = cluster_bootstrap(sums, sizes, clusters.resamples, clusters.seed)
    found: list[tuple[Interval | None, Interval | None]] = []
    for m in range(methods):
        drawn = np.round(boot.replicates[:, m], 12)
        estimate, left = float(np.round(boot.estimate[m], 12)), np.round(boot.jackknife[:, m], 12)
        pair = percentile(drawn, clusters.level), bca(drawn, estimate, left, clusters.level).interval
        found.append((replace(pair[0], unit=clusters.unit), replace(pair[1], unit=clusters.unit)))
    return found


def _marked(found: CriterionResult) -> CriterionResult:
    """Best and second among the methods that are no controls, by unrounded means; ties share the mark."""
    ranked = sorted({round(s.mean, 9) for s in found.scores if not s.control and not math.isnan(s.mean)}, reverse=True)
    if len([s for s in found.scores if not s.control]) < 2:
        return found
    marks: dict[float, Mark] = {mean: mark for mean, mark in zip(ranked, ("best", "second"), strict=False)}  # type: ignore[misc]
    scores = tuple(s if s.control else replace(s, mark=marks.get(round(s.mean, 9), "")) for s in found.scores)
    return replace(found, scores=scores)


# -- tests -------------------------------------------------------------------------------------------------------------
def _test(readings: Readings, c: int, plan: Plan, clusters: Clusters, complete: NDArray[np.bool_]) -> MetricResult:
    """Paired tests on means over readers, per image or subject. Controls take part only where one of them is asked for."""
    values = readings.values[..., c]
    name = readings.study.criteria[c]
    measure = Measure(name, name, True, digits=DIGITS)
    blocks = complete.sum(0)
    seen = np.flatnonzero(blocks)
    means = np.where(complete[:, :, None], values, 0.0).sum(0)[seen] / blocks[seen, None]
    scores = {m.label: means[:, i] for i, m in enumerate(readings.key.methods) if not m.control or m.label == plan.control}
    if clusters.unit == "subjects":
        names, codes = readings.subjects, readings.subject[seen]
    else:
        names, codes = readings.items, seen.astype(np.intp)
    found = analyse(make_block(measure, scores, names, codes, [readings.items[i] for i in seen]), plan)
    return found if clusters.unit == "subjects" else _of_images(found, len(set(readings.subject[seen].tolist())))


def _of_images(found: MetricResult, subjects: int) -> MetricResult:
    """The same result, saying that images were counted. (Its notes and reason hold no names here: the block is complete.)"""

    def words(text: str) -> str:
        return text.replace("subjects", "images").replace("subject", "image")

    pairs = [replace(p, interval=replace(p.interval, unit="images") if p.interval else None) for p in found.pairs]
    provenance = replace(
        found.provenance, unit="images", n_subjects=subjects, assumption="images are independent, also those of one subject"
    )
    return replace(
        found,
        provenance=provenance,
        pairs=tuple(pairs),
        notes=tuple(words(n) for n in found.notes),
        reason=words(found.reason),
    )


# -- agreement ---------------------------------------------------------------------------------------------------------
def _agreement(readings: Readings, values: NDArray[np.float64], clusters: Clusters) -> Agreement:
    """Between readers, over all images of all methods."""
    flat = values.reshape(len(values), -1)
    spread = replace(clusters, codes=np.repeat(clusters.codes, values.shape[2]))
    pairs = []
    for a, b in itertools.combinations(range(len(values)), 2):
        both = ~(np.isnan(flat[a]) | np.isnan(flat[b]))
        first, second = flat[a, both].astype(int), flat[b, both].astype(int)
        pairs.append(
            PairAgreement(
                first=readings.readers[a].name,
                second=readings.readers[b].name,
                n=int(both.sum()),
                exact=agreement_within(first, second) if both.any() else math.nan,
                within_one=agreement_within(first, second, 1) if both.any() else math.nan,
                linear=kappa_interval(flat[a], flat[b], spread, "linear"),
                quadratic=kappa_interval(flat[a], flat[b], spread, "quadratic"),
            )
        )
    if not pairs:
        none = Agreed(math.nan, None, 0)
        return Agreement((), none, none, none)
    return Agreement(
        tuple(pairs),
        icc_interval(flat, spread, "ICC(2,1)"),
        icc_interval(flat, spread, "ICC(2,k)"),
        alpha_interval(flat, spread),
    )


def _within(readings: Readings, c: int, clusters: Clusters) -> list[SelfAgreement]:
    """Of each reader, over the images that came twice."""
    if not readings.repeated:
        return []
    spread = replace(clusters, codes=clusters.codes[[readings.items.index(item) for item, _ in readings.repeated]])
    found = []
    for r, reader in enumerate(readings.readers):
        first, second = readings.repeats[r, :, 0, c], readings.repeats[r, :, 1, c]
        both = ~(np.isnan(first) | np.isnan(second))
        a, b = first[both].astype(int), second[both].astype(int)
        some = bool(both.any())
        found.append(
            SelfAgreement(
                reader=reader.name,
                n=int(both.sum()),
                exact=agreement_within(a, b) if some else math.nan,
                within_one=agreement_within(a, b, 1) if some else math.nan,
                difference=float(np.abs(a - b).mean()) if some else math.nan,
                quadratic=kappa_interval(first, second, spread, "quadratic"),
            )
        )
    return found


# -- notes -------------------------------------------------------------------------------------------------------------
def _notes(readings: Readings, plan: Plan, clusters: Clusters, found: tuple[CriterionResult, ...]) -> list[str]:
    notes = []
    if readings.left_out:
        notes.append(f"readers who take no part: {listing(list(readings.left_out), 20)}")
    partly, nobody = (
        _grouped([(c.criterion, n) for c, n in zip(found, numbers, strict=True) if n], len(found))
        for numbers in ([c.incomplete for c in found], [c.of - c.images for c in found])
    )
    for names, n in partly:
        notes.append(
            f"{names}{count(n, 'time')} a reader rated some methods of an image and not all; these ratings do not count in means "
            "and tests (they do in the agreement)"
        )
    for names, n in nobody:
        notes.append(f"{names}{n} of {count(len(readings.items), 'image')} were rated in full by nobody")
    controls = [m.label for m in readings.key.methods if m.control and m.label != plan.control]
    if controls:
        notes.append(f"controls are not ranked and not tested: {listing(controls)}")
    if len(readings.readers) == 1:
        notes.append("one reader: there is no agreement between readers to measure")
    if clusters.count < LEAST:
        how = (
            "; --unit images takes images as independent"
            if clusters.unit == "subjects" and len(readings.items) >= LEAST
            else ""
        )
        notes.append(
            f"{count(clusters.count, clusters.unit[:-1])}: no intervals and no tests (at least {LEAST} are needed){how}"
        )
    elif clusters.count < FEW and all(c.test.reason for c in found):
        notes.append(f"with {clusters.count} {clusters.unit}, bootstrap intervals are known to be too short")
    if clusters.unit == "images" and len(readings.subjects) < len(readings.items):
        notes.append(
            f"--unit images takes the {len(readings.items)} images of {count(len(readings.subjects), 'subject')} as independent: "
            "where images of one subject are alike, intervals are too short and tests reject too often"
        )
    tested = sum(not c.test.reason for c in found)
    if tested > 1:
        notes.append(f"{tested} criteria were tested, each with a correction of its own")
    notes.append("the readers are taken as these readers: intervals and tests say nothing about others")
    return notes


def _grouped(numbers: list[tuple[str, int]], of: int) -> list[tuple[str, int]]:
    """Numbers of criteria as (``"a, b: "``, number), criteria with one number together; no names where all share it."""
    same: dict[int, list[str]] = {}
    for criterion, n in numbers:
        same.setdefault(n, []).append(criterion)
    return [("" if len(names) == of else f"{', '.join(names)}: ", n) for n, names in same.items()]


def _apart(found: tuple[CriterionResult, ...]) -> tuple[tuple[CriterionResult, ...], tuple[str, ...]]:
    """Notes of the tests that all criteria share, told once, and the criteria without them."""
    if len(found) < 2:
        return found, ()
    shared = tuple(n for n in found[0].test.notes if all(n in c.test.notes for c in found))
    kept = (replace(c.test, notes=tuple(n for n in c.test.notes if n not in shared)) for c in found)
    return tuple(replace(c, test=test) for c, test in zip(found, kept, strict=True)), shared
