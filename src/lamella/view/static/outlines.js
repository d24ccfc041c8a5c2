// A place above the tiles and below what people draw, for outlines that the server drew in level-0 pixels.
import {put} from "./ask.js";
import {boxInView} from "./viewer.js";

export function outlinesOn(viewer, className = "outlines") {
  const place = viewer.canvas.appendChild(document.createElement("div"));
  place.className = className;
  function follow() {
    const [x0, y0, x1, y1] = boxInView(viewer);
    place.firstElementChild?.setAttribute("viewBox", `${x0} ${y0} ${x1 - x0} ${y1 - y0}`);
  }
  viewer.addHandler("update-viewport", follow);
  return {place, draw(svg) { put(svg, place); follow(); }};
}
