"""The real slides in the viewer: what is found, what is refused, and pixels of each."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from lamella.view.server.annotations.store import AnnotationStore
from lamella.view.server.app import make_app
from lamella.view.server.catalogue.discover import discover
from lamella.view.server.safety import Safety
from lamella.view.server.served import Served
from lamella.view.server.slide_pool import SlidePool
from lamella.view.server.tile_memory import TileMemory


def test_all_that_lies_in_the_folder_is_found_or_refused_with_its_reason(real_data, tmp_path):
    catalogue = discover([real_data / "slides"])
    refused = {slide.name: slide.refused for slide in catalogue.slides.values() if slide.refused}
    assert set(refused) == {"broken", "prostate-bogus-mpp"}
    assert "no reader takes it" in refused["broken"]
    assert "896" in refused["prostate-bogus-mpp"]
    shown = [slide for slide in catalogue.slides.values() if not slide.refused]
    assert {slide.facts["spacing"] for slide in shown} >= {"0.499 µm per px", "0.5015 µm per px"}
    served = Served(catalogue, SlidePool(catalogue.slides), TileMemory(), AnnotationStore(tmp_path / "drawn"))
    client = TestClient(make_app(served, Safety()), base_url="http://127.0.0.1")
    for slide in shown:  # a TIFF, an SVS, a DICOM series
        answer = client.get(f"/api/slides/{slide.id}/thumbnail.jpg")
        assert answer.status_code == 200, slide.name
        assert np.asarray(Image.open(io.BytesIO(answer.content))).std() > 10, slide.name
    served.close()


def test_everything_else_in_the_data_is_passed_over_with_a_word(real_data):
    catalogue = discover([real_data])
    assert {scan.kind for scan in catalogue.scans.values()} == {"volume"}
    assert [mask.name for mask in catalogue.scans["PGBM-001_t1_flair"].masks] == ["PGBM-001_t1_tumor.nii.gz"]
    assert any("glas/images" in sentence and "--mpp" in sentence for sentence in catalogue.said)
