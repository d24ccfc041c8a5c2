// Where one is: the scale bar, the place under the pointer, and both in the page's address.
import {placeAt, zoomOf} from "./viewer.js";

const BAR_PX = 160; // longest
const OpenSeadragon = globalThis.OpenSeadragon;
const number = (value, digits = 0) => value.toLocaleString("en", {minimumFractionDigits: digits,
  maximumFractionDigits: digits});
const lengthText = (um) => (um >= 1000 ? `${um / 1000} mm` : `${um} µm`);

// The longest of 1, 2, 5, 10, 20, ... that is not longer than this.
export function roundLength(longest) {
  const decade = 10 ** Math.floor(Math.log10(longest));
  return Number((decade * [5, 2, 1].find((step) => step * decade <= longest * (1 + 1e-9))).toPrecision(1));
}

export function showPlace(slide, viewer) {
  const bar = document.getElementById("scale");
  const place = document.getElementById("place");
  const zoom = document.getElementById("zoom");
  const uneven = Math.abs(slide.mpp_x / slide.mpp_y - 1) > 0.01; // then the bar has an upright arm as long in µm
  function scale() {
    const pxPerUm = zoomOf(viewer) / slide.mpp_x;
    const um = roundLength(BAR_PX / pxPerUm);
    bar.style.width = `${um * pxPerUm}px`;
    if (uneven) bar.style.height = `${um * zoomOf(viewer) / slide.mpp_y}px`;
    bar.textContent = lengthText(um);
    zoom.textContent = `${(1 / pxPerUm).toPrecision(3)} µm per pixel`;
  }
  viewer.addHandler("viewport-change", scale);
  viewer.addHandler("resize", scale);
  scale();
  new OpenSeadragon.MouseTracker({element: viewer.container, moveHandler({position}) {
    const [x, y] = placeAt(viewer, position);
    place.textContent = `${number(x * slide.mpp_x, 1)}, ${number(y * slide.mpp_y, 1)} µm`
      + ` · px ${number(Math.floor(x))}, ${number(Math.floor(y))}`;
  }, leaveHandler() { place.textContent = ""; }});
}

// #x,y,µm per pixel,layer~...,layer~...: the view's middle in level-0 pixels, and what is laid over the slide.
export function keepAddress(slide, viewer, layers) {
  let written = "";
  function write() {
    const {x, y} = viewer.viewport.viewportToImageCoordinates(viewer.viewport.getCenter());
    const umPerPx = (slide.mpp_x / zoomOf(viewer, false)).toPrecision(4);
    written = `#${[Math.round(x), Math.round(y), Number(umPerPx), ...layers.state()].join(",")}`;
    history.replaceState(null, "", written);
  }
  function read() {
    if (location.hash === written || location.hash.length < 2) return;
    const [x, y, umPerPx, ...shown] = location.hash.slice(1).split(",");
    if ([x, y, umPerPx].some((part) => !(Number(part) > 0))) return;
    const point = viewer.viewport.imageToViewportCoordinates(Number(x), Number(y));
    viewer.viewport.zoomTo(viewer.viewport.imageToViewportZoom(slide.mpp_x / umPerPx), undefined, true);
    viewer.viewport.panTo(point, true);
    layers.restore(shown);
  }
  read();
  viewer.addHandler("animation-finish", write);
  layers.onChange(write);
  addEventListener("hashchange", read);
}
