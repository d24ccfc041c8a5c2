// The places that a person is asked to look at, one after the other.
import {ask} from "./ask.js";
import {goTo, onSlide} from "./viewer.js";

export async function showQueue(section, slide, viewer, author) {
  const path = `api/slides/${slide.id}/queue`, {places} = await ask(path);
  const part = (name) => section.querySelector(`[data-part=${name}]`);
  const frame = Object.assign(document.createElement("div"), {className: "queue-box"});
  let at = -1;
  function show() {
    const left = places.filter(({done_by: by}) => !by).length;
    part("at").textContent = `${at < 0 ? "" : `${at + 1}: ${places[at].why}. `}${left} of ${places.length} left.`;
    part("done").disabled = at < 0;
    part("done").checked = Boolean(places[at]?.done_by);
  }
  const step = (by) => () => {
    at = (Math.max(at + by, by - 1) + places.length) % places.length;
    goTo(viewer, places[at].box);
    viewer.removeOverlay(frame);
    viewer.addOverlay(frame, onSlide(viewer, places[at].box));
    show();
  };
  part("next").onclick = step(1);
  part("previous").onclick = step(-1);
  part("done").onchange = async ({target: {checked: done}}) => {
    const place = places[at];
    await ask(path, {key: place.key, done, author}).then(() => { place.done_by = done ? author : null; }).finally(show);
  };
  section.hidden = !places.length;
  show();
}
