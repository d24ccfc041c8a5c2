// The slide in OpenSeadragon.
import {root} from "./ask.js";

const OpenSeadragon = globalThis.OpenSeadragon;

// Slides and layers share one grid of tiles; `address(level, column, row)` names a tile of one of them.
export function tileSource(slide, address) {
  return {
    width: slide.width_px0, height: slide.height_px0, tileSize: slide.tile_px, tileOverlap: 0,
    minLevel: 0, maxLevel: slide.max_level, getTileUrl: address,
  };
}

export function openViewer(element, slide) {
  return OpenSeadragon({
    element,
    tileSources: tileSource(slide, (level, x, y) => `${root}api/slides/${slide.id}/tiles/${level}/${x}_${y}.jpg`),
    showNavigationControl: false, showNavigator: true,
    maxZoomPixelRatio: 2, // two display pixels for each of the slide's
    gestureSettingsMouse: {clickToZoom: false},
  });
}

// Places on the slide, in level-0 pixels.
export function placeAt(viewer, point) { // point: OpenSeadragon.Point from the viewer's upper left corner
  const {x, y} = viewer.viewport.viewerElementToImageCoordinates(point);
  return [x, y];
}

export function boxInView(viewer) {
  const {x, y, width, height} = viewer.viewport.viewportToImageRectangle(viewer.viewport.getBounds(true));
  return [x, y, x + width, y + height];
}

export function goTo(viewer, [x0, y0, x1, y1], immediately = false) {
  const box = viewer.viewport.imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0);
  viewer.viewport.fitBounds(box, immediately);
}
