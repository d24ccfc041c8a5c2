"""De-identification: no value that was planted is found in the bytes that come out, whatever held it."""

from __future__ import annotations

import io
import re

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from tests.imaging.dicoms import header, pydicom_files

from lamella.errors import ImageError, LamellaError
from lamella.imaging.confidentiality import Action, action_of
from lamella.imaging.deidentify import Rules, deidentify
from lamella.imaging.dicom_header import file_faults, is_dicom, read_dataset
from lamella.imaging.pseudonyms import Pseudonyms, load_key
from lamella.imaging.silence import silence

RULES = Rules(Pseudonyms(bytes(range(32))))
STUDY = "1.2.826.0.1.3680043.9.1"
# Each is found nowhere else in a file, and stands in a place of its own.
SECRETS = {
    "PatientName": "Zephyrine^Quux", "PatientID": "MRN8861942", "PatientBirthDate": "19410703",
    "ReferringPhysicianName": "Doktor^Vandermolen", "InstitutionName": "Klinikum Ohnegleichen",
    "InstitutionAddress": "Lindenallee 5", "AccessionNumber": "ACC553311", "StudyDate": "20190304",
    "StudyTime": "101112.13", "SeriesDescription": "Kopf fuer Xanthippe", "StudyDescription": "Nachsorge Xanthippe",
    "PatientComments": "wohnt am Marktplatz", "ImageComments": "Xylophonspielerin", "OperatorsName": "Nurse^Ophelia",
    "StationName": "ROOMQ7", "DeviceSerialNumber": "SN0099887", "PatientAge": "078Y", "PatientAddress": "Am Deich 12",
    "OtherPatientNames": "Geb^Wolkenstein", "RequestingPhysician": "Arzt^Unbekannt", "ProtocolName": "Proto Xanthippe",
    "PatientTelephoneNumbers": "0049-555-1234", "AcquisitionDateTime": "20190304101112",
    "PatientMotherBirthName": "Muttername",
}  # fmt: skip


def planted() -> tuple[Dataset, list[str]]:
    with silence:  # pydicom warns of the values that are none of their kind, which is what they are for
        return _planted()


def _planted() -> tuple[Dataset, list[str]]:
    """A CT slice with something personal wherever DICOM has room for it, and all these values."""
    pixels = np.random.default_rng(5).integers(0, 4000, (16, 16)).astype(np.uint16)
    data = header(pixels, StudyInstanceUID=STUDY, SOPInstanceUID=STUDY + ".77", RescaleSlope=1, RescaleIntercept=-1024)
    for name, value in SECRETS.items():
        setattr(data, name, value)
    secrets = [
        *SECRETS.values(),
        STUDY,
        "SEQNAME",
        "DEEPNAME",
        "PRIVATESECRET",
        "NESTEDPRIVATE",
        "AESECRET",
        "METASECRET",
    ]
    # A sequence that the table keeps (with new UIDs), one that it does not know, and one inside another.
    deep, reference, request = Dataset(), Dataset(), Dataset()
    deep.PersonName, deep.PatientID, deep.TextValue = "DEEPNAME^Deep", "DEEPID4711", "free DEEPTEXT words"
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = data.SOPClassUID, STUDY + ".55"
    reference.PurposeOfReferenceCodeSequence = Items([deep])
    private = reference.private_block(0x0011, "MAKER", create=True)
    private.add_new(1, "LO", "NESTEDPRIVATE")
    request.PatientName, request.ScheduledProcedureStepDescription = "SEQNAME^In", "STEPSECRET"
    request.ReferencedStudySequence = Items([reference])
    data.SourceImageSequence, data.DerivationCodeSequence = Items([reference]), Items([request])
    data.RequestAttributesSequence = Items([request])
    secrets += ["DEEPID4711", "DEEPTEXT", "STEPSECRET"]
    block = data.private_block(0x0009, "MAKERSECRET", create=True)
    block.add_new(1, "LO", "PRIVATESECRET")
    block.add_new(2, "SQ", Items([request]))
    data.add_new((0x6000, 0x3000), "OW", b"OVERLAYSECRET!")
    data.add_new((0x6000, 0x4000), "LT", "OVERLAYWORDS")
    data.add_new((0x5000, 0x0010), "US", 1)
    data.add_new((0x0010, 0x9998), "LO", "UNKNOWNSECRET")  # in no dictionary
    data.add_new((0xFFFC, 0xFFFC), "OB", b"TRAILSECRET.")
    # Kinds that hold no words, holding words; technical words, holding a name.
    data.add_new((0x0018, 0x0015), "CS", "HERZ OF Mrs Quux")
    data.ConvolutionKernel = "B30 ZEPHYRINE"
    data.Manufacturer = "ACME"
    secrets += ["MAKERSECRET", "OVERLAYSECRET", "OVERLAYWORDS", "UNKNOWNSECRET", "TRAILSECRET", "Mrs Quux", "ZEPHYRINE"]
    data.preamble = b"PREAMBLESECRET".ljust(128)
    data.file_meta.SourceApplicationEntityTitle = "AESECRET"
    data.file_meta.PrivateInformationCreatorUID, data.file_meta.PrivateInformation = "1.2.3", b"METASECRET"
    return data, [*secrets, "PREAMBLESECRET"]


def round_trip(data: Dataset) -> Dataset:
    stream = io.BytesIO()
    with file_faults("planted"):
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
            data.SOPClassUID,
            data.SOPInstanceUID,
        )
        pydicom.dcmwrite(stream, data, enforce_file_format=True)
    stream.seek(0)
    return pydicom.dcmread(stream)


def as_bytes(data: Dataset) -> bytes:
    stream = io.BytesIO()
    with silence:
        pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def words_of(value: str) -> set[bytes]:
    """A value and the parts of it that are long enough to tell."""
    return {part.encode() for part in [value, *re.split(r"[\^ ]", value)] if len(part) >= 5}


def test_no_planted_value_is_in_the_bytes_that_come_out():
    data, secrets = planted()
    data = round_trip(data)
    before = as_bytes(data)
    missing = [value for value in secrets if value.encode() not in before]
    assert not missing  # or the test would prove nothing
    pixels = data.PixelData
    report = deidentify("planted", data, RULES)
    after = as_bytes(data)
    assert not [value for value in secrets for word in words_of(value) if word.lower() in after.lower()]
    assert data.PixelData == pixels
    assert report.counts["private"] >= 2
    assert report.unlisted["(0010,9998)"] == 1
    assert report.unlisted["ConvolutionKernel"] == 1
    assert report.unlisted["BodyPartExamined"] == 1
    assert data.Manufacturer == "ACME"


def test_the_report_holds_no_value():
    data, secrets = planted()
    report = deidentify("planted", round_trip(data), RULES)
    said = str(report)
    assert not [value for value in secrets if value in said]


def test_what_was_done_is_stated_in_the_file():
    data = planted()[0]
    deidentify("planted", data, RULES)
    assert data.PatientIdentityRemoved == "YES"
    assert "PS3.15" in data.DeidentificationMethod
    assert [code.CodeValue for code in data.DeidentificationMethodCodeSequence] == ["113100"]
    assert data.LongitudinalTemporalInformationModified == "REMOVED"


def test_uids_are_new_and_agree_over_a_study():
    first, second = planted()[0], planted()[0]
    second.SOPInstanceUID = STUDY + ".78"
    second.SourceImageSequence[0].ReferencedSOPInstanceUID = STUDY + ".77"
    for data in (first, second):
        deidentify("planted", data, RULES)
    assert first.StudyInstanceUID == second.StudyInstanceUID != STUDY
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert first.SOPClassUID == first.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert first.SourceImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID
    assert pydicom.uid.UID(first.StudyInstanceUID).is_valid
    assert first.PatientID == second.PatientID == first.PatientName


def test_another_key_gives_other_pseudonyms():
    first, second = planted()[0], planted()[0]
    deidentify("planted", first, RULES)
    deidentify("planted", second, Rules(Pseudonyms(bytes(32))))
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert first.PatientID != second.PatientID


def test_shifted_dates_keep_their_distances():
    first, second = planted()[0], planted()[0]
    second.StudyDate = "20190403"  # 30 days later
    first.PatientBirthDate = second.PatientBirthDate = "19410703"
    rules = Rules(RULES.pseudonyms, dates="shift")
    for data in (first, second):
        deidentify("planted", data, rules)
    days = [pydicom.valuerep.DA(data.StudyDate) for data in (first, second)]
    assert (days[1] - days[0]).days == 30
    assert 31 <= (pydicom.valuerep.DA("20190304") - days[0]).days <= 3652
    assert first.AcquisitionDateTime == first.StudyDate + "101112"  # the same shift, and the hour stays
    assert not first.PatientBirthDate
    assert first.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [code.CodeValue for code in first.DeidentificationMethodCodeSequence] == ["113100", "113107"]


@pytest.mark.parametrize("dates", ["remove", "shift"])
def test_dates_hide_nothing(dates):
    """Private dates, times that are words, dates with words behind them; a capital name where a code belongs."""
    data = planted()[0]
    with silence:
        data.private_block(0x0009, "MAKER", create=True).add_new(5, "DA", "19410703")
        data.SeriesTime, data.ContentTime = "Xanthippe", "101500"
        data.AcquisitionDateTime = "20190304Xanthippe"
        data.BodyPartExamined, data.PatientName = "ZEPHYRINE", "Axial^Zephyrine"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        deidentify("planted", data, Rules(RULES.pseudonyms, dates))
    content = as_bytes(data)
    assert not [secret for secret in (b"19410703", b"Xanthippe", b"ZEPHYRINE") if secret in content]
    assert data.ImageType[2] == "AXIAL"  # what a file cannot do without stays
    assert data.get("ContentTime") == ("101500" if dates == "shift" else "000000")


def test_a_date_that_is_none_is_removed_not_kept():
    data = planted()[0]
    data.add_new("SeriesDate", "DA", "")
    data._dict[pydicom.tag.Tag("StudyDate")] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("StudyDate"), "DA", 8, b"Xanthipp", 0, False, True
    )
    with file_faults("planted"):
        deidentify("planted", data, Rules(RULES.pseudonyms, dates="shift"))
    assert b"Xanthipp" not in as_bytes(data)


def test_elements_are_kept_on_request():
    data = planted()[0]
    data.PatientSex = "F"
    deidentify("planted", data, Rules(RULES.pseudonyms, keep=frozenset(("PatientSex", "PatientAge"))))
    assert (data.PatientSex, data.PatientAge) == ("F", "078Y")
    assert "2 elements kept" in data.DeidentificationMethod
    again = planted()[0]
    again.PatientSex = "F"
    deidentify("planted", again, RULES)
    assert not again.PatientSex
    assert "PatientAge" not in again


def test_values_that_stand_in_are_valid():
    """Written with pydicom's own checks as errors."""
    data = planted()[0]
    with file_faults("planted"):
        deidentify("planted", data, RULES)
    pydicom.config.settings.writing_validation_mode, before = (
        pydicom.config.RAISE,
        pydicom.config.settings.writing_validation_mode,
    )
    try:
        for element in as_dataset(as_bytes(data)).iterall():
            pydicom.dataelem.DataElement(element.tag, element.VR, element.value, validation_mode=pydicom.config.RAISE)
    finally:
        pydicom.config.settings.writing_validation_mode = before


def as_dataset(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


@pytest.mark.parametrize(("tag", "vr", "expected"), [
    ("PatientName", "PN", Action.EMPTY), ("PatientID", "LO", Action.DUMMY), ("InstitutionAddress", "ST", Action.REMOVE),
    ("StudyInstanceUID", "UI", Action.UID), ("Rows", "US", Action.KEEP), ("PixelData", "OW", Action.KEEP),
    ("KVP", "DS", Action.KEEP), ("SourceImageSequence", "SQ", Action.CLEAN), ("TextValue", "UT", Action.UNLISTED),
    ("WaveformData", "OW", Action.UNLISTED), (0x60023000, "OW", Action.REMOVE), (0x00091001, "LO", Action.PRIVATE),
    (0x00109998, "LO", Action.UNLISTED), ("SpecificCharacterSet", "CS", Action.KEEP),
])  # fmt: skip
def test_actions(tag, vr, expected):
    assert action_of(pydicom.tag.Tag(tag), vr) is expected


# ---- pydicom's files ------------------------------------------------------------------------------------------------

SMALL = [path for path in pydicom_files().values() if path.stat().st_size < 200_000 and is_dicom(path)]


def personal(data: Dataset) -> set[str]:
    """What every element that the table removes, empties or replaces says in words, at every depth."""
    found: set[str] = set()
    for element in data.iterall():
        if element.VR in ("PN", "UI", "LO", "SH", "DA", "AE", "LT", "ST") and action_of(element.tag, element.VR) in (
            Action.REMOVE, Action.EMPTY, Action.DUMMY, Action.UID, Action.PRIVATE,
        ):  # fmt: skip
            values = (
                element.value if isinstance(element.value, (list, pydicom.multival.MultiValue)) else [element.value]
            )
            found |= {str(value) for value in values if len(str(value)) >= 8}
    # Registered UIDs stay; so do code strings (body part, image type) that a removed description happens to repeat.
    codes = {"WHOLE BODY", "OB_GENERAL"}
    return {value for value in found - codes if not value.startswith("1.2.840.10008.")}


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.name)
def test_real_files_keep_nothing_personal_and_every_pixel(path):
    with file_faults(path):
        data = read_dataset(path)
        if "SOPClassUID" not in data or "SOPInstanceUID" not in data:
            pytest.skip("it does not say which object it is, and is refused")
        secrets, pixels = personal(data), data.get("PixelData")
        deidentify(path, data, RULES)
        content = as_bytes(data)
        after = as_dataset(content)
        shown = content.replace(pixels or b"\0", b"") if pixels else content
        assert not [value for value in secrets if value.encode() in shown]
        assert after.get("PixelData") == pixels
        assert not [element for element in after.iterall() if element.tag.is_private]


# ---- warnings and errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("elements", "said"), [
    ({"BurnedInAnnotation": "YES"}, "words stand in the picture"),
    ({"BurnedInAnnotation": "NO", "Modality": "US"}, None),
    ({"Modality": "US"}, "modality US often"),
    ({"Modality": "CT"}, None),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
    ({"ConversionType": "WSD"}, "secondary capture"),
    ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "saved screen"),
    ({"RecognizableVisualFeatures": "YES"}, "person can be recognised"),
])  # fmt: skip
def test_words_in_the_picture_are_warned_of(elements, said):
    data = planted()[0]
    for group in [tag for tag in data.keys() if tag.group == 0x6000]:  # noqa: SIM118 (a Dataset iterates over elements)
        del data[group]
    for name, value in elements.items():
        setattr(data, name, value)
    warnings = deidentify("planted", data, RULES).warnings
    assert (said in "; ".join(warnings)) if said else not warnings


def test_a_directory_of_files_is_refused():
    data = planted()[0]
    data.SOPClassUID = "1.2.840.10008.1.3.10"
    with pytest.raises(ImageError, match="DICOMDIR"):
        deidentify("planted", data, RULES)


@pytest.mark.parametrize("name", ["SOPClassUID", "SOPInstanceUID"])
def test_an_object_without_a_class_is_refused(name):
    data = planted()[0]
    delattr(data, name)
    with pytest.raises(ImageError, match="lacks its SOPClassUID or SOPInstanceUID"):
        deidentify("planted", data, RULES)


def test_a_key_is_drawn_once_and_for_its_owner_only(tmp_path):
    path = tmp_path / "private" / "key.txt"
    key = load_key(path, make=True)
    assert load_key(path, make=False) == key
    assert path.stat().st_mode & 0o077 == 0
    for content in ("hello", "abcd"):
        path.write_text(content)
        with pytest.raises(LamellaError, match="key"):
            load_key(path, make=False)
    with pytest.raises(LamellaError, match="no such key file"):
        load_key(tmp_path / "other.txt", make=False)
