"""A CSV of boxes around lesions: one row a box."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from lamella.errors import DatasetError
from lamella.formats.tables import read_csv

Box = tuple[float, float, float, float, str]

_IMAGE = ("id", "item_id", "image_id", "image", "image_path", "path", "file", "filename")
_CLASS = ("class", "label", "class_name", "finding")
_CORNERS = (("x0", "y0", "x1", "y1"), ("x_min", "y_min", "x_max", "y_max"), ("xmin", "ymin", "xmax", "ymax"))
_SIZES = (("x", "y", "w", "h"), ("x", "y", "width", "height"))


def read_boxes(path: Path) -> tuple[dict[str, tuple[Box, ...]], list[str]]:
    """What the image column says -> (x0, y0, x1, y1, class) in pixels, and what is wrong with single rows.

    Raises:
        DatasetError: A column is absent.
    """
    rows = read_csv(path)
    if not rows:
        raise DatasetError(path, "it names no box", "Leave it out, or add rows.")
    header = {column.lower(): column for column in rows[0]}
    image, class_name = _column(path, header, _IMAGE), _column(path, header, _CLASS)
    edges = next((edges for edges in (*_CORNERS, *_SIZES) if all(edge in header for edge in edges)), None)
    if edges is None:
        raise DatasetError(path, "it has no columns x0, y0, x1, y1", f"It has: {', '.join(rows[0])}.")
    boxes: dict[str, list[Box]] = defaultdict(list)
    problems = []
    for line, row in enumerate(rows, start=2):
        box, problem = box_of([row[header[edge]] for edge in edges], row[class_name], sizes=edges in _SIZES)
        if box is None:
            problems.append(f"{path.name}, line {line}: {problem}")
        else:
            boxes[row[image]].append(box)
    return {key: tuple(of_image) for key, of_image in boxes.items()}, problems


def box_of(cells: list[str], class_name: str, *, sizes: bool) -> tuple[Box | None, str]:
    """One box from its four cells, or what is wrong with them.

    Args:
        cells: x0, y0, x1, y1; or x, y, width, height.
        class_name: What it surrounds.
        sizes: Whether the last two cells are width and height.
    """
    try:
        x0, y0, x1, y1 = (float(cell) for cell in cells)
    except ValueError:
        return None, f"{', '.join(cells)} are not four numbers"
    if sizes:
        x1, y1 = x0 + x1, y0 + y1
    if not (0 <= x0 < x1 < float("inf") and 0 <= y0 < y1 < float("inf")):
        return None, f"the box {', '.join(cells)} is empty or begins outside its image"
    return ((x0, y0, x1, y1, class_name), "") if class_name else (None, "the class of a box is empty")


def _column(path: Path, header: dict[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in header:
            return header[name]
    raise DatasetError(path, f"it has none of the columns {', '.join(names)}", f"It has: {', '.join(header.values())}.")
