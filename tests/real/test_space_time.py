"""The method `volume` on brain MRI, and `video` on an echocardiogram and on volumes in time."""

import importlib.util
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from lamella.data.clips import VideoClips, VideoDataSettings
from lamella.data.mask_sets import MaskSetsSettings
from lamella.data.volume_crops import VolumeCrops
from lamella.data.volumes import PreparedVolumes, VolumeDataSettings
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.methods.space_time import SpaceTimeJepa, VideoSettings, VolumeSettings, space_time_jepa
from lamella.models.hub import from_pretrained, save_pretrained
from lamella.models.predictor import PredictorSettings
from lamella.models.volume_vit import FilmViTSettings, VolumeViTSettings

SMALL = {"dim": 96, "depth": 2, "heads": 4}
PREDICTOR = PredictorSettings(width=96, depth=1, heads=4)
STEPS = 40
# The shipped ones: on planes of 6 x 6 and 4 x 4 tokens the long-range blocks leave a strip or a corner.
MASKS = MaskSetsSettings()


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """A folder with the echocardiogram of the package `pydicom-data`: 120 frames, 30 a second, apical four chambers."""
    found = importlib.util.find_spec("data_store")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("the package pydicom-data is not installed")
    shutil.copy(Path(found.submodule_search_locations[0]) / "data" / "color3d_jpeg_baseline.dcm", tmp_path)
    return tmp_path


def beating(folder: Path) -> Path:
    """A 4-D NIfTI: 24 moments of a ball of tissue that swells and shrinks twice, 6 slices; the outer two are empty."""
    t, z, y, x = np.ogrid[:24, :6, :64, :64]
    radius = 14 + 5 * np.cos(4 * np.pi * t / 24)
    inside = (x - 32) ** 2 + (y - 32) ** 2 + (5 * (z - 2.5)) ** 2 < radius**2
    values = np.random.default_rng(0).normal(100, 10, inside.shape) + 300 * inside
    values[:, [0, 5]] = 0
    image = nibabel.Nifti1Image(values.transpose(3, 2, 1, 0).astype(np.float32), np.diag([1.5, 1.5, 8.0, 1.0]))
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((1.5, 1.5, 8.0, 40.0))
    nibabel.save(image, folder / "heart.nii.gz")
    return folder


def trained(method: SpaceTimeJepa, samples: VolumeCrops | VideoClips) -> tuple[float, float, float]:
    """Mean prediction loss on the held views before, after, and that of the mean predictor after."""
    held = samples.held(8)
    optimizer = torch.optim.AdamW([weight for weight in method.parameters() if weight.requires_grad], lr=1e-3)
    before = [method(batch)[1]["loss_prediction"] for batch in held]
    for step in range(STEPS):
        optimizer.zero_grad()
        method(samples.batch(step))[0].backward()
        optimizer.step()
        method.after_step(step / STEPS)
    logs = [method(batch)[1] for batch in held]
    return tuple(
        float(torch.stack(values).mean())
        for values in (
            before,
            [each["loss_prediction"] for each in logs],
            [each["loss_mean_predictor"] for each in logs],
        )
    )  # type: ignore[return-value]


def test_volume_pretraining_on_brain_mri(real_data, tmp_path):
    collection = open_collection(
        real_data / "volumes/brain_tumor_progression/manifest.csv", DatasetSettings(image="flair")
    )
    # Slices are 6.5 mm apart: patches of 2 x 16 x 16 voxels are 13 x 16 x 16 mm.
    data = VolumeDataSettings(spacing_mm=(6.5, 1, 1), crop=(16, 96, 96), batch_size=2, least_body=0.3)
    vit = VolumeViTSettings(patch=(2, 16, 16), **SMALL)
    crops = VolumeCrops([collection], data, MASKS, 0, vit.patch)
    torch.manual_seed(0)
    method = space_time_jepa(VolumeSettings(encoder=vit, predictor=PREDICTOR), crops.contract(vit.dim))
    before, after, _ = trained(method, crops)
    assert after < 0.85 * before
    save_pretrained(method.encoder(), tmp_path / "model", "a card")
    encoder, whole = from_pretrained(tmp_path / "model"), crops.held(4)[0]
    torch.testing.assert_close(encoder.pooled(whole["voxels"]), method.features(whole), atol=1e-5, rtol=1e-5)
    # The segmentation lies on the grid that the encoder is shown.
    volumes = PreparedVolumes(collection, data)
    for item in collection.items:
        values, mask = volumes.values(item)[0], volumes.mask(item)
        assert values.shape == mask.shape
        assert values[mask == 1].mean() > values[np.flip(mask, 2) == 1].mean()  # tumours are bright in FLAIR


def test_video_pretraining_on_an_echocardiogram(echo):
    collection = open_collection(echo)
    assert (collection.kind, len(collection)) == ("video", 1)
    data = VideoDataSettings(frames=8, frame_ms=100.0, size_px=64, batch_size=2)
    before, after, _ = trained(*film_method(collection, data))
    assert after < 0.85 * before


def test_video_pretraining_on_a_volume_in_time(tmp_path):
    collection = open_collection(beating(tmp_path))
    data = VideoDataSettings(frames=8, frame_stride=1, size_px=64, batch_size=2)
    method, clips = film_method(collection, data)
    assert len(clips._film(0)[0].slices) == 4
    clip = clips.held(1)[0]["voxels"][0, 0].float()
    assert (clip.mean((1, 2)).max() - clip.mean((1, 2)).min()) > 5  # it beats
    before, after, _ = trained(method, clips)
    assert after < 0.85 * before


def film_method(collection, data: VideoDataSettings) -> tuple[SpaceTimeJepa, VideoClips]:
    vit = FilmViTSettings(**SMALL)
    clips = VideoClips([collection], data, MASKS, 0, vit.patch)
    torch.manual_seed(0)
    return space_time_jepa(VideoSettings(encoder=vit, predictor=PREDICTOR), clips.contract(vit.dim)), clips
