"""Which slides there are, and what makes a manifest unusable as a whole."""

import json
from pathlib import Path

import pytest

from lamella.errors import ManifestError
from lamella.slides.manifest import find_slides, read_exported_index, read_manifest


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_columns_of_the_source_project_and_metadata(tmp_path):
    path = write(
        tmp_path / "lists" / "m.csv",
        "slide_id,wsi_path,mask_path,patient,site,label_mask_path\n"
        f"a,../s/a.svs,{tmp_path}/m/a.png,P1,north,../labels/a.png\n"
        "b,../s/b.svs,,P2,,\n",
    )
    a, b = read_manifest(path)
    assert (a.slide_id, a.wsi_path.resolve()) == ("a", tmp_path / "s/a.svs")
    assert a.mask_path == tmp_path / "m/a.png"
    assert b.mask_path is None
    assert a.metadata["site"] == "north"
    assert Path(a.metadata["label_mask_path"]).resolve() == tmp_path / "labels/a.png"
    assert dict(b.metadata) == {"patient": "P2"}
    assert a.mpp is None


def test_slide_path_is_accepted_and_mask_path_may_be_absent(tmp_path):
    (row,) = read_manifest(write(tmp_path / "m.csv", "slide_id,slide_path,mpp\na,a.svs,0.25\n"))
    assert row.wsi_path == tmp_path / "a.svs"
    assert row.mask_path is None
    assert row.mpp == (0.25, 0.25)


def test_mpp_of_each_axis(tmp_path):
    (row,) = read_manifest(write(tmp_path / "m.csv", "slide_id,wsi_path,mpp_x,mpp_y,mask_mpp\na,a.svs,0.25,0.26,8\n"))
    assert row.mpp == (0.25, 0.26)
    assert row.mask_mpp == 8


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("slide_id,mask_path\na,b\n", "the column wsi_path is missing .it has mask_path, slide_id."),
        ("wsi_path\na.svs\n", "the column slide_id is missing"),
        ("slide_id,wsi_path\na,1.svs\nb,2.svs\na,3.svs\n", "a slide_id stands twice: a in lines 2, 4"),
        ("slide_id,wsi_path\n,1.svs\nb,2.svs\n,3.svs\n", "an empty slide_id in line 2, 4"),
        ("slide_id,wsi_path\na,\n", "an empty wsi_path in line 2"),
        ("slide_id,wsi_path\n../a,1.svs\n", "cannot be a file name"),
        ("slide_id,wsi_path,mpp\na,1.svs,half\n", "line 2: mpp is 'half', not a number"),
        ("slide_id,wsi_path,mpp_x\na,1.svs,0.5\n", "only one of mpp_x and mpp_y"),
        ("slide_id,wsi_path\n", "it names no slide"),
        ("", "it is empty"),
    ],
)
def test_a_manifest_is_refused_as_a_whole(tmp_path, text, cause):
    with pytest.raises(ManifestError, match=cause):
        read_manifest(write(tmp_path / "m.csv", text))


def test_folders_and_files_are_named_by_their_stem(make_slide, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    make_slide("b.tif", 64, 64, levels=1, folder=folder)
    make_slide("a.tif", 64, 64, levels=1, folder=folder)
    single = make_slide("c.tif", 64, 64, levels=1)
    rows = find_slides([folder, single], mpp=0.5)
    assert [row.slide_id for row in rows] == ["a", "b", "c"]
    assert {row.mpp for row in rows} == {(0.5, 0.5)}


def test_two_files_of_one_name_are_refused_with_both_paths(make_slide, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    first, second = (make_slide("a.tif", 64, 64, levels=1, folder=folder) for folder in (tmp_path, other))
    with pytest.raises(ManifestError, match="would be called a") as caught:
        find_slides([first, second])
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_missing_or_empty_argument_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no such file or folder"):
        find_slides([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no slide in this folder"):
        find_slides([tmp_path / "empty"])


def test_the_command_line_mpp_wins_over_the_manifest(tmp_path):
    path = write(tmp_path / "m.csv", "slide_id,wsi_path,mpp\na,a.svs,0.25\n")
    (row,) = find_slides([path], mpp=0.5)
    assert row.mpp == (0.5, 0.5)


def test_an_exported_index_of_the_source_project(tmp_path):
    line = {
        "slide_id": "a",
        "wsi_path": "/data/a.tif",
        "mask_path": None,
        "status": "ok",
        "error": None,
        "wsi_level0_width": 100,
        "wsi_level0_spacing_mpp": 0.25,
        "wsi_shapes": [[100, 100]],
        "mask_to_wsi_scale_x": None,
        "organ": "colon",
    }
    path = write(tmp_path / "i.jsonl", json.dumps(line) + "\n\n")
    (row,) = read_exported_index(path)
    assert row.wsi_path == Path("/data/a.tif")
    assert row.mpp == (0.25, 0.25)
    assert row.mask_path is None
    assert dict(row.metadata) == {"organ": "colon"}


@pytest.mark.parametrize("text", ["{", '["a"]', '{"slide_id": "a"}', ""])
def test_a_damaged_export_is_refused(tmp_path, text):
    with pytest.raises(ManifestError):
        read_exported_index(write(tmp_path / "i.jsonl", text))
