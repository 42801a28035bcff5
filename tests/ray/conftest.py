"""One Ray for the fast tests, started on this machine without dashboard, and nothing of it where the tests run."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray with two CPUs in this process: the engine joins it instead of starting its own."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mrbench[ray]'")
    from mrbench.engine.ray_cluster import import_ray

    folder = tempfile.mkdtemp(prefix="mrbench-ray-", dir="/tmp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own start-up
        ray = import_ray()
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=100 << 20,
            _temp_dir=folder,
        )
    before = set(os.listdir())
    yield
    assert set(os.listdir()) == before  # Ray keeps to its own folder
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
