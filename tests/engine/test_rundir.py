from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lamella.engine.rundir import claim, settings_hash
from lamella.errors import OutputConflictError

TREE: dict[str, Any] = {"optim": {"lr": 2e-4, "betas": [0.9, 0.999]}, "data": {"workers": 2}, "seed": 0}
ORIGINS = {"optim.lr": "run.yaml:3", "optim.betas": "default", "data.workers": "default", "seed": "default"}


def changed(**leaves: Any) -> dict[str, Any]:
    tree = json.loads(json.dumps(TREE))
    for key, value in leaves.items():
        *blocks, leaf = key.split("__")
        block = tree
        for name in blocks:
            block = block[name]
        block[leaf] = value
    return tree


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_fresh_folder_gets_the_settings_and_their_origins(tmp_path: Path) -> None:
    taken = claim(tmp_path / "runs" / "a", TREE, ORIGINS, verb="pretrain")
    assert not taken.resumed
    assert yaml.safe_load((taken.folder / "config.yaml").read_text()) == TREE
    assert json.loads((taken.folder / "origins.json").read_text()) == ORIGINS
    run = json.loads((taken.folder / "run.json").read_text())
    assert (run["verb"], run["settings_hash"]) == ("pretrain", taken.settings_hash)


def test_an_identical_rerun_resumes_and_rewrites_nothing(tmp_path: Path) -> None:
    first = claim(tmp_path, TREE, ORIGINS, verb="pretrain")
    before = stamps(tmp_path)
    again = claim(tmp_path, changed(optim__betas=(0.9, 0.999)), {}, verb="pretrain")
    assert again.resumed
    assert again.settings_hash == first.settings_hash
    assert stamps(tmp_path) == before


def test_other_settings_are_refused_with_old_and_new_value(tmp_path: Path) -> None:
    claim(tmp_path, TREE, ORIGINS, verb="pretrain")
    before = stamps(tmp_path)
    tree = changed(optim__lr=1e-4, seed=5)
    del tree["data"]["workers"]
    with pytest.raises(OutputConflictError) as caught:
        claim(tmp_path, tree, ORIGINS, verb="pretrain")
    message = str(caught.value)
    assert "optim.lr: 0.0002 there, 0.0001 now" in message
    assert "seed: 0 there, 5 now" in message
    assert "data.workers: 2 there, absent now" in message
    assert "betas" not in message
    assert "-o" in caught.value.remedy
    assert stamps(tmp_path) == before


def test_keys_that_do_not_change_results_may_differ(tmp_path: Path) -> None:
    first = claim(tmp_path, TREE, ORIGINS, verb="pretrain", ignore=["data.workers"])
    again = claim(tmp_path, changed(data__workers=8), ORIGINS, verb="pretrain", ignore=["data.workers"])
    assert again.resumed
    assert again.settings_hash == first.settings_hash
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["data"]["workers"] == 8
    assert claim(tmp_path, changed(data__workers=1), ORIGINS, verb="pretrain", ignore=["data"]).resumed


def test_other_inputs_are_other_results(tmp_path: Path) -> None:
    claim(tmp_path, TREE, ORIGINS, verb="embed", inputs={"anchors": "aaaa"})
    assert claim(tmp_path, TREE, ORIGINS, verb="embed", inputs={"anchors": "aaaa"}).resumed
    with pytest.raises(OutputConflictError, match=r'inputs\.anchors: "aaaa" there, "bbbb" now'):
        claim(tmp_path, TREE, ORIGINS, verb="embed", inputs={"anchors": "bbbb"})


def test_the_output_of_another_verb_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, TREE, ORIGINS, verb="index")
    with pytest.raises(OutputConflictError, match="holds the output of `lamella index`"):
        claim(tmp_path, TREE, ORIGINS, verb="anchors")


def test_a_folder_with_foreign_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputConflictError, match=r"no Lamella run wrote it \(it holds thesis.tex\)"):
        claim(tmp_path, TREE, ORIGINS, verb="pretrain")
    assert stamps(tmp_path).keys() == {"thesis.tex"}


def test_an_empty_folder_and_one_whose_claim_was_cut_short_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "origins.json").write_text("{}")
    (tmp_path / "cut" / ".config.123.part.yaml").write_text("opt")
    assert not claim(tmp_path / "empty", TREE, ORIGINS, verb="pretrain").resumed
    assert not claim(tmp_path / "cut", TREE, ORIGINS, verb="pretrain").resumed


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputConflictError, match="it is a file"):
        claim(tmp_path / "out", TREE, ORIGINS, verb="pretrain")


@pytest.mark.parametrize(
    ("name", "content"), [("config.yaml", "a: [1"), ("config.yaml", "7"), ("run.json", "{"), ("run.json", None)]
)
def test_a_damaged_claim_is_refused(tmp_path: Path, name: str, content: str | None) -> None:
    claim(tmp_path, TREE, ORIGINS, verb="pretrain")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(OutputConflictError, match=r"config\.yaml or run\.json"):
        claim(tmp_path, TREE, ORIGINS, verb="pretrain")


def test_many_differences_are_counted_not_listed(tmp_path: Path) -> None:
    claim(tmp_path, {f"key{n}": 0 for n in range(30)}, {}, verb="pretrain")
    with pytest.raises(OutputConflictError, match="and 18 more"):
        claim(tmp_path, {f"key{n}": 1 for n in range(30)}, {}, verb="pretrain")


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert settings_hash({"a": 1, "b": {"c": 2, "d": 3}}) == settings_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})


def test_claiming_needs_no_torch() -> None:
    code = "import sys, lamella.engine.rundir; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
