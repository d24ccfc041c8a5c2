// The places that a person is asked to look at, one after the other.
import {ask, make, say} from "./ask.js";
import {goTo} from "./viewer.js";

export async function showQueue(section, slide, viewer) {
  const path = `api/slides/${slide.id}/queue`, {places} = await ask(path);
  const part = (name) => section.querySelector(`[data-part=${name}]`);
  let at = -1;
  function show() {
    const left = places.filter(({done_by: by}) => !by).length;
    part("at").textContent = `${at < 0 ? "" : `${at + 1}: ${places[at].why}. `}${left} of ${places.length} left.`;
    part("done").disabled = at < 0;
    part("done").checked = Boolean(places[at]?.done_by);
  }
  const step = (by) => () => {
    at = (Math.max(at + by, by - 1) + places.length) % places.length;
    const [x0, y0, x1, y1] = places[at].box, [wide, high] = [x1 - x0, y1 - y0];
    goTo(viewer, [x0 - wide / 2, y0 - high / 2, x1 + wide / 2, y1 + high / 2]); // with half as much around it
    viewer.removeOverlay("queue-box");
    const box = make("div", {id: "queue-box", className: "queue-box"});
    viewer.addOverlay(box, viewer.viewport.imageToViewportRectangle(x0, y0, wide, high));
    show();
  };
  part("next").onclick = step(1);
  part("previous").onclick = step(-1);
  part("done").onchange = async ({target: {checked: done}}) => {
    const place = places[at], author = localStorage.getItem("lamella-author") || slide.author;
    try {
      await ask(path, {method: "POST", body: {key: place.key, done, author}});
      place.done_by = done ? author : null;
    } catch (error) {
      say(error.message, true);
    }
    show();
  };
  section.hidden = !places.length;
  show();
}
