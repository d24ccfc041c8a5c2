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
addEventListener("unhandledrejection", ({reason}) => say(reason.message, true)); // the console has it, too

async function open() {
  const slide = await ask(`api/slides/${document.querySelector("main").dataset.slide}`);
  const viewer = await openViewer(part("viewer"), slide);
  const layers = showLayers(part("layers"), slide, viewer);
  globalThis.lamella = {slide, viewer, layers}; // for the console, and for the tests
  steer(viewer, layers);
  showPlace(slide, viewer);
  keepAddress(slide, viewer, layers);
  compareLayers(part("layers"), slide, viewer, layers);
  sayFaults(viewer);
  const annotations = await annotate(part("annotate"), slide, viewer);
  globalThis.lamella.annotations = annotations;
  prompting(part("prompt"), slide, viewer, annotations);
  await showQueue(part("queue"), slide, viewer, annotations.author);
}

// A tile that cannot be read comes as a hatched picture with an error's status; here their number is said.
function sayFaults(viewer) {
  let count = 0;
  new PerformanceObserver((list) => {
    const failed = list.getEntries().filter((one) => one.name.includes("/tiles/") && one.responseStatus >= 400);
    if (!failed.length) return;
    say(`Tiles that could not be read so far: ${count += failed.length}. They are hatched; the log says why.`, true);
  }).observe({type: "resource", buffered: true});
  viewer.addHandler("tile-load-failed", () => say("The server does not answer: tiles are missing.", true));
}
open();
