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
