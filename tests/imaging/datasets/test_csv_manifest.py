"""Any CSV: which column means what, and what is refused."""

import numpy as np
import pytest
from tests.imaging.datasets import miniatures
from tests.imaging.datasets.test_folder import write_slice

from lamella.errors import DatasetError, ImageError
from lamella.imaging.datasets.opening import DatasetSettings, open_collection


def write(folder, text, images=("a.png", "b.png", "c.png")):
    for number, name in enumerate(images):
        miniatures.picture(folder / name, number)
    (folder / "list.csv").write_text(text)
    return folder / "list.csv"


def refused(path, cause, **settings):
    with pytest.raises(DatasetError) as caught:
        open_collection(path, DatasetSettings(**settings))
    assert cause in str(caught.value)


def test_glas_opens_without_settings(tmp_path):
    collection = open_collection(miniatures.make_glas(tmp_path / "glas"))
    assert (collection.name, collection.kind, collection.classes) == ("glas", "image", ("benign", "malignant"))
    assert (collection.group_noun, collection.items[3].group) == ("patient", "1")
    mask = collection.read_mask(collection.items[0])
    assert mask[6, 10] == 1  # 255 in the file
    assert mask.sum() == 8 * 14
    assert collection.mask_classes == {"foreground": 1}
    named = open_collection(tmp_path / "glas/manifest.csv", DatasetSettings(mask_classes={"gland": 255}))
    # 255 means "not labelled" in every mask that is read, so a class that the files call 255 gets a number of its own.
    assert named.mask_classes == {"gland": 1}
    assert set(np.unique(named.read_mask(named.items[0]))) == {0, 1}


def test_brain_needs_to_be_told_its_channels(tmp_path):
    path = miniatures.make_brain(tmp_path)
    refused(path, "the columns flair, t1post could all be the image. Set image=flair, or image=[flair,t1post]")
    refused(path, "line 3: t1post is empty", image=("flair", "t1post"))
    one = open_collection(path, DatasetSettings(image="flair"))
    assert (one.kind, len(one), one.items[1].group, one.classes) == ("volume", 4, "PGBM-000", ())
    assert one.read_mask(one.items[0]).shape == (6, 10, 8)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], *lines[3:]]))
    both = open_collection(path, DatasetSettings(image=["flair", "t1post"]))
    volume = both.read(both.items[0])
    assert (volume.values_CZYX.shape, volume.channels) == ((2, 6, 10, 8), ("flair", "t1post"))


def test_every_column_by_its_name_and_by_setting(tmp_path):
    text = "file,class,patient_id,hospital,split\na.png,x,P1,north,train\nb.png,y,P2,south,valid\nc.png,x,P3,,test\n"
    collection = open_collection(write(tmp_path, text))
    assert [item.item_id for item in collection.items] == ["a", "b", "c"]
    assert [item.split for item in collection.items] == ["train", "val", "test"]
    assert [item.site for item in collection.items] == ["north", "south", None]
    assert collection.items[1].group == "P2"
    odd = "f,what,who,where\na.png,1,P1,n\nb.png,2,P1,n\nc.png,1,P2,s\n"
    settings = DatasetSettings(image="f", label="what", group="who", site="where", group_noun="lesion")
    collection = open_collection(write(tmp_path, odd), settings)
    assert (collection.classes, collection.group_noun, collection.items[2].site) == (("1", "2"), "lesion", "s")


def test_names_without_suffix_in_another_folder(tmp_path):
    path = write(tmp_path / "t", "image,label\na,x\nb,y\n", ("p/a.png", "p/b.png"))
    collection = open_collection(path, DatasetSettings(folder="p", suffix=".png"))
    assert collection.items[1].sources[0] == tmp_path / "t/p/b.png"
    assert "no group column" in collection.notes[1]


def test_multi_label_with_nothing_and_unlabelled(tmp_path):
    path = write(tmp_path, "image,labels\na.png,x|y\nb.png,none seen\nc.png,\n")
    settings = DatasetSettings(separator="pipe", no_finding="none seen")
    collection = open_collection(path, settings)
    assert [item.labels for item in collection.items] == [("x", "y"), (), None]
    assert (collection.multi_label, collection.classes) == (True, ("x", "y"))
    assert "1 item(s) have an empty labels: unlabelled" in collection.notes
    path.write_text("image,labels\na.png,x|x\n")
    refused(path, "line 2: a label stands twice in 'x|x'", separator="|")


def test_label_none_leaves_unlabelled(tmp_path):
    collection = open_collection(write(tmp_path, "image,label\na.png,x\n"), DatasetSettings(label="none"))
    assert (collection.items[0].labels, collection.classes) == (None, ())


def test_boxes_from_a_second_csv_as_corners_or_sizes(tmp_path):
    path = write(tmp_path, "image,label\na.png,x\nb.png,y\n")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x0,y0,x1,y1,class\na,1,2,5,6,nodule\na.png,3,3,4,4,mass\n")
    collection = open_collection(path, DatasetSettings(boxes=boxes))
    assert collection.items[0].boxes == ((1, 2, 5, 6, "nodule"), (3, 3, 4, 4, "mass"))  # by its id and by its file
    assert collection.items[1].boxes == ()
    boxes.write_text("id,x,y,width,height,label\nb,1,2,5,6,nodule\n")
    assert open_collection(path, DatasetSettings(boxes=boxes)).items[1].boxes == ((1, 2, 6, 8, "nodule"),)
    boxes.write_text("id,x0,y0,x1,y1,label\nb,5,2,5,6,nodule\nz,1,1,2,2,nodule\nb,a,1,2,2,nodule\n")
    refused(path, "line 2: the box 5, 2, 5, 6 is empty or begins outside its image", boxes=boxes)
    refused(path, "z is no image of the data set", boxes=boxes)
    refused(path, "line 4: a, 1, 2, 2 are not four numbers", boxes=boxes)
    boxes.write_text("id,left,top\nb,5,2\n")
    refused(path, "it has none of the columns class", boxes=boxes)


@pytest.mark.parametrize(
    ("text", "cause", "settings"),
    [
        ("image,label\n", "it names no image", {}),
        ("", "it is empty", {}),
        ("image,image\na.png,b.png\n", "the column 'image' stands twice", {}),
        ("image,label\na.png,x\nz.png,y\n,x\n", "line 3: there is no file z.png (image)", {}),
        ("image,label\na.png,x\nz.png,y\n,x\n", "line 4: image is empty", {}),
        ("image,grade\na.png,x\n", "the column 'label' (label) is absent", {"label": "label"}),
        ("image,grade\na.png,x\n", "It has: image, grade", {"mask": "seg"}),
        ("image,label,class\na.png,x,y\n", "the columns label, class could all be the label. Set label=label", {}),
        ("what,label\nx,y\n", "no column names the files (it has what, label)", {}),
        ("id,image\nx,a.png\nx,b.png\n", "x stands 2 times", {}),
        ("id,image\nx,a.png\n,b.png\n", "line 3: the id is empty", {}),
        ("id,image,split\nx,a.png,train\ny,a.png,test\n", "a.png is the image of x (train) and of y (test)", {}),
        ("image,split\na.png,train\nb.png,holdout\n", "line 3: unknown split 'holdout'", {}),
        ("image,label\na.png,x\nb.png,z\n", "b: unknown label 'z' (known: x, y)", {"classes": ("x", "y")}),
        ("image,patient,split\na.png,P,train\nb.png,P,test\n", "patient P is in test and train", {}),
        ("image,mask\na.png,m.png\n", "line 2: there is no file m.png (mask)", {}),
    ],
)
def test_refusals(tmp_path, text, cause, settings):
    refused(write(tmp_path, text), cause, **settings)


def test_the_groups_of_a_split_that_is_set_aside_may_overlap(tmp_path):
    path = write(tmp_path, "image,patient,split\na.png,P,train\nb.png,P,holdout\n")
    assert len(open_collection(path, DatasetSettings(splits="none"))) == 2


def test_kinds_must_not_be_mixed(tmp_path):
    miniatures.nifti(tmp_path / "v.nii.gz", miniatures.grey_volume(0))
    path = write(tmp_path, "image\na.png\nv.nii.gz\n")
    refused(path, "more than one kind: 1 image(s) such as a.png; 1 volume(s) such as v.nii.gz")
    collection = open_collection(path, DatasetSettings(kind="image"))
    with pytest.raises(ImageError, match=r"v.nii.gz: it is a volume, not one image"):
        collection.read(collection.items[1])


def test_several_files_for_one_image_are_no_channels(tmp_path):
    refused(write(tmp_path, "p,q\na.png,b.png\n"), "several files for one image", image=("p", "q"))


def test_a_folder_with_one_csv_when_asked(tmp_path):
    path = write(tmp_path, "image,label\na.png,x\n")
    refused(tmp_path, "its layout is not known, and it holds list.csv")
    assert len(open_collection(tmp_path, DatasetSettings(name="csv"))) == 1
    path.with_name("other.csv").write_text("image\n")
    refused(tmp_path, "it should hold one CSV, and holds list.csv, other.csv", name="csv")


def test_files_of_one_name_in_two_folders_keep_their_paths_as_ids(tmp_path):
    path = write(tmp_path, "image\np/a.png\nq/a.png\n", ("p/a.png", "q/a.png"))
    assert [item.item_id for item in open_collection(path).items] == ["p/a.png", "q/a.png"]


def test_a_bare_pipe_on_the_command_line_is_explained():
    with pytest.raises(ValueError, match="pipe, comma, semicolon, blank"):
        DatasetSettings(separator="")


def test_a_folder_of_slices_in_a_cell_is_one_volume(tmp_path):
    for number in range(3):
        write_slice(tmp_path / "scan" / f"{number}.dcm", number)
    collection = open_collection(write(tmp_path, "case_id,path,patient\nx,scan,P1\n"))
    assert (collection.kind, collection.items[0].item_id) == ("volume", "x")
    assert collection.read(collection.items[0]).values_CZYX.shape == (1, 3, 8, 8)
