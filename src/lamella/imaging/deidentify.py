"""One DICOM file without what tells who it is: every element at every depth by the rules of `confidentiality`.

Source: DICOM PS3.15, annex E, basic application level confidentiality profile, with the option of modified dates.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

from lamella import __version__
from lamella.errors import ImageError
from lamella.imaging.confidentiality import (
    DATES,
    EDITION,
    PERSONAL_DATES,
    Action,
    action_of,
    is_code_string,
    is_technical_text,
    is_uid,
)
from lamella.imaging.dicom_header import FILE_FAULTS, syntax_of, text
from lamella.imaging.pseudonyms import Pseudonyms

Dates = Literal["remove", "shift"]
# PS3.15 asks for values that are valid and mean nothing.
_DUMMY_DATE, _DUMMY_TIME = "19000101", "000000"
_DUMMY_TEXT = "REMOVED"
_DUMMIES = {
    "DA": _DUMMY_DATE, "TM": _DUMMY_TIME, "DT": _DUMMY_DATE + _DUMMY_TIME, "AS": "000Y", "DS": "0", "IS": "0",
    "UR": "http://removed.invalid", "PN": _DUMMY_TEXT, "CS": _DUMMY_TEXT, "AE": _DUMMY_TEXT,
}  # fmt: skip
_TEXTS = frozenset(("LO", "SH", "ST", "LT", "UT", "UC"))
_BYTES = frozenset(("OB", "OW", "OF", "OD", "OL", "OV", "UN", "OB or OW"))
_BASIC, _MODIFIED_DATES = (
    ("113100", "Basic Application Confidentiality Profile"),
    (
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
)
_OUR_CLASS = "2.25.205394261402283041735416384957203361892"  # names this implementation; drawn once
# Modalities whose machines write names into the picture.
_WRITES_IN_PICTURE = frozenset(
    (
        "US",
        "ES",
        "XC",
        "GM",
        "SM",
        "OP",
        "OPT",
        "OCT",
        "XA",
        "RF",
        "OT",
        "SC",
        "DG",
        "ECG",
        "PX",
        "IO",
        "ECHO",
        "IVUS",
        "DX",
        "CR",
        "MG",
        "BMD",
    )
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DIRECTORY = "1.2.840.10008.1.3.10"
# Code strings without which a file cannot be read; a patient may be called "Mono" or "Axial".
_STRUCTURE = frozenset(
    ("Modality", "PhotometricInterpretation", "SpecificCharacterSet", "ImageType", "PatientPosition")
)
_MOMENT = re.compile(r"[0-9.:+\- ]*")  # the alphabet of dates and times
_NAME_PART = 3  # shorter parts of names (initials, "CT") are everywhere


@dataclass
class Report:
    """What was done to a file: counts and names of elements, never their values."""

    counts: Counter[str] = field(default_factory=Counter)
    unlisted: Counter[str] = field(default_factory=Counter)
    """Elements removed because nothing says that they may stay."""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """How files are de-identified.

    Attributes:
        pseudonyms: Of this key.
        dates: Remove dates, or move all of a patient back by the same number of days.
        keep: Keywords of elements that are kept although the profile says otherwise.
    """

    pseudonyms: Pseudonyms
    dates: Dates = "remove"
    keep: frozenset[str] = frozenset()


def deidentify(path: Path, header: Dataset, rules: Rules) -> Report:
    """De-identify a data set in place; its pixels keep every byte.

    Args:
        path: Named in errors.
        header: The whole data set; changed.
        rules: How.

    Raises:
        ImageError: It is a directory of files, or does not say which object it is.
    """
    kind, instance = text(header, "SOPClassUID"), text(header, "SOPInstanceUID")
    if kind == _DIRECTORY or header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        raise ImageError(path, "it is a directory of DICOM files (DICOMDIR)", "Leave it out: it lists names.")
    if not kind or not instance:
        raise ImageError(path, "it lacks its SOPClassUID or SOPInstanceUID", "Fetch the file again.")
    report = Report(warnings=burned_in_warnings(header))
    walk = _Walk(rules, identity_of(header), frozenset(_names(header)), report)
    patient = rules.pseudonyms.patient(walk.identity)
    walk.clean(header)
    header.PatientName = header.PatientID = patient
    _say_so(header, rules)
    _write_meta(header, kind)
    return report


def identity_of(header: Dataset) -> str:
    """What makes files belong to one patient: PatientID and its issuer; the study where there is none."""
    patient = text(header, "PatientID")
    return f"{text(header, 'IssuerOfPatientID')}\0{patient}" if patient else text(header, "StudyInstanceUID")


def burned_in_warnings(header: Dataset) -> list[str]:
    """Reasons why words may stand in the picture itself, which stays as it is."""
    burned = text(header, "BurnedInAnnotation").upper()
    if burned == "YES":
        return ["its header says that words stand in the picture (BurnedInAnnotation YES)"]
    image_type = {str(value).upper() for value in header.get("ImageType") or ()}
    reasons = []
    if burned != "NO" and "Rows" in header:
        modality = text(header, "Modality").upper()
        if modality in _WRITES_IN_PICTURE:
            reasons.append(f"machines of modality {modality} often write names into the picture")
        if text(header, "SOPClassUID").startswith(_SECONDARY_CAPTURE) or text(header, "ConversionType"):
            reasons.append("it is a secondary capture, often a photo of a screen")
        if any("SCREEN" in value for value in image_type):
            reasons.append("it is a saved screen")
    if text(header, "RecognizableVisualFeatures").upper() == "YES":
        reasons.append("its header says that a person can be recognised in it")
    return [*reasons, *_hidden_warnings(header)]


def _hidden_warnings(header: Dataset) -> list[str]:
    """Pixels keep every byte, so what hides among them stays."""
    stored, allocated = header.get("BitsStored"), header.get("BitsAllocated")
    for group in range(0x6000, 0x6100, 2):
        if (group, 0x0010) in header and (group, 0x3000) not in header and stored != allocated:
            return ["a drawing lies in unused bits of its pixels"]
    return []


def _names(header: Dataset) -> set[str]:
    """Parts of all names of persons and the patient's number, in capitals, at every depth."""
    found: set[str] = set()
    for element in _all_elements(header):
        if element.VR == "PN" or element.keyword in ("PatientID", "OtherPatientIDs", "AccessionNumber"):
            found |= set(re.findall(r"[^\W_]+", str(element.value).upper()))
    return {part for part in found if len(part) >= _NAME_PART}


def _all_elements(header: Dataset) -> list[DataElement]:
    found: list[DataElement] = []
    for tag in list(header.keys()):
        try:
            element = header[tag]
            found.append(element)
            if element.VR == "SQ":
                for item in element.value:
                    found += _all_elements(item)
        except FILE_FAULTS:
            continue  # `_Walk` removes what cannot be read
    return found


@dataclass
class _Walk:
    rules: Rules
    identity: str
    names: frozenset[str]
    report: Report

    def clean(self, header: Dataset) -> None:
        """Go through all elements and the items of kept sequences."""
        for tag in list(header.keys()):
            try:
                element = header[tag]
                done = self._done(header, element)
            except FILE_FAULTS:  # its value breaks the rules of its kind: nobody can say what it holds
                done = Action.INVALID
            if done in (Action.REMOVE, Action.PRIVATE, Action.UNLISTED, Action.INVALID):
                del header[tag]
            self.report.counts[done.value] += 1
            if done in (Action.UNLISTED, Action.INVALID):
                self.report.unlisted[_label(tag)] += 1

    def _done(self, header: Dataset, element: DataElement) -> Action:
        action = action_of(element.tag, element.VR)
        if element.keyword in self.rules.keep and action is not Action.PRIVATE:
            if element.VR != "SQ":
                return Action.KEEP
            action = Action.CLEAN
        shifts = self.rules.dates == "shift" and element.keyword and element.keyword not in PERSONAL_DATES
        if shifts and element.VR in DATES and action is not Action.PRIVATE:
            return self._shift(element)
        if action is Action.KEEP:
            return self._kept(element)
        if action is Action.EMPTY:
            element.value = Items() if element.VR == "SQ" else b"" if element.VR in _BYTES else None
        elif action is Action.DUMMY:
            _replace(element, self.rules.pseudonyms)
        elif action is Action.UID:
            element.value = _each(element.value, self.rules.pseudonyms.uid)
        elif action is Action.CLEAN:
            for item in element.value:
                self.clean(item)
        return action

    def _kept(self, element: DataElement) -> Action:
        values = element.value if isinstance(element.value, (list, MultiValue)) else [element.value]
        if element.VR == "CS" and not all(is_code_string(str(value or "")) for value in values):
            return Action.INVALID
        if element.VR == "UI" and not all(is_uid(str(value or "0")) for value in values):
            return Action.INVALID
        if is_technical_text(element.keyword) or (element.VR == "CS" and element.keyword not in _STRUCTURE):
            words = {word for value in values for word in re.findall(r"[^\W_]+", str(value).upper())}
            if words & self.names:
                return Action.UNLISTED
        return Action.KEEP

    def _shift(self, element: DataElement) -> Action:
        values = element.value if isinstance(element.value, (list, MultiValue)) else [element.value or ""]
        if not all(_MOMENT.fullmatch(str(value)) for value in values):
            return Action.INVALID
        if element.VR == "TM" or not element.value:  # hours stay: the day they belong to is another
            return Action.KEEP
        shift = self.rules.pseudonyms.shifted
        element.value = _each(element.value, lambda value: shift(value, self.identity))
        self.report.counts["dates_shifted"] += 1
        return Action.DUMMY


def _each(value: object, change: object) -> object:
    if isinstance(value, (list, MultiValue)):
        return [change(str(one)) for one in value]  # type: ignore[operator]
    return change(str(value)) if value else value  # type: ignore[operator]


def _replace(element: DataElement, pseudonyms: Pseudonyms) -> None:
    """Put a valid value without meaning in place; an item of a sequence becomes one of such values."""
    if element.VR == "SQ":
        for item in element.value:
            for tag in list(item.keys()):
                if BaseTag(tag).is_private:
                    del item[tag]
                else:
                    _replace(item[tag], pseudonyms)
    elif element.VR == "UI":
        element.value = _each(element.value, pseudonyms.uid)
    elif element.VR in _BYTES:
        element.value = b"\x00\x00"
    elif element.VR in _DUMMIES:
        element.value = _DUMMIES[element.VR]
    elif element.VR in _TEXTS:
        element.value = _DUMMY_TEXT
    else:
        element.value = 0  # numbers


def _say_so(header: Dataset, rules: Rules) -> None:
    """State in the file what was done to it (PS3.15, E.1.1)."""
    header.PatientIdentityRemoved = "YES"
    kept = f", {len(rules.keep)} elements kept" if rules.keep else ""
    header.DeidentificationMethod = f"PS3.15 {EDITION} basic profile{kept}; Lamella {__version__}"[:64]  # LO holds 64
    shifted = rules.dates == "shift"
    header.LongitudinalTemporalInformationModified = "MODIFIED" if shifted else "REMOVED"
    header.DeidentificationMethodCodeSequence = Items()
    for value, meaning in (_BASIC, _MODIFIED_DATES) if shifted else (_BASIC,):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        header.DeidentificationMethodCodeSequence.append(code)


def _write_meta(header: Dataset, kind: str) -> None:
    """A new file meta group and an empty preamble: the old ones name machines, programs and the old UID."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = syntax_of(header)
    meta.ImplementationClassUID = _OUR_CLASS
    meta.ImplementationVersionName = f"LAMELLA {__version__}"[:16]
    header.file_meta = meta
    header.preamble = bytes(128)


def _label(tag: BaseTag) -> str:
    return keyword_for_tag(tag) or f"({tag.group:04x},{tag.element:04x})"
