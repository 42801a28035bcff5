"""Checkpoints: where weights come from, and the checks that they are what their record says.

Importing this package loads neither torch nor huggingface-hub.
"""

from mrbench.hub.checkpoint import LocalCheckpoint, read_folder
from mrbench.hub.client import Hub
from mrbench.hub.finding import Found, find, mismatches, takes_weights
from mrbench.hub.listing import Listed, listing
from mrbench.hub.places import HubReference, Source, source_of
from mrbench.hub.probing import Probe, ProbeCheck, ScoreCheck, check_probe, probe_of
from mrbench.hub.pushing import Pushed, PushPlan, plan_push, push
from mrbench.hub.registered import RegisteredFiles
from mrbench.hub.resolving import resolve

__all__ = [
    "Found", "Hub", "HubReference", "Listed", "LocalCheckpoint", "Probe", "ProbeCheck", "PushPlan", "Pushed",
    "RegisteredFiles", "ScoreCheck", "Source", "check_probe", "find", "listing", "mismatches", "plan_push", "probe_of", "push",
    "read_folder", "resolve", "source_of", "takes_weights",
]  # fmt: skip
