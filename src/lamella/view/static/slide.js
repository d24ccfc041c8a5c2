// A slide's page: the viewer, then what is laid over it and drawn on it.
import {annotate} from "./annotate.js";
import {ask, say} from "./ask.js";
import {compareLayers} from "./compare.js";
import {showLayers} from "./layers.js";
import {prompting} from "./prompt.js";
import {showQueue} from "./queue.js";
import {openViewer} from "./viewer.js";

const part = (name) => document.getElementById(name);
try {
  const slide = await ask(`api/slides/${document.querySelector("main").dataset.slide}`);
  const viewer = openViewer(part("viewer"), slide);
  globalThis.lamella = {slide, viewer}; // for the console, and for the tests
  showLayers(part("layers"), slide, viewer);
  compareLayers(part("layers"), slide, viewer);
  const annotations = await annotate(part("annotate"), slide, viewer);
  prompting(part("prompt"), slide, viewer, annotations);
  await showQueue(part("queue"), slide, viewer);
} catch (error) {
  say(error.message, true);
  throw error;
}
