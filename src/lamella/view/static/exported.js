// A slide from plain files, opened by a double click: no module, no fetch. The page holds all facts (export/site.py).
(() => {
  const {tiles, width, height, tile, mpp} = document.querySelector("main").dataset;
  // A layer has half the slide's pixels a side: `shrink` 2.
  function source(folder, suffix, shrink = 1) {
    const size = [width, height].map((side) => Math.ceil(side / shrink));
    return {
      width: size[0], height: size[1], tileSize: Number(tile), tileOverlap: 0, minLevel: 0,
      maxLevel: Math.ceil(Math.log2(Math.max(...size))),
      getTileUrl: (level, x, y) => `${folder}/${level}/${x}_${y}.${suffix}`,
    };
  }
  const viewer = OpenSeadragon({
    element: document.getElementById("viewer"), drawer: "canvas", tileSources: source(tiles, "jpg"),
    showNavigationControl: false, showNavigator: true, navigatorBackground: "#fff", navigatorBorderColor: "#868e96",
    navigatorDisplayRegionColor: "#0b7285", maxZoomPixelRatio: 2, gestureSettingsMouse: {clickToZoom: false},
    subPixelRoundingForTransparency: {"*": OpenSeadragon.SUBPIXEL_ROUNDING_OCCURRENCES.ALWAYS}, // no seams in layers
    silenceMultiImageWarnings: true,
  });
  globalThis.lamella = {viewer}; // for the console, and for the tests
  const {viewport} = viewer;
  for (const button of document.querySelectorAll("[data-zoom]")) {
    const by = Number(button.dataset.zoom);
    button.onclick = () => (by ? viewport.zoomBy(by) : viewport.goHome());
  }
  viewer.addOnceHandler("open", () => document.querySelectorAll("[data-layer]").forEach((field) => {
    const [shown, opacity] = field.querySelectorAll("input");
    viewer.addTiledImage({ // its tiles are loaded once it is shown
      tileSource: source(field.dataset.layer, "png", 2), width: Math.ceil(width / 2) * 2 / width, opacity: 0,
      success({item}) {
        field.oninput = () => item.setOpacity(shown.checked ? Number(opacity.value) : 0);
        field.oninput();
      },
    });
  }));
  const drawn = document.getElementById("drawn");
  viewer.canvas.append(drawn);
  for (const field of document.querySelectorAll("fieldset[data-author]")) {
    const group = drawn.querySelector(`g[data-author="${field.dataset.author}"]`);
    field.querySelector("input").onchange = ({target}) => { group.style.display = target.checked ? "" : "none"; };
  }
  viewer.addHandler("update-viewport", () => {
    const {x, y, width: across, height: down} = viewport.viewportToImageRectangle(viewport.getBounds(true));
    drawn.setAttribute("viewBox", `${x} ${y} ${across} ${down}`);
    scaleBar(document.getElementById("scale"), viewer.container.clientWidth / across / mpp);
  });
})();
