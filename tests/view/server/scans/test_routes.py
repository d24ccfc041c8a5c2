"""Volumes and films over HTTP: the right voxels in the right places, windows, masks, and what is refused."""

from __future__ import annotations

import io

import nibabel
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tests.imaging.dicoms import ct_slice

from lamella.view.server.annotations.store import AnnotationStore
from lamella.view.server.app import make_app
from lamella.view.server.catalogue.items import Catalogue, ScanItem
from lamella.view.server.safety import Safety
from lamella.view.server.scans.scan_pool import ScanPool
from lamella.view.server.served import Served
from lamella.view.server.slide_pool import SlidePool
from lamella.view.server.tile_memory import TileMemory

X, Y, Z = 5, 6, 7
# Every voxel has a value of its own: 36 x + 6 y + z, all below 256.
BLOCK_XYZ = (36 * np.arange(X)[:, None, None] + 6 * np.arange(Y)[:, None] + np.arange(Z) * 0.75).astype(np.float32)
AFFINE = np.array([[2.0, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])
WINDOW = "window=own&low=0&high=255"


def nifti(path, values, affine=AFFINE, seconds=False):
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec" if seconds else "unknown")
    nibabel.save(image, path)
    return path


@pytest.fixture
def client(tmp_path):
    clients = []

    def start(*items):
        served = Served(
            Catalogue("scans", {}, scans={item.id: item for item in items}),
            SlidePool({}),
            TileMemory(),
            AnnotationStore(tmp_path / "annotations"),
        )
        clients.append(TestClient(make_app(served, Safety()), base_url="http://127.0.0.1"))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def pixels(answer):
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_planes_are_shown_as_radiologists_do(client, tmp_path):
    asked = client(ScanItem("a", "a", nifti(tmp_path / "a.nii", BLOCK_XYZ), "volume"))
    expected = np.rint(BLOCK_XYZ).astype(np.uint8)
    for axis, at, plane_XY in (("z", 2, expected[:, :, 2]), ("y", 4, expected[:, 4]), ("x", 1, expected[1])):
        found = pixels(asked.get(f"/api/scans/a/planes/{axis}/{at}?{WINDOW}"))
        # Columns run from right to left (or front to back), rows from the front (or the head) down.
        np.testing.assert_array_equal(found, plane_XY.T[::-1, ::-1])


def test_proportions_are_those_of_the_patient(client, tmp_path):
    asked = client(ScanItem("a", "a", nifti(tmp_path / "a.nii", BLOCK_XYZ), "volume"))  # 10 x 18 x 28 mm
    answer = asked.get("/api/scans/a/layout.css")
    assert answer.headers["content-type"].startswith("text/css")
    assert (
        ".planes { grid-template-columns: 10.0fr 10.0fr 18.0fr; max-width: calc((100vh - 21rem) * 1.35" in answer.text
    )
    shares = {"axial": 10 / 18, "coronal": 10 / 28, "sagittal": 18 / 28}
    assert [f".{name} .picture {{ aspect-ratio: {share}; }}" in answer.text for name, share in shares.items()] == [
        True
    ] * 3
    assert '"../api/scans/a/layout.css"' in asked.get("/scan/a").text


def test_an_axis_that_runs_the_other_way_is_turned(client, tmp_path):
    affine = AFFINE.copy()
    affine[0, 0], affine[0, 3] = -2, 10 + 2 * (X - 1)  # the same block, stored from right to left
    stored = nifti(tmp_path / "a.nii", BLOCK_XYZ[::-1].copy(), affine)
    asked = client(ScanItem("a", "a", stored, "volume"))
    found = pixels(asked.get(f"/api/scans/a/planes/z/0?{WINDOW}"))
    np.testing.assert_array_equal(found, np.rint(BLOCK_XYZ[:, :, 0]).astype(np.uint8).T[::-1, ::-1])


def test_a_voxel_says_its_place_and_value(client, tmp_path):
    asked = client(ScanItem("a", "a", nifti(tmp_path / "a.nii", BLOCK_XYZ), "volume"))
    # RAS millimetres: 10 + 2 * 3, -20 + 3 * 1, 5 + 4 * 2.
    said = asked.get("/api/scans/a/values?x=3&y=1&z=2").json()["text"]
    assert said == f"voxel 3 1 2, R 16.0 P 17.0 S 13.0 mm, value {BLOCK_XYZ[3, 1, 2]:.5g}"


def test_masks_lie_over_their_voxels(client, tmp_path):
    labels = np.zeros((X, Y, Z), np.int16)
    labels[3, 1, 2], labels[0, 0, 2] = 4, 900
    image = nifti(tmp_path / "a.nii", BLOCK_XYZ)
    mask, other = nifti(tmp_path / "mask.nii", labels), nifti(tmp_path / "other.nii", labels, np.eye(4))
    asked = client(ScanItem("a", "a", image, "volume", (mask, other)))
    found = pixels(asked.get("/api/scans/a/masks/0/planes/z/2"))
    shown = np.argwhere(found[..., 3])
    assert shown.tolist() == [[Y - 1 - 1, X - 1 - 3], [Y - 1, X - 1]]
    assert len({tuple(found[row, column]) for row, column in shown}) == 2
    assert "mask.nii: label 4" in asked.get("/api/scans/a/values?x=3&y=1&z=2").json()["text"]
    page = asked.get("/scan/a").text
    assert "label 4: 0.024 ml" in page  # one voxel of 2 x 3 x 4 mm
    assert "label 900" in page
    assert "other.nii: it lies on another grid than its image" in page


def test_ct_has_its_windows_and_mr_percentiles(client, tmp_path):
    stored = np.zeros((4, 4), np.int16)
    stored[1, 2], stored[2, 1] = 1024 + 40, 1024 - 600
    for z in range(3):
        ct_slice(tmp_path / "ct" / f"{z}.dcm", stored, (0, 0, 2 * z))
    rng = np.random.default_rng(0)
    mr = rng.normal(100, 10, (20, 20, 20)).astype(np.float32)
    mr[0, 0, 0] = 1e6  # one bright voxel does not darken all others
    asked = client(
        ScanItem("ct", "ct", tmp_path / "ct", "volume"), ScanItem("mr", "mr", nifti(tmp_path / "mr.nii", mr), "volume")
    )
    page = asked.get("/scan/ct").text
    names = ["the file&#39;s (1)", "the file&#39;s (2)", "soft tissue", "lung", "bone", "brain"]
    for name in names:
        assert name in page
    soft = pixels(asked.get("/api/scans/ct/planes/z/1?window=2"))
    lung = pixels(asked.get("/api/scans/ct/planes/z/1?window=3"))
    # DICOM's first row is the front, its first column the patient's right: as on the screen.
    assert (soft[1, 2], soft[2, 1], soft[0, 0]) == (128, 0, 0)
    assert (lung[1, 2], lung[2, 1], lung[0, 0]) == (round(255 * (40 + 1350) / 1500), 128, round(255 * 326 / 1500))
    assert pixels(asked.get("/api/scans/mr/planes/z/9")).std() > 30


def test_channels_and_times(client, tmp_path):
    two = np.stack([BLOCK_XYZ, 1000 + BLOCK_XYZ], axis=-1)
    asked = client(
        ScanItem("c", "c", nifti(tmp_path / "c.nii", two), "volume"),
        ScanItem("t", "t", nifti(tmp_path / "t.nii", two, seconds=True), "volume"),
    )
    plane = "planes/z/3?window=1"  # all values
    first, second = (pixels(asked.get(f"/api/scans/c/{plane}&channel={channel}")) for channel in (0, 1))
    np.testing.assert_array_equal(first, second)  # channels have ranges of their own
    first, second = (pixels(asked.get(f"/api/scans/t/{plane}&channel={channel}")) for channel in (0, 1))
    assert first.max() < 60 < 200 < second.min()  # points in time share one
    assert "Point in time" in asked.get("/scan/t").text
    assert "2 channels" in asked.get("/scan/c").text


def test_a_film_is_shown_frame_by_frame(client, tmp_path):
    shades = [Image.new("RGB", (40, 30), (60 * number, 50, 200)) for number in range(4)]
    shades[0].save(tmp_path / "a.gif", save_all=True, append_images=shades[1:], duration=50)
    asked = client(ScanItem("f", "f", tmp_path / "a.gif", "video"))
    frames = [pixels(asked.get(f"/api/scans/f/frames/{number}")) for number in range(4)]
    for number, frame in enumerate(frames):
        assert frame.shape == (30, 40, 3)
        assert abs(int(frame[15, 20, 0]) - 60 * number) < 8
    assert asked.get("/api/scans/f/frames/4").status_code == 404
    assert asked.get("/api/scans/f/planes/z/0").status_code == 404
    assert "4 frames of 40 x 30 px" in asked.get("/scan/f").text


def test_what_cannot_be_read_says_why_and_the_rest_works(client, tmp_path):
    whole = nifti(tmp_path / "a.nii", BLOCK_XYZ)
    (tmp_path / "broken.nii").write_bytes(whole.read_bytes()[:400])
    asked = client(ScanItem("a", "a", whole, "volume"), ScanItem("b", "b", tmp_path / "broken.nii", "volume"))
    page = asked.get("/scan/b")
    assert page.status_code == 200
    assert "it is truncated" in page.text
    refused = asked.get("/api/scans/b/planes/z/0")
    assert refused.status_code == 400
    assert "it is truncated" in refused.json()["error"]
    assert asked.get("/scan/a").status_code == 200


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("planes/z/7", 404),
        ("planes/w/0", 404),
        ("planes/z/0?channel=1", 404),
        ("planes/z/0?window=9", 404),
        ("planes/z/0?window=lung", 400),
        ("planes/z/0?window=own&low=5&high=5", 400),
        ("planes/z/0?window=own&low=nan&high=5", 400),
        ("masks/0/planes/z/0", 404),
        ("values?x=5&y=0&z=0", 404),
        ("values?x=1&y=0", 400),
        ("frames/0", 404),
    ],
)
def test_wrong_questions_are_refused(client, tmp_path, place, status):
    asked = client(ScanItem("a", "a", nifti(tmp_path / "a.nii", BLOCK_XYZ), "volume"))
    assert asked.get(f"/api/scans/a/{place}").status_code == status
    assert asked.get("/scan/nothing").status_code == 404


def test_memory_is_bounded(tmp_path):
    items = [ScanItem(name, name, nifti(tmp_path / f"{name}.nii", BLOCK_XYZ), "volume") for name in "abc"]
    size = 4 * X * Y * Z
    pool = ScanPool(max_bytes=2 * size)
    first = pool.scan(items[0])
    assert pool.scan(items[0]) is first
    for item in items:
        pool.scan(item)
    assert pool.bytes == 2 * size
    assert pool.scan(items[0]) is not first
    small = ScanPool(max_bytes=1)  # what is looked at is held all the same
    small.scan(items[0])
    small.scan(items[1])
    assert small.bytes == size
