"""What tests of the slide page share: waiting until it is drawn, and the colour that stands at a place."""

from __future__ import annotations

import io

from PIL import Image
from tests.ui.conftest import until

_ITEMS = "Array.from({length: lamella.viewer.world.getItemCount()}, (_, n) => lamella.viewer.world.getItemAt(n))"
DRAWN = f"globalThis.lamella?.viewer.world.getItemCount() && {_ITEMS}.every((item) => item.getFullyLoaded())"


def open_slide_page(page, address: str, slide: str = "a", view: str = "") -> None:
    """Open a slide's page and wait until its tiles are drawn; `view` is the address's part after #."""
    page.goto(f"{address}slide/{slide}" + (f"#{view}" if view else ""))
    until(page, DRAWN)


def colour_at(page, x: float, y: float, viewer: str = "lamella.viewer") -> list[int]:
    """(r, g, b, a) on the canvas at a place in level-0 pixels."""
    return page.evaluate(
        f"""([x, y]) => {{
          const place = {viewer}.viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));
          const pen = {viewer}.drawer.canvas.getContext("2d");
          return [...pen.getImageData(place.x * devicePixelRatio, place.y * devicePixelRatio, 1, 1).data];
        }}""",
        [x, y],
    )


def near(colour: list[int], wanted: tuple[int, int, int], by: int = 8) -> bool:
    """Whether a colour is that one, but for what JPEG does to it."""
    return all(abs(one - other) <= by for one, other in zip(colour[:3], wanted, strict=True))


def on_screen(page, x: float, y: float) -> tuple[int, int, int]:
    """The colour that a person sees at a place of the first viewer, in level-0 pixels."""
    corner = page.locator("#viewer").bounding_box()
    place = page.evaluate(
        "([x, y]) => lamella.viewer.viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y))", [x, y]
    )
    clip = {"x": corner["x"] + place["x"], "y": corner["y"] + place["y"], "width": 1, "height": 1}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB").getpixel((0, 0))
