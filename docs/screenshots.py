"""Pictures of the viewer's pages for this documentation, made by a browser from free data.

    python docs/screenshots.py CMU-1-Small-Region.svs [PATH ...] [--weights sam2-hiera-tiny@FILE]

CMU-1-Small-Region.svs is OpenSlide's test slide (CC0). Each further PATH is shown beside it: a prediction of its
expression, runs. The volume, the film and two segmentations are generated here. Whatever else is given ends up in the
pictures: give nothing that must not be published. Needs Chromium and the extras `view` and `test`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.ui.conftest import CHROMIUM, QUIET, until  # noqa: E402

from lamella import cli  # noqa: E402
from lamella.formats.atomic import write_json  # noqa: E402
from lamella.formats.ome_zarr import LabelStore  # noqa: E402
from lamella.geometry import Box  # noqa: E402
from lamella.slides.slide import open_slide  # noqa: E402

WIDTH, HEIGHT = 1280, 800
COLOURS = 256  # of a PNG: half of the bytes, and hardly a difference to the eye
PARTS = ["background", "nuclei", "tissue"]
# Modified Shepp-Logan phantom (Toft, 1996), in three dimensions: value, centre, half axes; of a unit ball.
ELLIPSOIDS = [
    (1.0, (0, 0, 0), (0.69, 0.92, 0.81)),
    (-0.8, (0, -0.0184, 0), (0.6624, 0.874, 0.78)),
    (-0.2, (0.22, 0, 0), (0.11, 0.31, 0.22)),
    (-0.2, (-0.22, 0, 0), (0.16, 0.41, 0.28)),
    (0.1, (0, 0.35, -0.15), (0.21, 0.25, 0.41)),
    (0.1, (0, 0.1, 0.25), (0.046, 0.046, 0.05)),
    (0.1, (-0.08, -0.605, 0), (0.046, 0.023, 0.05)),
    (0.1, (0.06, -0.605, 0), (0.023, 0.046, 0.02)),
]
# Places on CMU-1-Small-Region, in its pixels.
EPIDERMIS = [(790, 2330), (805, 2075), (900, 1930), (935, 2100), (890, 2260), (830, 2390)]
HAIR = (1185, 1935, 1370, 2215)
HAIR_IN_VIEW = "#1080,2120,0.45"  # x, y and um per screen pixel
LESION = ((0.3, -0.35, 0.2), (0.17, 0.13, 0.15))


def main() -> None:
    """Make all pictures."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("slide", type=Path)
    asked.add_argument("paths", type=Path, nargs="*")
    asked.add_argument("--weights", default="", help="a promptable model, for the picture of a prompt")
    asked.add_argument("-o", "--out", type=Path, default=ROOT / "docs" / "img")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) / "study"
        prepare(work, given.slide)
        model = [f"model={given.weights}"] if given.weights else []
        with served([work, *given.paths], Path(scratch) / "annotations", model) as address, opened() as page:
            take(page, address, given.slide.stem, given.out, bool(model))
            export(page, [work / "slides", work / "darkest_quarter", *given.paths], Path(scratch) / "site", given)


def prepare(work: Path, slide: Path) -> None:
    """Everything that is shown beside what was given."""
    (work / "slides").mkdir(parents=True)
    shutil.copy(slide, work / "slides")
    (work / "slides" / "broken.svs").write_bytes(slide.read_bytes()[:5000])
    cli.main(["index", str(work / "slides"), "-o", str(work / "index")])  # 1: the broken one fails
    for command in (
        ["anchors", str(work / "index"), "-o", str(work / "anchors")],
        ["embed", "colour-stats", str(work / "index"), "-o", str(work / "features"), "mpp=0.5", "tile_px=32"],
    ):
        if cli.main(command):
            raise SystemExit(f"lamella {' '.join(command)} failed")
    for name, share in (("darkest_quarter", 25), ("darkest_half", 50)):
        segment(work / name / slide.stem, slide, share)
    head(work / "scans")


def segment(folder: Path, slide: Path, share: float) -> None:
    """A plain segmentation by darkness, to have two that differ."""
    folder.mkdir(parents=True)
    with open_slide(slide) as opened_slide:
        frame, mpp = opened_slide.frame, 2.0
        pixels = opened_slide.read(Box(0, 0, frame.width_px, frame.height_px), mpp).pixels.astype(float).mean(axis=2)
    tissue = pixels < 225
    labels = np.where(pixels < np.percentile(pixels[tissue], share), 1, 2).astype(np.uint8)
    labels[~tissue] = 0
    store = LabelStore(folder / "labels.zarr", PARTS, *labels.shape, mpp)
    store.write(0, labels)
    store.finish()
    write_json(
        folder / "prediction.json",
        {
            "slide": slide.name,
            "slide_px0": [frame.width_px, frame.height_px],
            "slide_mpp": [frame.mpp_x, frame.mpp_y],
            "model": f"the darkest {share} of 100 pixels",
            "background": "background",
            "mpp": mpp,
        },
    )


def head(folder: Path) -> None:
    """A phantom of a head with a lesion and its mask, and a film of it growing."""
    folder.mkdir()
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in (180, 220, 60)), indexing="ij")

    def inside(centre: tuple[float, float, float], half: tuple[float, float, float]) -> np.ndarray:
        return sum(((axis - at) / side) ** 2 for axis, at, side in zip((x, y, z), centre, half, strict=True)) < 1

    values = np.zeros(x.shape, np.float32)
    for value, centre, half in ELLIPSOIDS:
        values[inside(centre, half)] += value
    lesion = inside(*LESION)
    values[lesion] = 0.55
    values += np.random.default_rng(0).normal(0, 0.015, values.shape)
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = -90, -110, -90
    nibabel.save(nibabel.Nifti1Image((1000 * values).astype(np.float32), affine), folder / "phantom_t1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(lesion.astype(np.uint8), affine), folder / "phantom_mask.nii.gz")
    slices = [Image.fromarray((200 * values[:, ::-1, at].T.clip(0, 1.2)).astype(np.uint8)) for at in range(10, 50)]
    slices[0].save(folder / "slices.gif", save_all=True, append_images=slices[1:], duration=80)


@contextmanager
def served(paths: list[Path], annotations: Path, settings: list[str]) -> Iterator[str]:
    """The address of `lamella view`."""
    command = [sys.executable, "-m", "lamella.cli", "view", *map(str, paths), "-o", str(annotations), "port=0"]
    process = subprocess.Popen([*command, "author=pathologist", *settings], stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            if found := re.match(r"open\s+(http\S+)", line):
                yield found[1]
                return
        raise SystemExit("lamella view did not start")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def opened() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        browser.close()


def picture(page: Page, path: Path) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)  # tiles fade in
    page.screenshot(path=path)
    shown = Image.open(path).convert("RGB")
    shown.quantize(palette=shown.quantize(COLOURS), dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    print(path)


def export(page: Page, paths: list[Path], site: Path, given: argparse.Namespace) -> None:
    """The page of a slide that needs no server."""
    if cli.main(["view", *map(str, paths), "--export", str(site), f"export.slides=[{given.slide.stem}]"]):
        raise SystemExit("lamella view --export failed")
    page.emulate_media(color_scheme="light")
    page.goto((site / f"{given.slide.stem}.html").as_uri())
    picture(page, given.out / "view_export.png")


def take(page: Page, address: str, slide: str, out: Path, prompts: bool) -> None:
    """Every page, in the state that shows most."""

    def shoot(name: str) -> None:
        picture(page, out / f"view_{name}.png")

    def go(place: str, dark: bool = False) -> None:
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.goto("about:blank")  # else a place after # would leave the page as it is
        page.goto(address + place)
        if place.startswith("slide/"):
            until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded()")
            until(page, "globalThis.lamella.annotations")

    go("")
    shoot("gallery")
    runs = [a.get_attribute("href").lstrip("./") for a in page.locator("li", has_text="pretrain").locator("a").all()]
    go(f"slide/{slide}")
    genes = page.locator("form.layer", has_text="predicted genes")
    if genes.count():
        genes.locator("input.shown").check()
        genes.locator("select[name=channel], input.find").first.press("ArrowDown")
        genes.scroll_into_view_if_needed()
        shoot("slide")
    go(f"slide/{slide}", dark=True)
    page.locator("form.layer[data-layer^='darkest_quarter'] input.shown").check()
    page.get_by_role("radio", name="Swipe").check()
    page.locator("select[name=right]").select_option(label="darkest_half: classes")
    shoot("compare")
    go(f"slide/{slide}{HAIR_IN_VIEW}")
    draw(page)
    if prompts:
        prompt(page)
    shoot("annotate")
    if runs:
        go(runs[0])
        shoot("run")
    if len(runs) > 1:
        go("runs/compare?a={}&b={}".format(*(run.partition("/")[2] for run in runs)))
        shoot("runs")
    go("log")
    shoot("log")
    go("scan/phantom_t1", dark=True)
    shoot("scan")
    go("scan/slices")
    page.get_by_label("Frame").fill("20")
    shoot("film")


def screen(page: Page, x_px0: float, y_px0: float) -> tuple[float, float]:
    """Where a place of the slide is on the screen."""
    box = page.locator("#viewer").bounding_box()
    x, y = page.evaluate(
        f"(({{x, y}}) => [x, y])(lamella.viewer.viewport.imageToViewerElementCoordinates("
        f"new OpenSeadragon.Point({x_px0}, {y_px0})))"
    )
    return box["x"] + x, box["y"] + y


def draw(page: Page) -> None:
    """An outline of epidermis, corner by corner."""
    page.get_by_label("New class").fill("Epidermis")
    page.get_by_role("button", name="Add class").click()
    page.get_by_role("button", name="Outline").click()
    for corner in EPIDERMIS:
        page.mouse.click(*screen(page, *corner), delay=30)
        page.wait_for_timeout(400)  # two clicks in a row would be a double click
    page.mouse.click(*screen(page, *EPIDERMIS[0]), delay=30)
    until(page, "document.querySelector('[data-part=drawn]').options.length === 1")
    until(page, "/^Saved as version [1-9]/.test(document.querySelector('[data-part=saved]').textContent)")


def prompt(page: Page) -> None:
    """A box for the promptable model around a hair."""
    page.get_by_role("button", name="Point at an object").click()
    x0, y0, x1, y1 = HAIR
    page.mouse.move(*screen(page, x0, y0))
    page.mouse.down()
    page.mouse.move(*screen(page, (x0 + x1) / 2, (y0 + y1) / 2))
    page.mouse.move(*screen(page, x1, y1))
    page.mouse.up()
    until(page, "!document.querySelector('[data-part=accept]').disabled", 120)


if __name__ == "__main__":
    main()
