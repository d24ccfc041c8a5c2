"""Settings that say what a data set is, where its layout does not say it itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lamella.config import Settings

AdapterName = Literal[
    "auto",
    "ham10000",
    "pcam",
    "aptos2019",
    "chestxray14",
    "brats",
    "bcss",
    "pannuke",
    "decathlon",
    "medmnist",
    "folder",
    "csv",
]

# On the command line `|` alone is the start of a YAML text block, and a blank is nothing.
_SPELT_SEPARATORS = {"pipe": "|", "comma": ",", "semicolon": ";", "blank": " "}


def _texts(value: Any) -> Any:
    """One text or number for a list of one; numbers as they are written."""
    if isinstance(value, (list, tuple)):
        return tuple(str(each) for each in value)
    return value if value is None else (str(value),)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _separator(value: Any) -> Any:
    if value == "":
        raise ValueError("must be a sign, or one of pipe, comma, semicolon, blank (a bare | is nothing in YAML)")
    return _SPELT_SEPARATORS.get(value, value) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Text = Annotated[str | None, BeforeValidator(_text)]


class DatasetSettings(Settings):
    """What a data set is. Known layouts need none of this; a key that the layout does not use is refused."""

    name: AdapterName = "auto"
    """Layout; auto looks at the folder and refuses to guess between two."""
    kind: Literal["auto", "image", "volume", "video"] = "auto"
    """What each item is (folder, csv); auto asks the files."""
    fourth: Literal["auto", "channel", "time"] = "auto"
    """What the fourth axis of a NIfTI is (folder, csv); auto: time where the header states a unit of time."""
    splits: Literal["given", "none"] = "given"
    """given: the train, val and test parts that the data set itself states; none: forget them."""
    id: Text = None
    """CSV column that names each item; auto: id, image_id, case_id or the like if there is one, else the file name."""
    image: Texts = ()
    """CSV column that names the file; several columns for one file per channel. auto: image, image_path, path, file or
    the like, else the one column whose cells are all files."""
    folder: Path | None = None
    """Folder that the CSV's paths start from; the CSV's own unless given."""
    suffix: str = ""
    """Added to each file name of the CSV that has none, such as .png."""
    label: Text = None
    """CSV column of the class; auto: label, class, diagnosis or target if there is one; `none`: leave it unlabelled."""
    separator: Annotated[str | None, BeforeValidator(_separator)] = None
    """Sign between the labels of one image (CSV); given, the data set is multi-label. Also pipe, comma, semicolon,
    blank."""
    no_finding: Text = None
    """Label that means `looked at, none of the classes` (multi-label CSV)."""
    classes: Texts = ()
    """Label classes in their order; a label outside is refused. Empty: those that occur, sorted (CSV, folder); their
    numbers (MedMNIST)."""
    group: Text = None
    """CSV column of what must never be torn apart; auto: patient, patient_id, subject, lesion_id, slide or the like."""
    group_pattern: str | None = None
    """Regular expression over an item's path below the folder; its first bracket is the group (folder)."""
    group_noun: str | None = None
    """What a group is called: patient, lesion, slide (folder, csv)."""
    site: Text = None
    """CSV column of the hospital or scanner; auto: site, hospital, centre or center if there is one."""
    split: Text = None
    """CSV column of the split (train, val, test); auto: split if there is one."""
    mask: Text = None
    """CSV column of the segmentation file; auto: mask or mask_path if there is one; `none`: leave it out."""
    mask_classes: dict[str, int] = Field(default_factory=dict)
    """Class name to its value in the masks. Empty, and no layout that says it: masks must be of one value beside 0,
    which is called foreground and becomes 1."""
    boxes: Path | None = None
    """Second CSV, of boxes: image (or id), x0, y0, x1, y1 (or x, y, w, h) in pixels, and class (csv)."""
    class_map: str | None = None
    """What the values of masks mean, in place of mask_classes: a class map that ships with Lamella (bcss5,
    bcss-official) or a YAML file."""
    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of pictures whose files state none (PNG, JPEG, TIFF); a CSV column `mpp` says it for each
    image."""
    spacing_mm: tuple[float, float, float] | None = None
    """(z, y, x) size of a voxel where the data set does not say it (3-D MedMNIST)."""

    @property
    def stated_fourth(self) -> Literal["channel", "time"] | None:
        """None where the header decides."""
        return None if self.fourth == "auto" else self.fourth
