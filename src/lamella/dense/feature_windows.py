"""Which level of a backbone makes tokens of a given size, and the windows of a slide that it is shown for them.

Tokens are numbered from the slide's top left corner; token (0, 0) covers the first `token_um` of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lamella.errors import LamellaError
from lamella.geometry import Box, Frame
from lamella.models.pretrained import PretrainedEncoder
from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.token_places import token_shifts_px
from lamella.models.registry import USUAL_MPP
from lamella.slides.tissue_map import TissueMap

# Least and largest side of a window of networks that take any size: of maps at half the larger one, 96 channels of 4
# bytes are 157 MB.
_WINDOW_PX, _LARGEST_PX = 768, 1280
# Tokens that a window sees around those that are kept. EfficientNet's are the same then as of the whole slide at once
# at strides 4 and 8, and 99 of 100 within 1 % of their deviation at stride 16 and 7 % at 32 (with 4: 16 % and 80 %).
_HALO_TOKENS = 8
# A window has so many times its halo where it may, or most of what is computed would be thrown away.
_HALOS = 8
# Of the tokens along a transformer's window: it looks at all of its window, and those at the rim have half a view.
_HALO_SHARE = 1 / 8
# As when slides are read: spacings within 5 % are the same.
_SAME_MPP = 0.05
# Shares of tissue below this are rounding.
_NO_TISSUE = 1e-9
# Of a token: so much of it may lie over the slide's edge. Lengths in level-0 pixels are not whole tokens.
_OVER_EDGE = 0.05
# Of a length in tokens: a slide of a whole number of tokens has no further one by rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class ViewLevel:
    """How tokens of a size are made.

    Attributes:
        token_um: Their side.
        level: Of the backbone, finest first.
        stride: Pixels per token there.
        mpp: Micrometres per pixel at which the backbone is shown the slide: token_um / stride.
        shift_px: How far a token's middle lies right of and below the middle of its square.
        width: Of a token.
    """

    token_um: float
    level: int
    stride: float
    mpp: float
    shift_px: float
    width: int

    @property
    def shift_um(self) -> float:
        return self.shift_px * self.mpp


def own_mpp(backbone: Backbone) -> float:
    """Micrometres per pixel that a backbone is best shown: its encoder's own, else what most studies show."""
    contract = backbone.encoder.contract if isinstance(backbone, EncoderGrid) else None
    return contract.mpp if contract is not None and contract.mpp else USUAL_MPP


def level_for(
    backbone: Backbone, token_um: float, slide_mpp: float, mpp: float | None = None, *, trained: bool = True
) -> ViewLevel:
    """The level that makes tokens of `token_um`.

    A level of stride s needs the slide at token_um / s. That which is nearest (as a ratio) to the backbone's own
    spacing is taken, or to the slide's where the slide is coarser: pixels blown up show nothing new.

    Args:
        backbone: With its strides.
        token_um: Side of a token.
        slide_mpp: Of the coarsest slide of the study: all slides are to have features of the same level.
        mpp: The spacing to show it at; a level must make these tokens of it.
        trained: The backbone's weights are not random; see `token_shifts_px`.

    Raises:
        LamellaError: `mpp` is given and no level does.
    """
    mpps = [token_um / stride for stride in backbone.strides]
    aim = mpp if mpp is not None else max(own_mpp(backbone), slide_mpp)
    level = min(range(len(mpps)), key=lambda number: abs(math.log(mpps[number] / aim)))
    if mpp is not None and abs(mpps[level] / mpp - 1) > _SAME_MPP:
        offered = ", ".join(
            f"{each:g} (stride {stride:g})" for each, stride in zip(mpps, backbone.strides, strict=True)
        )
        raise LamellaError(
            f"a view of {token_um:g} um tokens at {mpp:g} um per pixel",
            f"{backbone.kind} makes such tokens of pixels of {offered} um",
            "Set the view's mpp to one of these, or to null.",
        )
    stride, shift_px = backbone.strides[level], token_shifts_px(backbone, trained=trained)[level]
    return ViewLevel(token_um, level, stride, token_um / stride, shift_px, backbone.widths[level])


@dataclass(frozen=True)
class Windows:
    """A raster of tokens over a slide, and the windows that it is made of.

    Attributes:
        frame: Level 0 of the slide.
        level: How the tokens are made.
        rows: Of tokens.
        columns: Of tokens.
        core: Tokens along a window's side that are kept.
        halo: Tokens on each of its sides that are not.
    """

    frame: Frame
    level: ViewLevel
    rows: int
    columns: int
    core: int
    halo: int

    @classmethod
    def over(cls, frame: Frame, backbone: Backbone, level: ViewLevel) -> Windows:
        """All windows of a slide."""
        width_um, height_um = frame.size_um
        columns = max(1, math.ceil(width_um / level.token_um - _ROUNDING))
        rows = max(1, math.ceil(height_um / level.token_um - _ROUNDING))
        core, halo = _sizes(backbone, level.stride, max(rows, columns))
        return cls(frame, level, rows, columns, core, halo)

    @property
    def side_px(self) -> int:
        """Of a window, as it is shown."""
        return round((self.core + 2 * self.halo) * self.level.stride)

    @property
    def first_px0(self) -> tuple[float, float]:
        """(x, y) of the middle of the raster's first token."""
        at_um = 0.5 * self.level.token_um + self.level.shift_um
        return at_um / self.frame.mpp_x, at_um / self.frame.mpp_y

    @property
    def step_px0(self) -> tuple[float, float]:
        return self.level.token_um / self.frame.mpp_x, self.level.token_um / self.frame.mpp_y

    def kept(self, tissue: TissueMap, margin_um: float) -> np.ndarray:
        """(R, K) bool: windows with tissue in their core or within `margin_um` of it."""
        y0_um, x0_um = (
            np.arange(0, count, self.core) * self.level.token_um - margin_um for count in (self.rows, self.columns)
        )
        side_um = self.core * self.level.token_um + 2 * margin_um
        return tissue.grid_fractions(x0_um, y0_um, side_um, side_um) > _NO_TISSUE

    def box_px0(self, row: int, column: int) -> Box:
        """What is read for a window, in level-0 pixels; it may reach over the slide's edges."""
        x0_um, y0_um = ((number * self.core - self.halo) * self.level.token_um for number in (column, row))
        side_um = (self.core + 2 * self.halo) * self.level.token_um
        box_um = Box(x0_um, y0_um, x0_um + side_um, y0_um + side_um)
        return self.frame.box_px(box_um)

    def tokens(self, row: int, column: int) -> tuple[slice, slice]:
        """The rows and columns of the raster that a window's core fills."""
        y, x = row * self.core, column * self.core
        return slice(y, min(y + self.core, self.rows)), slice(x, min(x + self.core, self.columns))

    def tissue_shares(self, tissue: TissueMap, row: int, column: int) -> np.ndarray:
        """Share of tissue of each token that a window fills."""
        rows, columns = (self._edges_um(part) for part in self.tokens(row, column))
        return tissue.grid_fractions(columns, rows, self.level.token_um, self.level.token_um)

    def inside(self, row: int, column: int) -> np.ndarray:
        """Which tokens that a window fills lie wholly on the slide: the others have seen glass that is not there."""
        slack_um = _OVER_EDGE * self.level.token_um
        on = []
        for part, length_um in zip(self.tokens(row, column), reversed(self.frame.size_um), strict=True):
            edge_um = self._edges_um(part)
            on.append((edge_um >= -slack_um) & (edge_um + self.level.token_um <= length_um + slack_um))
        return on[0][:, None] & on[1][None, :]

    def _edges_um(self, part: slice) -> np.ndarray:
        """Left or upper edges of what tokens look at, by their number in the raster."""
        return np.arange(part.start, part.stop) * self.level.token_um + self.level.shift_um


def _sizes(backbone: Backbone, stride: float, tokens: int) -> tuple[int, int]:
    """Tokens of a window's core and of its halo.

    A core is a whole number of the steps that the backbone needs, so that all windows divide the slide alike; it is no
    larger than the raster.
    """
    step = math.ceil(backbone.multiple_px / stride)
    if _is_transformer(backbone):
        assert isinstance(backbone, EncoderGrid)
        side = max(3, round(backbone.encoder.contract.size_px / stride))
        halo = max(1, round(side * _HALO_SHARE))
        core = side - 2 * halo
    else:
        halo = math.ceil(_HALO_TOKENS / step) * step
        side = min(max(_WINDOW_PX / stride, _HALOS * halo), _LARGEST_PX / stride)
        core = max(step, round((side - 2 * halo) / step) * step)
    return min(core, math.ceil(tokens / step) * step), halo


def _is_transformer(backbone: Backbone) -> bool:
    """Whether it looks at its whole window at once, and is at its best at the size that it was trained with."""
    if not isinstance(backbone, EncoderGrid):
        return False
    encoder = backbone.encoder
    return not isinstance(encoder, PretrainedEncoder) or encoder.entry.prefix_tokens > 0
