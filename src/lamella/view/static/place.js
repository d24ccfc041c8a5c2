// Where one is: the scale bar, the place under the pointer, and the page's address, which keeps place and layers.
import {say} from "./ask.js";
import {placeAt, zoomOf} from "./viewer.js";

const BAR_PX = 160; // longest
const [bar, place, zoom] = ["scale", "place", "zoom"].map((id) => document.getElementById(id));
const TENTHS = {minimumFractionDigits: 1, maximumFractionDigits: 1};

export function showPlace(slide, viewer) {
  const uneven = Math.abs(slide.mpp_x / slide.mpp_y - 1) > 0.01; // then the bar has an upright arm of as many µm
  function scale() {
    const pxPerUm = zoomOf(viewer) / slide.mpp_x;
    const decade = 10 ** Math.floor(Math.log10(BAR_PX / pxPerUm));
    const um = Number((decade * [5, 2, 1].find((step) => step * decade * pxPerUm <= BAR_PX * 1.000001)).toPrecision(1));
    bar.style.width = `${um * pxPerUm}px`;
    if (uneven) bar.style.height = `${um * zoomOf(viewer) / slide.mpp_y}px`;
    bar.textContent = um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
    zoom.textContent = `${(1 / pxPerUm).toPrecision(3)} µm per screen pixel`;
  }
  for (const event of ["viewport-change", "resize"]) viewer.addHandler(event, scale);
  scale();
  new globalThis.OpenSeadragon.MouseTracker({element: viewer.container, moveHandler({position}) {
    const [x, y] = placeAt(viewer, position);
    const [xUm, yUm] = [x * slide.mpp_x, y * slide.mpp_y].map((um) => um.toLocaleString("en", TENTHS));
    place.textContent = `${xUm}, ${yUm} µm · px ${[x, y].map((px) => Math.floor(px).toLocaleString("en")).join(", ")}`;
  }, leaveHandler() { place.textContent = ""; }});
}

// #x,y,µm per pixel,layer~...,layer~...: the view's middle in level-0 pixels, and what is laid over the slide.
export function keepAddress(slide, viewer, layers) {
  const {viewport} = viewer;
  let written = "";
  function write() {
    const {x, y} = viewport.viewportToImageCoordinates(viewport.getCenter());
    const umPerPx = Number((slide.mpp_x / zoomOf(viewer, false)).toPrecision(4));
    written = `#${[Math.round(x), Math.round(y), umPerPx, ...layers.state()].join(",")}`;
    history.replaceState(null, "", written);
  }
  function read() {
    const [x, y, umPerPx, ...shown] = location.hash.slice(1).split(",");
    if (location.hash === written || !(Number(umPerPx) > 0)) return;
    viewport.zoomTo(viewport.imageToViewportZoom(slide.mpp_x / umPerPx), undefined, true);
    viewport.panTo(viewport.imageToViewportCoordinates(Number(x), Number(y)), true);
    try { layers.restore(shown); } catch (error) { say(`The address names no layer: ${error.message}`, true); }
  }
  read();
  viewer.addHandler("animation-finish", write);
  layers.onChange(write);
  addEventListener("hashchange", read);
}
