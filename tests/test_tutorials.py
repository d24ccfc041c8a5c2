"""The tutorials run as they stand, and leave behind what they promise."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
LEFT_BEHIND = {
    "images_2d": [
        "tutorial_images/previews/preview_s000.png",
        "tutorial_images/run/model/README.md",
        "tutorial_images/results/results.md",
        "tutorial_images/pictures/index.html",
        "tutorial_images/pictures/overview.png",
        "tutorial_images/pictures/random_overview.png",
        "tutorial_images/result_pictures/scatter_features.png",
        "tutorial_images/result_pictures/nshot_auc.png",
    ],
    "volumes_3d": [
        "tutorial_volumes/previews/preview_s000.png",
        "tutorial_volumes/run/model/README.md",
        "tutorial_volumes/results/results.md",
        "tutorial_volumes/pictures/overview_00.png",
    ],
    "slides": [
        "tutorial_slides/features",
        "tutorial_slides/pictures/overview.png",
        "tutorial_slides/results/results.md",
    ],
}


def test_every_tutorial_is_tried() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.py")} == set(LEFT_BEHIND)


# The shortest of the three stays in the default run.
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name != "slides")) for name in sorted(LEFT_BEHIND)]


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_as_it_stands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(TUTORIALS / f"{name}.py"))
    assert [path for path in LEFT_BEHIND[name] if not (tmp_path / path).exists()] == []
