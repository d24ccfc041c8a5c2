// Where one is: the scale bar, the place under the pointer, and the page's address, which keeps place and layers.
import {say} from "./ask.js";
import {placeAt, zoomOf} from "./viewer.js";

const [bar, place, zoom] = ["scale", "place", "zoom"].map((id) => document.getElementById(id));
const TENTHS = {minimumFractionDigits: 1, maximumFractionDigits: 1};

export function showPlace(slide, viewer) {
  const uneven = Math.abs(slide.mpp_x / slide.mpp_y - 1) > 0.01; // then the bar has an upright arm of as many µm
  function scale() {
    const um = globalThis.scaleBar(bar, zoomOf(viewer) / slide.mpp_x);
    if (uneven) bar.style.height = `${um * zoomOf(viewer) / slide.mpp_y}px`;
    zoom.textContent = `${(slide.mpp_x / zoomOf(viewer)).toPrecision(3)} µm per screen pixel`;
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
  function write() {
    const {x, y} = viewport.viewportToImageCoordinates(viewport.getCenter());
    const umPerPx = Number((slide.mpp_x / zoomOf(viewer, false)).toPrecision(4));
    history.replaceState(null, "", `#${[Math.round(x), Math.round(y), umPerPx, ...layers.state()].join(",")}`);
  }
  function read(hash) {
    const [x, y, umPerPx, ...shown] = hash.slice(1).split(",");
    if (!(Number(umPerPx) > 0)) return;
    viewport.zoomTo(viewport.imageToViewportZoom(slide.mpp_x / umPerPx), undefined, true);
    viewport.panTo(viewport.imageToViewportCoordinates(Number(x), Number(y)), true);
    try { layers.restore(shown); } catch (error) { say(`The address names no layer: ${error.message}`, true); }
  }
  read(location.hash);
  viewer.addHandler("animation-finish", write);
  viewer.addHandler("layers", write);
  addEventListener("hashchange", ({newURL}) => read(new URL(newURL).hash)); // location.hash may be written over by now
}
