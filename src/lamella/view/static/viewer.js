// The slide in OpenSeadragon, and places on it.
import {root} from "./ask.js";

const OpenSeadragon = globalThis.OpenSeadragon;
const MAP_PX = 170; // longer side of the minimap
const LEAST_PX0 = 100; // of a place that is gone to: a point has no size

// Slides and layers share their levels; `address(level, column, row)` names a tile of one of them.
export function tileSource(slide, tileSize, address) {
  const tiles = Math.max(slide.width_px0, slide.height_px0) / tileSize;
  return {
    width: slide.width_px0, height: slide.height_px0, tileSize, tileOverlap: 0,
    minLevel: Math.max(0, slide.max_level - Math.ceil(Math.log2(Math.max(tiles, 1)))), // below, all is in one tile
    maxLevel: slide.max_level, getTileUrl: address,
  };
}

// Resolves when the slide's grid is known; its tiles still come.
export async function openViewer(element, slide, navigator = true) {
  const map = MAP_PX / Math.max(slide.width_px0, slide.height_px0);
  const viewer = OpenSeadragon({
    element, drawer: "canvas", // needs no graphics card, and its pixels can be read back
    tileSources: tileSource(slide, slide.tile_px,
      (level, x, y) => `${root}api/slides/${slide.id}/tiles/${level}/${x}_${y}.jpg`),
    showNavigationControl: false, showNavigator: navigator, navigatorPosition: "TOP_RIGHT", navigatorAutoFade: false,
    navigatorWidth: `${map * slide.width_px0}px`, navigatorHeight: `${map * slide.height_px0}px`, navigatorOpacity: 1,
    navigatorBackground: "#fff", navigatorBorderColor: "#868e96", navigatorDisplayRegionColor: "#0b7285",
    maxZoomPixelRatio: 2, // two display pixels for each of the slide's
    preserveImageSizeOnResize: true, visibilityRatio: 0.2, animationTime: 0.5,
    imageLoaderLimit: 8, maxTilesPerFrame: 6, maxImageCacheCount: 600, gestureSettingsMouse: {clickToZoom: false},
    subPixelRoundingForTransparency: {"*": OpenSeadragon.SUBPIXEL_ROUNDING_OCCURRENCES.ALWAYS}, // no seams in layers
    silenceMultiImageWarnings: true, // all of them lie on the slide's own grid
  });
  await new Promise((done) => viewer.addOnceHandler("open", done));
  viewer.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; }); // keys.js knows them
  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.setAttribute("aria-label", `${slide.name}: arrow keys move, plus and minus zoom, ? lists all keys`);
  return viewer;
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

// The same as OpenSeadragon places things.
export const onSlide = (viewer, [x0, y0, x1 = x0, y1 = y0]) =>
  viewer.viewport.imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0);

export function goTo(viewer, [x0, y0, x1, y1]) { // with half as much around it
  const margin = Math.max(x1 - x0, y1 - y0, LEAST_PX0) / 2;
  viewer.viewport.fitBounds(onSlide(viewer, [x0 - margin, y0 - margin, x1 + margin, y1 + margin]));
}

// Display pixels of one level-0 pixel.
export function zoomOf(viewer, now = true) {
  return viewer.viewport.viewportToImageZoom(viewer.viewport.getZoom(now));
}
