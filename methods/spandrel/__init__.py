"""Any super-resolution network that the library spandrel recognises, from the user's own file."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

INSTALL = "pip install 'mrbench[spandrel]'"
# Architectures of spandrel 0.4 that enlarge images; others that it knows only clean or fill them.
ARCHITECTURES = (
    "ATD", "CRAFT", "Compact", "DAT", "DCTLSA", "DITN", "DRCT", "ESRGAN", "FDAT", "GRL", "HAT", "MMRealSR", "MoESR", "MoSR", "OmniSR",
    "PLKSR", "RCAN", "RGT", "RealCUGAN", "SAFMN", "SPAN", "SeemoRe", "SwiftSRGAN", "Swin2SR", "SwinIR",
)  # fmt: skip


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of the adapter, also where spandrel is not installed."""
    summary = "your own network (SwinIR, HAT, ESRGAN, RCAN, ...): spandrel@FILE"
    if importlib.util.find_spec("spandrel") is None:
        summary += f" (not usable: {INSTALL})"
    return [
        MethodCard(
            "spandrel",
            "mrbench_methods.spandrel.method:SpandrelMethod",
            summary,
            tier="author",
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs", "outside pretraining"),
            nfe=1,
            paper="https://github.com/chaiNNer-org/spandrel",
            licence="Apache-2.0 (this adapter), MIT (spandrel). The weights' own licences apply; mrbench never downloads any.",
            notes="Recognises the architecture from the keys of the file. Such networks were trained on photographs, and mostly for another "
            "degradation than the protocol's. Grey images are repeated to three channels and the outputs averaged; how far the "
            "channels differ is logged. Knows the LR image and its grid; enforces no data consistency.",
        )
    ]
