"""Records of the demonstration weights that ship with the methods (no torch here); `methods/demo_weights.sh` trains them."""

from __future__ import annotations

from collections.abc import Mapping

from mrbench.cards import Checkpoint

TRAINED_ON = (
    "brain_t1_ixi_2mm, brain_t1_fnndsc, prostate_t2, brain_t2_fnndsc_adi, brain_t1_studyforrest, brain_multicontrast_tcga"
)
THREE_STAGES = "photographs, then brain_t1_ixi_2mm, then brain_t1_fnndsc and brain_t1_studyforrest"
LICENCE = "CC BY-SA 3.0 (as the IXI data)"
DEGRADATION = "bicubic_aa"


def shipped(
    method: str, name: str, sha256: str, probe: Mapping[str, float], scale: int, trained_on: str = TRAINED_ON
) -> Checkpoint:
    """The record of ``methods/METHOD/weights/NAME/model.safetensors``, trained for one scale.

    probe : mean scores on the data set ``sample`` under ``uniform-xS``, one draw.
    """
    return Checkpoint(
        name=name,
        file=f"mrbench_methods.{method}:weights/{name}/model.safetensors",
        sha256=sha256,
        tier="demo",
        scale=scale,
        degradation=DEGRADATION,
        trained_on=trained_on,
        licence=LICENCE,
        probe_scores=probe,
    )


def shipped_prior(owner: str, name: str, sha256: str) -> Checkpoint:
    """The record of a prior, which several methods may name; it belongs to no scale and no degradation."""
    return Checkpoint(
        name=name,
        file=f"mrbench_methods.{owner}:weights/{name}/model.safetensors",
        sha256=sha256,
        tier="demo",
        kind="prior",
        trained_on=TRAINED_ON,
        licence=LICENCE,
    )


PRIORS = (
    shipped_prior("diffpir", "prior", "77f026f8ae4a8420b77740cb839097a1b8b06e941c9260c26250675ab79d4c2b"),
)  # of DPS, DiffPIR and multi-grid PnP
