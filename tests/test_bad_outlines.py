"""Outlines that cross themselves, through the command line: refused with the feature's number and the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import SlideMaker

from lamella.cli import main

BOW_TIE = [[100, 100], [700, 700], [700, 100], [100, 700], [100, 100]]
SQUARE = [[100, 100], [700, 100], [700, 700], [100, 700], [100, 100]]


def outlines(path: Path, *rings: list[list[int]]) -> Path:
    features = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}} for ring in rings]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize(("rings", "code"), [((SQUARE, BOW_TIE), 2), ((SQUARE, SQUARE), 0)])
def test_a_tissue_mask_is_not_made_of_an_outline_that_crosses_itself(
    tmp_path: Path, make_slide: SlideMaker, capsys: pytest.CaptureFixture[str], rings: tuple[list[list[int]]], code: int
) -> None:
    slide, mask = make_slide(), outlines(tmp_path / "tissue.geojson", *rings)
    manifest = tmp_path / "slides.csv"
    manifest.write_text(f"slide_id,wsi_path,mask_path\na,{slide},{mask}\n")
    assert main(["index", str(manifest), "-o", str(tmp_path / "index")]) == code
    if code:
        told = capsys.readouterr().err + (tmp_path / "index" / "failed.csv").read_text()
        assert "feature 2: its outline crosses itself near x 400.0, y 400.0" in told
