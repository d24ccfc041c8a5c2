// The places that a person is asked to look at, one after the other.
import {ask, make, say} from "./ask.js";
import {goTo} from "./viewer.js";

export async function showQueue(section, slide, viewer) {
  const path = `api/slides/${slide.id}/queue`;
  const {places} = await ask(path);
  const part = (name) => section.querySelector(`[data-part=${name}]`);
  section.hidden = !places.length;
  let at = -1;
  function step(by) {
    if (!places.length) return;
    at = (at + by + places.length) % places.length;
    const [x0, y0, x1, y1] = places[at].box, [wide, high] = [x1 - x0, y1 - y0];
    goTo(viewer, [x0 - wide / 2, y0 - high / 2, x1 + wide / 2, y1 + high / 2]); // with half as much around it
    viewer.removeOverlay("queue-box");
    const box = make("div", {id: "queue-box", className: "queue-box"});
    viewer.addOverlay(box, viewer.viewport.imageToViewportRectangle(x0, y0, wide, high));
    show();
  }
  function show() {
    const left = places.filter((place) => !place.done_by).length, place = places[at];
    part("at").textContent = `${place ? `${at + 1} of ${places.length}: ${place.why}. ` : ""}${left} of ${places.length} left.`;
    part("done").checked = Boolean(place?.done_by);
    part("done").disabled = !place;
  }
  part("next").onclick = () => step(1);
  part("previous").onclick = () => step(at < 0 ? 0 : -1);
  part("done").onchange = async ({target}) => {
    const place = places[at], author = localStorage.getItem("lamella-author") || slide.author;
    try {
      await ask(path, {method: "POST", body: {key: place.key, done: target.checked, author}});
      place.done_by = target.checked ? author : null;
    } catch (error) {
      say(error.message, true);
    }
    show();
  };
  addEventListener("keydown", ({key, target}) => {
    if (!target.closest?.("input, select, dialog") && (key === "n" || key === "N")) step(key === "n" ? 1 : -1);
  });
  show();
}
