from __future__ import annotations

from pathlib import Path

from lamella.formats.digests import ends_digest


def test_ends_change_the_digest_and_names_do_not(tmp_path: Path) -> None:
    one, copy, longer, other = (tmp_path / name for name in ("one", "copy", "longer", "other"))
    data = bytes(range(256)) * 1024  # 256 KiB: longer than both ends
    one.write_bytes(data)
    copy.write_bytes(data)
    longer.write_bytes(data + b"\0")
    other.write_bytes(data[:-1] + b"\1")
    assert ends_digest(one) == ends_digest(copy)
    assert len({ends_digest(path) for path in (one, longer, other)}) == 3


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    before = ends_digest(tmp_path)
    (tmp_path / "b").write_bytes(b"c")
    assert ends_digest(tmp_path) != before
