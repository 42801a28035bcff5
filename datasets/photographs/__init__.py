"""Twelve photographs that come with scikit-image and scikit-learn: a small source of natural images, offline."""

from collections.abc import Sequence

from mrbench import DatasetCard, hookimpl

_CARD = DatasetCard(
    name="photographs",
    implementation="mrbench_datasets.photographs.dataset:PhotographsDataset",
    summary="12 photographs from the scikit-image and scikit-learn packages, grey: natural images to train on",
    version="1",
    home="https://scikit-image.org and https://scikit-learn.org (files inside the installed packages)",
    licence="public domain or CC0 (9 pictures), no known copyright restrictions (coins), CC BY 2.0 (china by Daniel Buechele, "
    "flower by vultilion); a table in the data set's README names each",
    citation="S. van der Walt, J. L. Schoenberger, J. Nunez-Iglesias, F. Boulogne, J. D. Warner, N. Yager, E. Gouillart, T. Yu. "
    "scikit-image: image processing in Python. PeerJ 2:e453, 2014. F. Pedregosa et al. Scikit-learn: machine learning in Python. "
    "JMLR 12:2825-2830, 2011.",
    access="none needed: the files are in the packages; two of them need pip install scikit-learn",
    redistribution="figures",
    group_key="the picture: each is a subject of its own",
    split_rule="all train",
    steps=("Nothing to fetch. For the two pictures of scikit-learn: pip install scikit-learn",),
    expected="12 pictures, each a subject; 10 without scikit-learn",
    notes="To train on, not to compare on: nothing in it is MRI. Every pixel is foreground. The bytes of each file are pinned: a "
    "package that brings another file under the name is noticed, and that picture is left out.",
)


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The card of the data set ``photographs``."""
    return [_CARD]
