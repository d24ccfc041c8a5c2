"""Fingerprints: 16 hex digits of what decides an encoder's features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# What was hashed last, and its hash. Not on the module itself: a copy of it would carry the hash of other weights.
_KNOWN: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()


def fingerprint_of(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Hash settings and weights as float32, in one pass and without copying them whole."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(name.encode())
        values = weights[name].detach().float().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy())  # a view: hashlib reads the tensor's own memory
    return digest.hexdigest()[:16]


def module_fingerprint(module: nn.Module, settings: Mapping[str, Any]) -> str:
    """`fingerprint_of` a network, hashed again only after its weights were written to or moved.

    Embedding asks once a slide, and a giant's weights take seconds. Every write in place (an optimiser's step,
    `load_state_dict`) counts up a tensor's version.
    """
    weights = module.state_dict()
    places = [(tensor.data_ptr(), tensor._version) for tensor in weights.values()]
    state = (json.dumps(settings, sort_keys=True), places)
    known = _KNOWN.get(module)
    if known is None or known[0] != state:
        known = (state, fingerprint_of(settings, weights))
        _KNOWN[module] = known
    return known[1]
