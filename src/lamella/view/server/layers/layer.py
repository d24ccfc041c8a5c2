"""What layers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lamella.errors import MaskMismatchError
from lamella.geometry import Box, Frame
from lamella.view.server.layers.colours import Indexed
from lamella.view.server.layers.contract import Layer, LayerInfo, Legend, Look, ObjectsInView

Making = Callable[[], Layer]
"""Opens one layer. Each is opened alone, so that a damaged file leaves the others of its folder."""


class PlainLayer:
    """A layer of tiles without objects; `paint` is what each kind adds.

    Args:
        info: What the page is told; its id is made unique for the slide afterwards.
        names: Of all channels.
    """

    frame: Frame  # level 0, set when the layer joins its slide

    def __init__(self, info: LayerInfo, names: Sequence[str] = ()) -> None:
        self.info = info
        self.names = tuple(names)

    @property
    def settled(self) -> bool:
        return True

    def legend(self, look: Look) -> Legend:
        self.channel(look)
        return self.info.legend

    def paint(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> Indexed | np.ndarray | None:
        """A tile in few colours, or as `Layer.tile` has it; None where all of it is bare. Raises as that."""
        raise NotImplementedError

    def tile(self, box_px0: Box, width_px: int, height_px: int, look: Look) -> np.ndarray:
        found = self.paint(box_px0, width_px, height_px, look)
        if found is None:
            return np.zeros((height_px, width_px, 4), np.uint8)
        return found.pixels() if isinstance(found, Indexed) else found

    def channel(self, look: Look) -> int | None:
        """The number of a look's channel; None if it names none.

        Raises:
            KeyError: There is no such channel.
        """
        if not look.channel:
            return None
        if look.channel not in self.names:
            raise KeyError(look.channel)
        return self.names.index(look.channel)

    def objects(self, box_px0: Box, limit: int) -> ObjectsInView:
        return ObjectsInView(0, ())

    def search(self, text: str, limit: int) -> Sequence[str]:
        return found_names(self.names, text, limit)


def found_names(names: Sequence[str], text: str, limit: int) -> list[str]:
    """Names that contain a text in whatever case, those that begin with it first; else in their own order."""
    wanted = text.strip().casefold()
    within = [name for name in names if wanted in name.casefold()]
    return sorted(within, key=lambda name: not name.casefold().startswith(wanted))[:limit]


def same_slide(path: object, made_for: Frame, slide: Frame) -> Frame:
    """The slide as a file saw it, whose micrometres per pixel place what is in it, if it is this slide.

    Args:
        path: For messages.
        made_for: The slide as the file states it; micrometres per pixel may have been stated otherwise then.
        slide: The slide that is shown.

    Raises:
        MaskMismatchError: It was made for another slide.
    """
    if (made_for.width_px, made_for.height_px) != (slide.width_px, slide.height_px):
        raise MaskMismatchError(
            path,
            f"it was made for a slide of {made_for.width_px} x {made_for.height_px} pixels, this one has "
            f"{slide.width_px} x {slide.height_px}",
            "Make it again of this slide, or show it over the slide that it was made for.",
        )
    return made_for
