"""Pages of runs in a real browser: curves that grow, settings that are searched, two runs side by side."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from tests.ui.conftest import until
from tests.view.server.runs.conftest import AUTOMATIC, protocol, row, write_results, write_steps

from lamella.engine.rundir import claim

pytestmark = pytest.mark.ui

WIDTH = 374 - 58  # of a chart's plot, in its own units


@pytest.fixture
def runs(tmp_path):
    """Two runs of 20 steps, the first with results and a picture."""
    for name, rate in (("one", 0.1), ("two", 0.2)):
        folder = tmp_path / "runs" / name
        claim(folder, {"optim": {"lr": rate}, "seed": 0}, {"optim.lr": "run.yaml:3"}, verb="pretrain")
        write_steps(folder, 1, 20)
    folder = tmp_path / "runs" / "one"
    write_results(
        folder, [row(AUTOMATIC, "net", 0.8, protocol=protocol("automatic"))], pictures=[["best.png", "Best and worst"]]
    )
    Image.new("RGB", (8, 8), (200, 0, 0)).save(folder / "best.png")
    return tmp_path / "runs"


def test_curves_grow_while_the_run_trains(page, serve_paths, runs):
    page.goto(serve_paths(runs) + "run/one")
    loss = page.locator("figure", has_text="training loss").first
    assert "loss, last 20" in loss.inner_text()
    until(page, "document.querySelector('#status').textContent.startsWith('Last written')")
    write_steps(runs / "one", 21, 40, resumed=20)
    until(page, "document.querySelector('.chart').textContent.includes('loss, last 40')", 8)
    box = page.evaluate(
        "(() => { const b = document.querySelector('.chart .curve').getBBox(); return [b.width, b.height] })()"
    )
    assert box == pytest.approx([WIDTH, 160], abs=1)  # the straight line from corner to corner


def test_a_paused_page_stands_still(page, serve_paths, runs):
    page.goto(serve_paths(runs) + "run/one")
    page.get_by_label("live").uncheck()
    page.wait_for_timeout(300)
    write_steps(runs / "one", 21, 22, resumed=20)
    page.wait_for_timeout(2500)
    assert "last 20" in page.locator(".chart").first.inner_text()
    page.get_by_label("live").check()
    until(page, "document.querySelector('.chart').textContent.includes('last 22')", 8)


def test_axes_and_smoothing_follow_the_controls(page, serve_paths, runs):
    page.goto(serve_paths(runs) + "run/one")
    page.get_by_label("Along").select_option("images seen")
    until(page, "document.querySelector('.chart > svg').dataset.ends.startsWith('8.0 160.0')")
    page.get_by_label("logarithmic").check()
    until(page, "'log' in document.querySelector('.chart > svg').dataset")
    page.get_by_label("Smoothing").fill("5")
    page.get_by_label("Smoothing").press("Enter")
    until(page, "document.querySelector('.chart .raw')")
    page.locator(".chart > svg").first.hover(position={"x": 5, "y": 5})
    page.locator(".chart > svg").first.hover()
    assert page.locator("#reading").inner_text().startswith("at ")


def test_settings_are_searched(page, serve_paths, runs):
    page.goto(serve_paths(runs) + "run/one")
    shown = page.locator("#settings-table tbody tr:visible")
    assert shown.count() == 2
    page.get_by_label("Find").fill("OPTIM")
    page.get_by_label("Find").press("Enter")
    page.wait_for_url("**/run/one?find=OPTIM#settings")
    assert shown.all_inner_texts() == ["optim.lr\t0.1\trun.yaml:3"]
    assert page.locator("#found").inner_text() == "1 of 2 settings"
    page.get_by_label("Find").fill("")
    page.get_by_label("only what was given").check()
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**/run/one?find=&given=on#settings")
    assert shown.count() == 1


def test_results_pictures_and_the_difference_by_keys(page, serve_paths, runs):
    page.goto(serve_paths(runs) + "run/one")
    assert "0.80 [0.70, 0.90]" in page.locator(".result").inner_text()
    page.locator("#pictures").scroll_into_view_if_needed()
    until(page, "document.querySelector('#pictures img').naturalWidth === 8")
    page.get_by_label("Beside").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/compare?a=one&b=two")
    assert "1 setting differs" in page.locator("main").inner_text()
    until(page, "document.querySelector('.chart').textContent.includes('two: loss, last 20')")
    write_steps(runs / "two", 21, 30, resumed=20)
    until(page, "document.querySelector('.chart').textContent.includes('two: loss, last 30')", 8)


def test_a_hostile_name_is_text(page, serve_paths, runs):
    with (runs / "one" / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 21, "images_seen": 168, "<img src=x onerror=alert(1)>": 1.0}) + "\n")
    page.goto(serve_paths(runs) + "run/one")
    until(page, "document.querySelector('#charts').textContent.includes('<img src=x')", 8)
    assert page.locator("#charts img").count() == 0
