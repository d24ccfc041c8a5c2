// Two looks at one slide: side by side, or under a handle that swipes from one to the other.
import {layOver} from "./laid.js";
import {openViewer} from "./viewer.js";

export function compareLayers(section, slide, viewer, layers) {
  const form = section.querySelector("#compare");
  const stage = document.getElementById("stage");
  const [handle, place] = ["swipe", "second"].map((id) => document.getElementById(id));
  const field = form.elements;
  let second = null, laid = new Map();
  const row = (side) => layers.rows.get(field[side].value);

  function follow(one, other) { // both show the same place, whichever is moved
    one.addHandler("viewport-change", () => {
      if (field.how.value !== "beside" || other.viewport.getBounds().equals(one.viewport.getBounds(true))) return;
      other.viewport.fitBounds(one.viewport.getBounds(true), true);
    });
  }

  async function beside() {
    second ??= openViewer(place, slide, false).then((made) => { follow(viewer, made); follow(made, viewer); return made; });
    const other = await second;
    for (const [, one] of laid) one.show(null);
    const right = row("right");
    if (!right || field.how.value !== "beside") return;
    if (!laid.has(right.info.id)) laid.set(right.info.id, layOver(other, slide, right.info));
    laid.get(right.info.id).show(right.look());
  }

  function swipe() {
    const share = Number(handle.value) / 1000;
    row("left")?.laid.clip([0, share]);
    row("right")?.laid.clip([share, 1]);
  }

  function compare() {
    const how = field.how.value;
    stage.dataset.how = how;
    place.hidden = how !== "beside";
    handle.hidden = how !== "swipe";
    for (const [, one] of layers.rows) {
      one.laid.clip(null);
      one.hide(how === "beside" && one === row("right") && one !== row("left"));
    }
    if (how !== "off") for (const side of ["left", "right"]) if (row(side) && !row(side).on()) row(side).turn(true);
    if (how === "swipe") swipe();
    if (how === "beside") beside();
  }
  form.onchange = compare;
  handle.oninput = swipe;
  layers.onChange(() => { if (field.how.value === "beside") beside(); });
}
