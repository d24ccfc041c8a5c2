"""Index and anchors of real slides."""

import pytest

from lamella.cli import main
from lamella.formats.tables import read_csv
from lamella.slides.anchors.catalogue import Catalogue
from lamella.slides.index import SlideIndex
from lamella.slides.slide import open_slide
from lamella.slides.tissue import TissueSettings, find_tissue


def test_real_slides_from_files_to_anchors(real_data, tmp_path):
    names = ("TCGA-AA-3562-region.tif", "CMU-1-Small-Region.svs", "broken.svs", "prostate-bogus-mpp.tiff")
    slides = [str(real_data / "slides" / name) for name in names]
    assert main(["index", *slides, "-o", str(tmp_path / "index")]) == 1
    failed = {row["slide_id"]: row["error"] for row in read_csv(tmp_path / "index" / "failed.csv")}
    assert set(failed) == {"broken", "prostate-bogus-mpp"}
    assert "896" in failed["prostate-bogus-mpp"]
    index = SlideIndex.load(tmp_path / "index")
    # By eye: the colon section fills nine tenths of its image, the skin about a third of its own.
    assert index["TCGA-AA-3562-region"].tissue_fraction == pytest.approx(0.9, abs=0.04)
    assert index["CMU-1-Small-Region"].tissue_fraction == pytest.approx(0.36, abs=0.06)
    assert main(["anchors", str(tmp_path / "index"), "-o", str(tmp_path / "anchors"), "qc=false"]) == 0
    catalogue = Catalogue.load(tmp_path / "anchors")
    counts = {slide_id: rows for slide_id, _, rows in catalogue.shards}
    assert counts["TCGA-AA-3562-region"] > 300
    assert counts["CMU-1-Small-Region"] > 10


def test_the_dicom_slide_has_the_tissue_of_the_svs_it_was_made_from(real_data):
    fractions = []
    for path in (real_data / "slides" / "CMU-1-Small-Region.svs", real_data / "slides" / "dicom"):
        with open_slide(path) as slide:
            fractions.append(find_tissue(slide, TissueSettings()).mean())
    assert fractions[0] == pytest.approx(fractions[1], abs=0.01)


def test_blue_ink_on_a_real_thumbnail_is_no_tissue(real_data):
    with open_slide(real_data / "slides" / "thumbnail-with-ink.jpeg", mpp=8.0) as slide:
        mask = find_tissue(slide, TissueSettings())
        height, width = mask.shape
        # The pen mark: a blue half-disc at the lower edge, about 68-71 % of the way to the right.
        ink = mask[round(0.84 * height) : round(0.93 * height), round(0.675 * width) : round(0.70 * width)]
        assert ink.mean() < 0.05
        assert mask[round(0.40 * height) : round(0.54 * height), round(0.40 * width) : round(0.44 * width)].mean() > 0.9
