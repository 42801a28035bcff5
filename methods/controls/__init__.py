"""Controls: entries that see the ground truth. They are never ranked; they show what the metrics reward."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """The ground truth, the pseudo-inverse, and the impostor."""
    return [
        MethodCard(
            "gt",
            "mrbench_methods.controls.method:GroundTruth",
            "control: the ground truth itself; every metric must be perfect",
            needs_operator=False,
            control=True,
            licence="Apache-2.0",
            notes="Anything short of a perfect score is a property of the metric or of the pipeline, not of a method.",
        ),
        MethodCard(
            "pinv",
            "mrbench_methods.controls.method:PseudoInverse",
            "control: A+ y, the smallest image that explains the measurement",
            control=True,
            paper="Penrose, A generalized inverse for matrices, Proc. Cambridge Philos. Soc. 51, 1955",
            licence="Apache-2.0",
            notes="Exactly consistent with a noise-free measurement, with nothing added: the null space of H is left empty.",
        ),
        MethodCard(
            "impostor",
            "mrbench_methods.controls.method:Impostor",
            "control: another subject's slice, made consistent with the measurement",
            control=True,
            licence="Apache-2.0",
            notes="x = z + A+(y - A z) with z a slice of another subject: sharp, consistent, wrong anatomy. "
            "A metric that likes it does not measure anatomy. Needs a data set with two subjects or more and a linear "
            "degradation.",
        ),
    ]
