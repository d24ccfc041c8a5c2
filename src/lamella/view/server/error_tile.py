"""A tile for what cannot be read: hatched, with its reason. Plainly no tissue, never a blank that looks like glass."""

from __future__ import annotations

import io
import logging
import textwrap

from PIL import Image, ImageDraw
from starlette.requests import Request
from starlette.responses import Response

from lamella.errors import LamellaError
from lamella.view.marks import INK, font

_LOG = logging.getLogger("lamella.view")
# Amber and near-black, as on barriers: no stain and no layer's colour, and told apart by everybody.
_AMBER, _STRIPE = (255, 193, 7), (66, 58, 30)
_STRIPE_PX, _LETTERS_PX, _LINE_GAP_PX, _MARGIN_PX = 24, 12, 4, 10
_SMALLEST_WITH_TEXT_PX = 160  # below, few words would fit
_SAID_CHARACTERS = 180  # the log has all of it


def error_tile(size_px: tuple[int, int], text: str) -> bytes:
    """A PNG of diagonal stripes with a text on a plate.

    Args:
        size_px: (width, height) of the tile.
        text: Why it cannot be read; cut where it is long.
    """
    width, height = size_px
    image = Image.new("RGB", size_px, _AMBER)
    draw = ImageDraw.Draw(image)
    for start in range(-height, width, 2 * _STRIPE_PX):  # at 45 degrees, upwards to the right
        draw.polygon(
            [(start, height), (start + _STRIPE_PX, height), (start + _STRIPE_PX + height, 0), (start + height, 0)],
            fill=_STRIPE,
        )
    if min(size_px) >= _SMALLEST_WITH_TEXT_PX:
        _write(draw, size_px, text)
    file = io.BytesIO()
    image.save(file, "png", compress_level=1)
    return file.getvalue()


def error_answer(request: Request, size_px: tuple[int, int], error: Exception) -> Response:
    """Log why a tile cannot be shown, and answer with an error tile: browsers draw the picture of a failed answer, too.

    Args:
        request: For the tile.
        size_px: Of the tile.
        error: A LamellaError has a text for people; of any other the log keeps the traceback.
    """
    known = isinstance(error, LamellaError)
    _LOG.error("%s: %s", request.url.path, error, exc_info=None if known else error)
    text = error.cause if isinstance(error, LamellaError) else "the viewer failed here; see its log"
    return Response(error_tile(size_px, text), 500, {"cache-control": "no-store"}, "image/png")


def _write(draw: ImageDraw.ImageDraw, size_px: tuple[int, int], text: str) -> None:
    letters = font(_LETTERS_PX)
    across, down = (side - 4 * _MARGIN_PX for side in size_px)
    lines = textwrap.wrap(
        f"cannot be read: {text}"[:_SAID_CHARACTERS],
        int(across / letters.getlength("m")),
        max_lines=int(down / (_LETTERS_PX + _LINE_GAP_PX)),
        placeholder=" ...",
    )
    said, centre = "\n".join(lines), (size_px[0] / 2, size_px[1] / 2)
    left, top, right, bottom = draw.multiline_textbbox(centre, said, letters, "mm", _LINE_GAP_PX)
    plate = (left - _MARGIN_PX, top - _MARGIN_PX, right + _MARGIN_PX, bottom + _MARGIN_PX)
    draw.rectangle(plate, fill=(255, 255, 255), outline=INK)
    draw.multiline_text(centre, said, INK, letters, "mm", _LINE_GAP_PX)
