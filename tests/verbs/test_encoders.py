from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tests.models.tiny_models import TINY, saved

from lamella.cli import main
from lamella.formats.h5 import read_features
from lamella.geometry import Box
from lamella.models.colour_statistics import ColourStatistics
from lamella.models.hub import load_encoder
from lamella.models.registry import entries
from lamella.slides.index import SlideIndex
from lamella.verbs import encoders


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """What the hub's cache holds: (hub id, file); nothing at first."""
    held: set[tuple[str, str]] = set()
    look_up = lambda hub_id, name: "/cache/file" if (hub_id, name) in held else None  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look_up)
    return held


def rows(text: str) -> dict[str, str]:
    return {line.split()[0]: line for line in text.split("\n\n")[0].splitlines()}


def test_the_table_lists_every_encoder(cache, capsys) -> None:
    assert main(["encoders"]) == 0
    out = capsys.readouterr().out
    assert set(rows(out)) == {"name", "colour-stats", *entries()}
    for part in ("timm", "2560", "256 x 1280", "14/224", "0.25, 0.5, 1, 2", "cc-by-nc-nd-4.0", "yes"):
        assert part in rows(out)["virchow2"]
    assert out.splitlines()[-1].startswith("next: lamella encoders NAME")
    width = ColourStatistics().pooled(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)).shape[1]
    assert f" {width} " in rows(out)["colour-stats"]


def test_ready_is_what_is_installed_and_cached(cache, capsys) -> None:
    known = entries()
    assert encoders.ready(known["phikon-v2"]) == "needs download"
    cache.add(("owkin/phikon-v2", "config.json"))  # of an interrupted download
    assert encoders.ready(known["phikon-v2"]) == "needs download"
    cache.add(("owkin/phikon-v2", "model.safetensors"))
    assert encoders.ready(known["phikon-v2"]) == "yes"
    assert encoders.ready(known["uni"]) == "needs lamella[timm]"
    assert encoders.ready(known["efficientnet-lite0"]) == "yes"
    assert encoders.ready(known["conch"]) == "no: authors' code"


@pytest.mark.parametrize("name", entries())
def test_every_encoder_can_be_looked_up(name: str, cache, capsys) -> None:
    assert main(["encoders", name]) == 0
    out = capsys.readouterr().out
    entry = entries()[name]
    for part in (entry.page, entry.reference, entry.licence, entry.checked, *entry.unverified):
        assert part in out
    if not entry.needs:
        assert f"lamella embed {name} INDEX -o features" in out
    if entry.gated and not entry.needs:
        assert "hf auth login" in out


def test_a_hub_id_is_a_name_and_a_misspelt_one_is_mended(cache, capsys) -> None:
    assert main(["encoders", "owkin/phikon"]) == 0
    assert capsys.readouterr().out.startswith("phikon\n")
    assert main(["encoders", "virchow-2"]) == 2
    assert "Did you mean virchow2" in capsys.readouterr().err
    assert main(["encoders", "uni", "virchow"]) == 2


def test_json_holds_every_fact(cache, capsys) -> None:
    assert main(["encoders", "--json"]) == 0
    facts = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(facts) == set(entries())
    assert facts["h0-mini"]["timm_kwargs"]["mlp_layer"] == "SwiGLUPacked"
    assert facts["h0-mini"]["unverified"]


def test_the_list_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from lamella.cli import main; main(['encoders']);"
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_embed_takes_a_name_and_the_place_of_its_weights(judged_index: Path, tmp_path: Path, monkeypatch) -> None:
    tiny = TINY["swiglu, cls and mean"]
    saved(tiny, tmp_path / "weights")
    monkeypatch.setattr("lamella.models.registry.entries", lambda: {tiny.entry.name: tiny.entry})
    spec = f"{tiny.entry.name}@{tmp_path / 'weights'}"
    settings = ["grid.min_tissue_fraction=0", "maps=false", "tile_px=64", "device=cpu"]
    assert main(["embed", spec, str(judged_index), "-o", str(tmp_path / "features"), *settings]) == 0
    read = read_features(tmp_path / "features" / "s1.h5")
    encoder = load_encoder(spec)
    assert read.features.shape == (36, 64)
    assert read.attributes["encoder"] == tiny.entry.name
    assert read.attributes["encoder_fingerprint"] == encoder.fingerprint
    with SlideIndex.load(judged_index)["s1"].open() as slide:
        x, y = read.coords_px0[20]
        pixels = torch.from_numpy(slide.read(Box(x, y, x + 64, y + 64), 0.5).pixels.copy())
    expected = encoder.pooled(pixels.permute(2, 0, 1)[None])[0].numpy()
    assert read.features[20] == pytest.approx(expected, abs=1e-4)
