// A slide's page: the viewer, then what is laid over it and drawn on it.
import {ask, say} from "./ask.js";
import {openViewer} from "./viewer.js";

const id = document.querySelector("main").dataset.slide;
try {
  const slide = await ask(`api/slides/${id}`);
  const viewer = openViewer(document.getElementById("viewer"), slide);
  globalThis.lamella = {slide, viewer};
} catch (error) {
  say(error.message, true);
}
