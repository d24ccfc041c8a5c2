// Outlines of a layer's objects on a canvas above the tiles and below what people draw.
import {zoomOf} from "./viewer.js";

export function outlinesOn(viewer, info) {
  const canvas = viewer.canvas.appendChild(document.createElement("canvas"));
  canvas.className = "outlines";
  const colours = new Map(info.legend.classes);
  const paths = new Map(); // colour -> path in level-0 pixels

  function paint() {
    const dots = globalThis.devicePixelRatio;
    const scale = zoomOf(viewer) * dots;
    const {x, y} = viewer.viewport.imageToViewerElementCoordinates(new globalThis.OpenSeadragon.Point(0, 0));
    const pen = canvas.getContext("2d");
    canvas.width = viewer.canvas.clientWidth * dots; // which clears it
    canvas.height = viewer.canvas.clientHeight * dots;
    pen.setTransform(scale, 0, 0, scale, x * dots, y * dots);
    for (const [fillStyle, path] of info.filled ? paths : []) {
      Object.assign(pen, {fillStyle, globalAlpha: 0.25}).fill(path, "evenodd");
    }
    pen.globalAlpha = 1;
    for (const [line, rim] of [[3.5, "#fff9"], [1.75, null]]) { // a pale rim keeps them legible on dark tissue
      pen.lineWidth = line * dots / scale;
      for (const [colour, path] of paths) {
        pen.strokeStyle = rim ?? colour;
        pen.stroke(path);
      }
    }
  }
  viewer.addHandler("update-viewport", () => { if (paths.size) paint(); });

  return {
    draw(features) {
      paths.clear();
      for (const {geometry: {type, coordinates}, properties} of features) {
        const {name, color} = properties?.classification ?? {};
        const colour = colours.get(name) ?? (color ? `rgb(${color})` : "#e69f00");
        if (!paths.has(colour)) paths.set(colour, new Path2D());
        for (const ring of type === "MultiPolygon" ? coordinates.flat() : coordinates) {
          ring.forEach(([x, y], corner) => paths.get(colour)[corner ? "lineTo" : "moveTo"](x, y));
          paths.get(colour).closePath();
        }
      }
      paint();
    },
    any: () => paths.size > 0,
    strength(opacity) { canvas.style.opacity = Math.min(1, opacity * 1.6); }, // lines need more than areas
  };
}
