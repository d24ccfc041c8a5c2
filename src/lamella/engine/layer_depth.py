"""Layer-wise decay of the learning rate: the nearer a layer is to the input, the slower it learns.

The layer is read off the parameter's name alone. Source: BEiT (arXiv 2106.08254), as SAM 2 trains its image encoder:
embeddings are layer 0, block i is layer i + 1, whatever comes after the blocks is the last, and layer l of L has the
rate times decay ** (L - l).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

# `blocks.3`, `layer.3`, `layers.3`, `block.1.0` (stage and block of a hierarchical encoder), `stages.1.blocks.0`.
_BLOCK = re.compile(r"(?:^|\.)(?:blocks?|layers?|stages?)\.(\d+)(?:\.(?:(?:blocks?|layers?)\.)?(\d+))?(?=\.|$)")
_FIRST: tuple[int, ...] = ()


def block_of(name: str) -> tuple[int, ...] | None:
    """Where a parameter's block stands among the blocks, as numbers that sort; () before all, None after all."""
    found = _BLOCK.search(name)
    if found:
        return tuple(int(number) for number in found.groups() if number is not None)
    return _FIRST if "embed" in name else None


def layer_factors(names: Sequence[str], decay: float, under: Sequence[str]) -> dict[str, float]:
    """Multiple of the learning rate of each parameter; 1 where the decay does not apply.

    Args:
        names: Of all parameters.
        decay: Factor from one layer to the one before it, above 0 and at most 1.
        under: Patterns of the names it applies to: an encoder's, not a head's.
    """
    within = [name for name in names if decay < 1 and any(fnmatchcase(name, pattern) for pattern in under)]
    blocks = sorted({block for name in within if (block := block_of(name))})
    layer = {_FIRST: 0, None: len(blocks) + 1} | {block: number + 1 for number, block in enumerate(blocks)}
    last = len(blocks) + 1
    return dict.fromkeys(names, 1.0) | {name: decay ** (last - layer[block_of(name)]) for name in within}
