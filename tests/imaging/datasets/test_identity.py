"""An image is found again by its content, under any name."""

import pickle
import shutil

import pytest
from tests.imaging.datasets import miniatures
from tests.imaging.datasets.test_folder import write_slice

from lamella.errors import ImageError
from lamella.imaging.datasets.identity import item_digest, source_digests
from lamella.imaging.datasets.opening import DatasetSettings, open_collection


def digests(collection):
    return {item.item_id: item_digest(collection, item) for item in collection.items}


def test_a_copy_under_another_name_is_the_same_and_all_others_differ(tmp_path):
    original = digests(open_collection(miniatures.make_class_folder(tmp_path / "a")))
    assert len(set(original.values())) == 6
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in original.values())
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/dog/p10_1.png", tmp_path / "b/other.png")
    assert digests(open_collection(tmp_path / "b")) == {"other": original["dog/p10_1"]}


def test_rows_of_archives(tmp_path):
    one = open_collection(miniatures.make_medmnist(tmp_path / "pneumoniamnist.npz"))
    two = open_collection(miniatures.make_medmnist(tmp_path / "renamed.npz"))
    assert digests(one) == digests(two)
    assert len(set(digests(one).values())) == len(one)
    patches = open_collection(miniatures.make_pcam(tmp_path / "pcam"))
    assert len(set(digests(patches).values())) == len(patches)


def test_a_series_whose_files_were_renamed_into_another_order(tmp_path):
    for number in range(3):
        write_slice(tmp_path / "one" / f"{number}.dcm", number)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two/0.dcm").rename(tmp_path / "two/9.dcm")
    one, two = (digests(open_collection(tmp_path / name))[name] for name in ("one", "two"))
    assert one == two
    (tmp_path / "two/9.dcm").unlink()
    assert digests(open_collection(tmp_path / "two"))["two"] != one


def test_cases_that_share_one_channel_are_told_by_their_sources(tmp_path):
    path = miniatures.make_brain(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], *lines[3:]]))
    flair = open_collection(path, DatasetSettings(image="flair"))
    both = open_collection(path, DatasetSettings(image=("flair", "t1post")))
    assert item_digest(flair, flair.items[0]) != item_digest(both, both.items[0])
    assert source_digests(flair, flair.items[0])[0] == source_digests(both, both.items[0])[0]


def test_a_file_that_went_away(tmp_path):
    collection = open_collection(miniatures.make_class_folder(tmp_path))
    collection.items[0].sources[0].unlink()
    with pytest.raises(ImageError, match="it cannot be read"):
        item_digest(collection, collection.items[0])


@pytest.mark.parametrize("make", [miniatures.make_pcam, miniatures.make_brats, miniatures.make_ham10000])
def test_a_collection_reaches_another_process(tmp_path, make):
    collection = open_collection(make(tmp_path))
    collection.read(collection.items[0])  # files that are open here stay here
    copy = pickle.loads(pickle.dumps(collection))  # noqa: S301 - our own bytes
    assert digests(copy) == digests(collection)
