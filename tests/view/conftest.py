"""A tiny study, indexed, with anchors: what every picture is drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamella.config import Request
from lamella.slides.phantom import write_phantoms
from lamella.verbs import anchors, index

SAMPLING = (
    "sampling.profile_id=tiny",
    "sampling.context_fov_um=64",
    "sampling.target_fov_um=16",
    "sampling.patch_px=8",
    "sampling.target_margin_um=0",
    "sampling.min_tissue_fraction=0.5",
)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with phantom/, index/ and anchors/ of two slides of 512 px."""
    folder = tmp_path_factory.mktemp("study")
    manifest = write_phantoms(folder / "phantom", slides=2, size_px=512, test_slides=0)
    assert index.run(Request("index", (manifest,), folder / "index")) == 0
    request = Request("anchors", (folder / "index",), folder / "anchors", overrides=(*SAMPLING, "qc=false"))
    assert anchors.run(request) == 0
    return folder
