// A slide's page: the viewer, then what is laid over it and drawn on it.
import {annotate} from "./annotate.js";
import {ask, say} from "./ask.js";
import {compareLayers} from "./compare.js";
import {steer} from "./keys.js";
import {showLayers} from "./layers.js";
import {keepAddress, showPlace} from "./place.js";
import {prompting} from "./prompt.js";
import {showQueue} from "./queue.js";
import {openViewer} from "./viewer.js";

const part = (name) => document.getElementById(name);
try {
  const slide = await ask(`api/slides/${document.querySelector("main").dataset.slide}`);
  const viewer = await openViewer(part("viewer"), slide);
  const layers = showLayers(part("layers"), slide, viewer);
  globalThis.lamella = {slide, viewer, layers}; // for the console, and for the tests
  steer(viewer, layers);
  showPlace(slide, viewer);
  keepAddress(slide, viewer, layers);
  compareLayers(part("layers"), slide, viewer, layers);
  const annotations = await annotate(part("annotate"), slide, viewer);
  prompting(part("prompt"), slide, viewer, annotations);
  await showQueue(part("queue"), slide, viewer);
} catch (error) {
  say(error.message, true);
  throw error;
}
