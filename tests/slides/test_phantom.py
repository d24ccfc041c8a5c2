import csv

import numpy as np
import openslide
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from lamella.geometry import Box
from lamella.slides.phantom import (
    CLASSES,
    LABEL_STEP_PX0,
    SCANNERS,
    Scanner,
    Tissue,
    draw_tissue,
    scan,
    write_phantoms,
)
from lamella.slides.slide import open_slide

SIDE_PX = 1024


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return draw_tissue(3, SIDE_PX)


def test_the_same_seed_draws_the_same_tissue_and_another_seed_another(tissue: Tissue) -> None:
    again = draw_tissue(3, SIDE_PX)
    np.testing.assert_array_equal(again.density, tissue.density)
    np.testing.assert_array_equal(again.labels, tissue.labels)
    np.testing.assert_array_equal(scan(tissue, SCANNERS[0], 5), scan(again, SCANNERS[0], 5))
    assert (draw_tissue(4, SIDE_PX).labels != tissue.labels).mean() > 0.2


def test_slides_of_earlier_versions_are_drawn_as_they_were() -> None:
    shares = np.bincount(draw_tissue(3, 1024).labels.ravel(), minlength=5) / 1024**2
    np.testing.assert_allclose(shares, [0.376432, 0.140306, 0.196951, 0.158730, 0.127581], atol=1e-4)


def test_only_the_classes_that_are_asked_for_are_drawn_and_twice_named_is_twice_as_large() -> None:
    some = [np.bincount(draw_tissue(seed, 512, [2, 2, 3]).labels.ravel(), minlength=5) for seed in range(4)]
    counts = np.sum(some, axis=0)
    assert (counts[[1, 4]] == 0).all()
    assert 1.3 < counts[2] / counts[3] < 3
    with pytest.raises(ValueError, match="not \\[5\\]"):
        draw_tissue(0, 512, [5])
    with pytest.raises(ValueError, match="not \\[\\]"):
        draw_tissue(0, 512, [])


def test_all_classes_lie_on_glass(tissue: Tissue) -> None:
    shares = np.bincount(tissue.labels.ravel(), minlength=5) / tissue.labels.size
    assert shares[0] > 0.15
    assert (shares[1:] > 0.05).all(), shares
    assert (tissue.density[tissue.labels == 0] == 0).all()


def test_densities_have_one_distribution_in_all_classes_at_both_scales(tissue: Tissue) -> None:
    shares = np.linspace(0.02, 0.98, 49)
    half = tissue.density.reshape(SIDE_PX // 2, 2, SIDE_PX // 2, 2).mean(axis=(1, 3))
    for density, labels, tolerance in ((tissue.density, tissue.labels, 0.01), (half, tissue.labels[::2, ::2], 0.05)):
        quantiles = np.stack([np.quantile(density[labels == label], shares) for label in CLASSES])
        assert np.ptp(quantiles, axis=0).max() < tolerance


def test_classes_have_the_same_colours_and_scanners_do_not(tissue: Tissue) -> None:
    # The stain's thickness varies over the slide, whatever the class: compare tissue stained evenly.
    even = [_stained_evenly(tissue, scanner) for scanner in SCANNERS]
    means = np.array([[view[tissue.labels == label].mean(axis=0) for label in CLASSES] for view in even])
    spreads = np.array([[view[tissue.labels == label].std(axis=0) for label in CLASSES] for view in even])
    between_scanners = np.abs(means[0].mean(axis=0) - means[1].mean(axis=0)).max()
    assert np.ptp(means, axis=1).max() < 0.5
    assert np.ptp(spreads, axis=1).max() < 0.5
    assert between_scanners > 8


def _stained_evenly(tissue: Tissue, scanner: Scanner) -> np.ndarray:
    """(H, W, 3) float: each density in its mean colour over the slide."""
    pixels = scan(tissue, scanner, 3).astype(float)
    steps = (tissue.density * 255).astype(int)
    counts = np.bincount(steps.ravel(), minlength=256)
    sums = np.stack([np.bincount(steps.ravel(), pixels[..., channel].ravel(), 256) for channel in range(3)], axis=-1)
    return (sums / np.maximum(counts, 1)[:, None])[steps]


def test_scanners_see_the_same_form(tissue: Tissue) -> None:
    first, second = (scan(tissue, scanner, 3).mean(axis=2) for scanner in SCANNERS)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.99


def test_form_tells_the_classes_apart_on_another_scanner_and_mean_colour_does_not() -> None:
    views = [_tiles(seed, SCANNERS[seed % 2]) for seed in range(4)]
    texture, colour, labels = (
        [np.concatenate([view[part] for view in views[start::2]]) for start in (0, 1)] for part in range(3)
    )
    # Trained on the tiles of one scanner, asked about those of the other.
    assert _accuracy(texture[0], labels[0], texture[1], labels[1]) > 0.75
    assert _accuracy(colour[0], labels[0], colour[1], labels[1]) < 0.5


def _tiles(seed: int, scanner: Scanner) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture (band energies), mean colour and class of the 64 um tiles that hold one class."""
    tissue = draw_tissue(seed, 1536)
    pixels = scan(tissue, scanner, seed).astype(np.float32)
    texture, colour, labels = [], [], []
    for y in range(0, 1536, 128):
        for x in range(0, 1536, 128):
            values, counts = np.unique(tissue.labels[y : y + 128, x : x + 128], return_counts=True)
            label = values[counts.argmax()]
            if label == 0 or counts.max() < 0.9 * 128**2:
                continue
            tile = pixels[y : y + 128, x : x + 128]
            spectrum = np.abs(np.fft.rfft2(tile.mean(axis=2) / tile.mean())) ** 2
            fy, fx = np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None, :]
            band = np.digitize(np.hypot(fy, fx), [0.02, 0.04, 0.06, 0.09, 0.13, 0.2, 0.3])
            energy = np.log([spectrum[band == number].mean() for number in range(1, 8)])
            texture.append(energy - energy.mean())
            colour.append(tile.mean(axis=(0, 1)))
            labels.append(label)
    return np.array(texture), np.array(colour), np.array(labels)


def _accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    centre, spread = train.mean(axis=0), train.std(axis=0)
    probe = LogisticRegression(max_iter=1000).fit((train - centre) / spread, train_labels)
    hits = probe.predict((test - centre) / spread) == test_labels
    return float(np.mean([hits[test_labels == label].mean() for label in np.unique(test_labels)]))


def test_a_study_is_written_with_masks_that_lie_over_their_slides(tmp_path) -> None:
    manifest = write_phantoms(tmp_path, slides=4, size_px=512, seed=1, test_slides=2)
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    assert [row["site"] for row in rows] == ["aster", "briar", "aster", "briar"]
    assert [row["split"] for row in rows] == ["train", "train", "test", "test"]
    assert len({row["patient"] for row in rows}) == 4
    for number, row in enumerate(rows):
        tissue = draw_tissue(1000 + number, 512)
        labels = np.asarray(Image.open(tmp_path / row["label_mask_path"]))
        mask = np.asarray(Image.open(tmp_path / row["mask_path"]))
        assert labels.shape == mask.shape == (512 // LABEL_STEP_PX0,) * 2
        np.testing.assert_array_equal(mask > 0, labels > 0)
        enlarged = labels.repeat(LABEL_STEP_PX0, 0).repeat(LABEL_STEP_PX0, 1)
        assert (enlarged == tissue.labels).mean() > 0.97  # all but the steps along the borders


def test_a_written_slide_reads_back_through_openslide_and_states_its_spacing(tmp_path) -> None:
    write_phantoms(tmp_path, slides=2, size_px=512, seed=1, test_slides=0)
    path = tmp_path / "slides" / "phantom_00_aster.tif"
    drawn = scan(draw_tissue(1000, 512), SCANNERS[0], 1000).astype(int)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.5, rel=1e-4)
        assert [level.width_px for level in slide.levels] == [512, 256, 128]
        ours = slide.read(Box(0, 0, 512, 512), 0.5).pixels
    with openslide.OpenSlide(path) as theirs:
        np.testing.assert_array_equal(np.asarray(theirs.read_region((0, 0), 0, (512, 512)))[..., :3], ours)
    assert np.abs(ours - drawn).mean() < 4  # JPEG


def test_slides_that_stand_are_left_alone(tmp_path) -> None:
    write_phantoms(tmp_path, slides=2, size_px=256, test_slides=0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    write_phantoms(tmp_path, slides=2, size_px=256, test_slides=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before
