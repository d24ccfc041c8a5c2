// Outlines of a layer's objects on a canvas above the tiles and below what people draw.
import {zoomOf} from "./viewer.js";

const Point = globalThis.OpenSeadragon.Point;

export function outlinesOn(viewer, info) {
  const canvas = document.createElement("canvas");
  canvas.className = "outlines";
  canvas.dataset.layer = info.id;
  viewer.canvas.append(canvas);
  const colours = new Map(info.legend.classes);
  let paths = new Map(); // colour -> path in level-0 pixels

  function paint() {
    const {clientWidth: width, clientHeight: height} = viewer.canvas;
    const dots = globalThis.devicePixelRatio;
    if (canvas.width !== width * dots || canvas.height !== height * dots) {
      Object.assign(canvas, {width: width * dots, height: height * dots});
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (!paths.size) return;
    const scale = zoomOf(viewer) * dots;
    const corner = viewer.viewport.imageToViewerElementCoordinates(new Point(0, 0));
    pen.setTransform(scale, 0, 0, scale, corner.x * dots, corner.y * dots);
    for (const [width, only] of [[3.5, "#fff9"], [1.75, null]]) { // a pale rim keeps them legible on dark tissue
      pen.lineWidth = width * dots / scale;
      for (const [colour, path] of paths) {
        pen.strokeStyle = only ?? colour;
        pen.stroke(path);
      }
    }
  }
  viewer.addHandler("update-viewport", paint);

  return {
    draw(features) {
      paths = new Map();
      for (const {geometry, properties} of features) {
        const kind = properties?.classification;
        const colour = colours.get(kind?.name) ?? (kind?.color ? `rgb(${kind.color})` : "#e69f00");
        if (!paths.has(colour)) paths.set(colour, new Path2D());
        const polygons = {Polygon: [geometry.coordinates], MultiPolygon: geometry.coordinates}[geometry.type] ?? [];
        for (const ring of polygons.flat()) {
          ring.forEach(([x, y], corner) => paths.get(colour)[corner ? "lineTo" : "moveTo"](x, y));
          paths.get(colour).closePath();
        }
      }
      paint();
    },
    any: () => paths.size > 0,
    strength(opacity) { canvas.style.opacity = Math.min(1, opacity * 1.6); }, // lines need more than areas
    clip(part) {
      canvas.style.clipPath = part ? `inset(0 ${(1 - part[1]) * 100}% 0 ${part[0] * 100}%)` : "";
    },
  };
}
