"""The pages of runs, as a browser asks for them."""

from __future__ import annotations

import html
import re

import pytest
from PIL import Image
from tests.view.server.runs.conftest import row, write_results, write_steps

from lamella.view.server.runs.run_files import list_run
from lamella.view.server.runs.run_settings import different, settings_of


def _text(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.fixture
def run_of(viewer, make_run):
    """run_of(name, **make_run's) -> (client, folder)"""

    def start(name: str = "first", **more):
        folder = make_run(name, **more)
        return viewer(folder.parent), folder

    return start


def test_a_run_shows_settings_with_origins_curves_results_and_cards(run_of) -> None:
    client, folder = run_of(steps=3)
    write_results(folder, [row("Class", "ours <i>", 0.8)], pictures=[["best.png", "Best and worst"]])
    Image.new("RGB", (4, 4)).save(folder / "best.png")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    card = "---\nlicense: x\n---\n# Model\n<script>alert(1)</script> ![a](https://host/x.png) [b](javascript:alert(1))"
    (folder / "model" / "README.md").write_text(card)
    answer = client.get("/run/first")
    assert answer.status_code == 200
    text = _text(answer.text)
    assert "optim.lr 0.001 run.yaml:3" in text
    assert "optim.betas [0.9, 0.999] default" in text
    assert "training loss" in text
    assert "ours <i>" in text
    assert "0.80 [0.70, 0.90]" in text
    assert 'alt="Best and worst"' in answer.text
    assert "<h3>Model</h3>" in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text
    assert "https://host" not in re.sub(r"\[picture not shown[^\]]*\]", "", answer.text)
    assert 'href="javascript' not in answer.text
    assert "license: x" not in answer.text
    found = _text(client.get("/run/first", params={"find": "OPTIM", "given": "on"}).text)
    assert "optim.lr" in found
    assert "optim.betas" not in found  # nobody chose it


def test_charts_are_sent_anew_only_when_the_log_has_grown(run_of) -> None:
    client, folder = run_of(steps=3)
    first = client.get("/api/runs/first/charts").json()
    assert "last 3" in first["html"]
    assert client.get("/api/runs/first/charts", params={"seen": first["version"]}).json()["html"] is None
    write_steps(folder, 4, 7, resumed=3)
    second = client.get("/api/runs/first/charts", params={"seen": first["version"]}).json()
    assert "last 7" in second["html"]
    assert second["status"].startswith("Last written 0 s ago")
    other = client.get("/api/runs/first/charts", params={"x": "images_seen", "log": "on"}).json()
    assert "data-log" in other["html"]
    assert client.get("/api/runs/first/charts", params={"smooth": "much"}).status_code == 400


def test_pictures_are_those_of_the_folder_and_nothing_else(run_of, tmp_path) -> None:
    client, folder = run_of()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere" / "b.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "evil.svg").write_text("<svg onload='alert(1)'/>")
    (folder / ".hidden").mkdir()
    Image.new("RGB", (4, 4)).save(folder / ".hidden" / "c.png")
    (folder / "overlays").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "overlays" / "own.png")
    Image.new("L", (4, 4)).save(folder / "overlays" / "labels.png")
    files = list_run(folder)
    assert list(files.pictures) == ["overlays-own.png"]
    assert files.label_maps == {"overlays": 1}
    assert any("links that lead out" in text for text in files.said)
    answer = client.get("/api/runs/first/pictures/overlays-own.png")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    for name in ("link.png", "evil.svg", "folder-b.png", "..%2f..%2fsecret.png", "%2e%2e%2fsecret.png", "config.yaml"):
        assert client.get(f"/api/runs/first/pictures/{name}").status_code == 404


def test_a_picture_that_became_a_link_out_is_not_served(run_of, tmp_path) -> None:
    client, folder = run_of()
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    assert client.get("/api/runs/first/pictures/a.png").status_code == 200
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    assert client.get("/api/runs/first/pictures/a.png").status_code == 404


def test_settings_and_results_that_are_links_out_are_not_read(run_of, tmp_path) -> None:
    client, folder = run_of()
    write_results(tmp_path, [row("Secret question", "ours", 0.8)])
    (tmp_path / "secret.yaml").write_text("password: tomato\n")
    (folder / "results.json").symlink_to(tmp_path / "results.json")
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").symlink_to(tmp_path / "secret.yaml")
    text = client.get("/run/first").text
    assert text.count("leads out of the run") == 2
    assert "Secret question" not in text
    assert "tomato" not in text


def test_damage_is_told_and_the_rest_is_shown(run_of) -> None:
    client, folder = run_of(steps=2)
    (folder / "results.json").write_text("{")
    (folder / "origins.json").unlink()
    text = _text(client.get("/run/first").text)
    assert "results.json: it cannot be read" in text
    assert "origins.json: it is not there" in text
    assert "training loss" in text


def test_the_difference_of_two_runs(viewer, make_run) -> None:
    one = make_run("one", {"optim": {"lr": 0.1}, "seed": 0, "old": 1}, steps=3)
    make_run("two", {"optim": {"lr": 0.2}, "seed": 0}, steps=5)
    client = viewer(one.parent)
    text = _text(client.get("/runs/compare?a=one&b=two").text)
    assert "2 settings differ, 1 is the same" in text
    assert "optim.lr 0.1 run.yaml:3 0.2 run.yaml:3" in text
    assert "old 1 default not there" in text
    assert "log.jsonl: loss 3 5" in text
    assert "one: loss, last 3" in text
    assert "two: loss, last 5" in text
    assert client.get("/runs/compare?a=one&b=none").status_code == 404
    assert "Show the difference" in client.get("/runs/compare").text


def test_equal_settings_do_not_differ(make_run) -> None:
    settings = settings_of(make_run("one"))
    assert different(settings, settings) == ([], 3)
    assert [setting.given for setting in settings] == [True, False, False]


def test_runs_of_deeper_folders_are_found_and_weights_are_not_walked(make_run) -> None:
    folder = make_run("one")
    for place in ("models/base/without_P1/seed0", "checkpoints/deep", "rasters.zarr"):
        (folder / place).mkdir(parents=True)
        write_steps(folder / place, 1, 1)
    assert [log.title for log in list_run(folder).logs.values()] == ["models/base/without_P1/seed0"]
