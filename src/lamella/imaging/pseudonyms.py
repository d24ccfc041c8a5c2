"""Names and UIDs in place of real ones: the same for the same input under one key, and nothing without the key."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from datetime import date, timedelta
from pathlib import Path

from lamella.errors import LamellaError, storage_faults

_KEY_BYTES = 32
_REGISTERED = "1.2.840.10008."  # UIDs of the standard itself: kinds of objects, encodings
_ID_DIGITS = 12  # of 16: 48 bits; among a million patients two meet with probability 0.002
# Dates move back by at least a month and at most ten years.
_SHIFT_DAYS = (31, 3652)


class Pseudonyms:
    """Derives everything from a secret key by HMAC-SHA256.

    Args:
        key: At least 16 bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("a key needs at least 16 bytes")
        self._key = key

    def uid(self, original: str) -> str:
        """A UID of the form 2.25.<number> (PS3.5, B.2); registered UIDs of the standard stay."""
        if original.startswith(_REGISTERED) or not original:
            return original
        return f"2.25.{int.from_bytes(self._digest('uid', original)[:16], 'big')}"

    def patient(self, identity: str) -> str:
        """Pseudonym of a patient."""
        return f"P-{self._digest('patient', identity).hex()[:_ID_DIGITS]}"

    def name(self, kind: str, original: str) -> str:
        """Part of a file name."""
        return self._digest(kind, original).hex()[:_ID_DIGITS]

    def days(self, identity: str) -> int:
        """By how many days a patient's dates move back."""
        low, high = _SHIFT_DAYS
        return low + int.from_bytes(self._digest("days", identity)[:8], "big") % (high - low + 1)

    def shifted(self, original: str, identity: str) -> str:
        """A date YYYYMMDD moved back; what follows it (the time of a DT) stays.

        Raises:
            ValueError: It is no date.
        """
        day = date(int(original[:4]), int(original[4:6]), int(original[6:8]))
        return f"{day - timedelta(days=self.days(identity)):%Y%m%d}" + original[8:]

    def _digest(self, kind: str, original: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{original}".encode(), hashlib.sha256).digest()


def load_key(path: Path, *, make: bool) -> bytes:
    """The key in a file, as hexadecimal digits.

    Args:
        path: The file.
        make: Draw a key and write it, readable by its owner only, where there is none.

    Raises:
        LamellaError: The file holds no key, or there is none and none may be made.
        StorageError: It cannot be written.
    """
    if not path.exists():
        if not make:
            raise LamellaError(path, "there is no such key file", "Correct the path, or leave the key out to make one.")
        key = secrets.token_bytes(_KEY_BYTES)
        with storage_faults(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "w", encoding="ascii") as file:
                file.write(key.hex() + "\n")
        return key
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError as error:
        raise LamellaError(path, "it holds no key (hexadecimal digits)", "Give the key of the earlier run.") from error
    if len(key) < 16:
        raise LamellaError(path, "its key is shorter than 16 bytes", "Give the key of the earlier run.")
    return key
