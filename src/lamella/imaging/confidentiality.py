"""What happens to each DICOM element of a file to de-identify: PS3.15's basic profile, and nothing kept by accident.

The action of every element of PS3.15, table E.1-1, comes from dicom-anonymizer, which keeps it up to date. Its code
that applies them is not used: it leaves what lies in nested sequences, draws new UIDs in each run and dates what it
should remove. Elements outside the table are kept only if they cannot hold words: numbers, code strings, registered
UIDs and the technical texts listed here. Everything else goes.
"""

from __future__ import annotations

import functools
import re
from enum import Enum

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.tag import BaseTag

EDITION = "2026c"  # of the standard that dicom-anonymizer's table is from


class Action(Enum):
    """What to do with an element."""

    KEEP = "kept"
    REMOVE = "removed"
    EMPTY = "emptied"
    DUMMY = "replaced"
    UID = "uids"
    CLEAN = "sequences"  # kept, its items gone through
    PRIVATE = "private"  # removed because private
    UNLISTED = "unlisted"  # removed because nothing says that it may stay
    INVALID = "invalid"  # removed because its value breaks the rules of its kind


# The table's columns, weaker alternatives last: where it leaves a choice, the element stays with a harmless value, so
# that files remain valid whatever their kind.
_COLUMNS = {
    "X_TAGS": Action.REMOVE,
    "Z_TAGS": Action.EMPTY,
    "X_Z_TAGS": Action.EMPTY,
    "D_TAGS": Action.DUMMY,
    "Z_D_TAGS": Action.DUMMY,
    "X_D_TAGS": Action.DUMMY,
    "X_Z_D_TAGS": Action.DUMMY,
    "U_TAGS": Action.UID,
    "X_Z_U_STAR_TAGS": Action.CLEAN,
}
# Kinds of value that cannot hold words; code strings are checked for their alphabet.
_NUMBERS = frozenset(("DS", "IS", "US", "SS", "UL", "SL", "FL", "FD", "SV", "UV", "AT", "US or SS", "US or SS or OW"))
# Words that describe machine and method, not the patient, the staff or the place.
_TECHNICAL_TEXTS = frozenset(
    (
        "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "SequenceName", "PulseSequenceName",
        "ConvolutionKernel", "FilterType", "RescaleType", "ModalityLUTType", "LUTExplanation", "CodeValue",
        "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning",
        "ReceiveCoilName", "TransmitCoilName", "ImagedNucleus", "Radionuclide", "Radiopharmaceutical",
        "RadiopharmaceuticalRoute", "ContrastBolusRoute", "AcquisitionMode", "CollimatorGridName",
        "AttenuationCorrectionMethod", "ReconstructionMethod", "ScatterCorrectionMethod", "EnergyWindowName",
        "ProcessingFunction", "DetectorMode", "StackID", "SegmentLabel", "SegmentAlgorithmName", "AlgorithmName",
        "AlgorithmVersion", "DimensionDescriptionLabel", "StageName", "ViewName", "OutputPower",
        "PositionReferenceIndicator",
    )
)  # fmt: skip
# Bytes that are pixels, or tables that pixels go through.
_PIXEL_BYTES = frozenset(
    (
        "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
        "LUTData", "ICCProfile", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData", "AlphaPaletteColorLookupTableData",
        "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
        "SegmentedBluePaletteColorLookupTableData", "SegmentedAlphaPaletteColorLookupTableData",
    )
)  # fmt: skip
# UIDs that name kinds of objects, also those of a maker's own; all others name one object, person or machine.
_CLASS_UIDS = frozenset(("SOPClassUID", "ReferencedSOPClassUID", "RelatedGeneralSOPClassUID"))
DATES = frozenset(("DA", "DT", "TM"))
# Dates of the person, never kept by moving them: a shifted birth date still tells the age to the day.
PERSONAL_DATES = frozenset(("PatientBirthDate", "PatientBirthTime", "PatientDeathDateInAlternativeCalendar"))
_UID = re.compile(r"[0-9.]{1,64}")
_CODE_STRING = re.compile(r"[A-Z0-9 _]{0,16}")
# Groups of graphics over the pixels, whole: curves and overlays hold drawings, names and hand-written notes.
_DRAWINGS = (0x5000, 0x6000)


def action_of(tag: BaseTag, vr: str) -> Action:
    """What the profile says of an element of this tag and kind."""
    if tag.is_private or tag.group % 2:
        return Action.PRIVATE
    if tag.group & 0xFF00 in _DRAWINGS:
        return Action.REMOVE
    listed = _table().get((tag.group, tag.element))
    if listed is not None:
        return listed
    if tag.element == 0:  # the length of a group, true no longer
        return Action.REMOVE
    if not dictionary_has_tag(tag):
        return Action.UNLISTED
    keyword = keyword_for_tag(tag)
    if vr == "SQ":
        return Action.CLEAN
    if vr == "UI":
        return Action.KEEP if keyword in _CLASS_UIDS else Action.UID
    allowed = vr in _NUMBERS or vr == "CS" or keyword in _TECHNICAL_TEXTS or keyword in _PIXEL_BYTES
    return Action.KEEP if allowed else Action.UNLISTED


def is_code_string(value: str) -> bool:
    """Whether a value of kind CS is one: capitals, digits, blanks and underscores, 16 at most."""
    return _CODE_STRING.fullmatch(value) is not None


def is_uid(value: str) -> bool:
    """Whether a value of kind UI is one."""
    return _UID.fullmatch(value) is not None


def is_technical_text(keyword: str) -> bool:
    """Whether the element is one of the words about machine and method that are kept."""
    return keyword in _TECHNICAL_TEXTS


@functools.cache
def _table() -> dict[tuple[int, int], Action]:
    """(group, element) -> action, of the table's single elements; its repeating groups are `_DRAWINGS`."""
    columns = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    return {tuple(tag): action for name, action in _COLUMNS.items() for tag in columns[name] if len(tag) == 2}
