"""The table of encoders keeps its own rules; its facts are checked against files when an encoder is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lamella.models.registry import EncoderEntry, entries, find_entry, near_names

EVERY = pytest.mark.parametrize("entry", entries().values(), ids=entries())


@EVERY
def test_the_facts_of_an_entry_agree_with_each_other(entry: EncoderEntry) -> None:
    widths = {"cls": entry.token_dim, "mean": entry.token_dim, "cls+mean": 2 * entry.token_dim}
    assert entry.dim == widths.get(entry.pooling, entry.dim)
    assert entry.size_px % entry.patch_px == 0
    assert (entry.prefix_tokens > 0) == (entry.architecture not in ("ResNetModel", "efficientnet-lite0"))
    assert all(0.2 < value < 0.8 for value in entry.mean)
    assert all(0.1 < value < 0.6 for value in entry.std)
    assert all(0.1 < mpp <= 2 for mpp in entry.mpp)
    assert entry.shown_mpp == 0.5
    assert entry.name == entry.name.lower()
    assert "@" not in entry.name
    assert "/" not in entry.name
    assert entry.licence
    assert entry.checked
    assert entry.reference.startswith("https://")
    assert bool(entry.needs) == (entry.source == "authors")
    assert bool(entry.timm_kwargs) == (entry.source == "timm")
    assert entry.hub_id.count("/") == (0 if entry.source == "wheel" else 1)


def test_widths_that_others_get_wrong() -> None:
    # Published numbers: class and mean patch token side by side; registers that must not reach the mean.
    known = entries()
    assert {name: (known[name].dim, known[name].token_dim, known[name].prefix_tokens) for name in (
        "virchow", "virchow2", "uni2-h", "h-optimus-1", "h0-mini", "midnight-12k", "prov-gigapath", "phikon-v2", "plip"
    )} == {
        "virchow": (2560, 1280, 1),
        "virchow2": (2560, 1280, 5),
        "uni2-h": (1536, 1536, 9),
        "h-optimus-1": (1536, 1536, 5),
        "h0-mini": (1536, 768, 5),
        "midnight-12k": (3072, 1536, 1),
        "prov-gigapath": (1536, 1536, 1),
        "phikon-v2": (1024, 1024, 1),
        "plip": (512, 768, 1),
    }  # fmt: skip


def test_names_and_hub_ids_are_found_in_any_case() -> None:
    assert find_entry("uni2-h") == entries()["uni2-h"]
    assert find_entry("paige-ai/virchow2") == entries()["virchow2"]
    assert find_entry("owkin/phikon-v2") == entries()["phikon-v2"]
    assert find_entry("") is None
    assert find_entry("lab/encoder") is None


@pytest.mark.parametrize(
    ("asked", "first"),
    [("phikonv2", "phikon-v2"), ("UNI2", "uni2-h"), ("hoptimus1", "h-optimus-1"), ("dinov2_base", "dinov2-base")],
)
def test_near_names_are_proposed(asked: str, first: str) -> None:
    assert near_names(asked)[0] == first
    assert near_names("zzz") == []


def test_reading_the_table_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lamella.models.registry import entries; entries();"
        "heavy = {'torch', 'transformers', 'timm', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_frozen_encoders_of_the_expression_source_are_what_they_are() -> None:
    """Width of their tokens, tokens before them that are no place, and whether their page asks for agreement.

    mistake: a wrong encoder behind a name. Where the source wants CONCH v1.5's 768 numbers, those are its pooled
    feature, and Lamella has no code for it: it is refused, never replaced.
    """
    stated = {
        "prov-gigapath": (1536, 1, True),
        "virchow2": (1280, 5, True),
        "uni2-h": (1536, 9, True),
        "h-optimus-1": (1536, 5, True),
        "resnet-50": (2048, 0, False),
    }
    known = entries()
    found = {name: (known[name].token_dim, known[name].prefix_tokens, known[name].gated) for name in stated}
    assert found == stated
    assert (known["conch-v1.5"].dim, bool(known["conch-v1.5"].needs)) == (768, True)
    assert all(known[name].licence for name in stated)
