// What is ticked, and another look at the same place: side by side, or under a handle that swipes between the two.
import {layOver} from "./laid.js";
import {openViewer} from "./viewer.js";

export function compareLayers(section, slide, viewer, layers) {
  const form = section.querySelector("#compare");
  if (!form) return; // no layers
  const {how, right} = form.elements;
  const [stage, handle, place] = ["stage", "swipe", "second"].map((id) => document.getElementById(id));
  const laid = new Map(); // row of a layer -> what shows it in the second viewer
  let second = null;

  function follow(one, other) {
    const [zoom, centre] = [one.viewport.getZoom(true), one.viewport.getCenter(true)];
    const there = other.viewport.getZoom(true) === zoom && other.viewport.getCenter(true).equals(centre);
    if (how.value !== "off" && !there) other.viewport.zoomTo(zoom, null, true).panTo(centre, true);
  }

  async function openSecond() { // follows the first, unless a hand is on it
    const made = await openViewer(place, slide, false);
    viewer.addHandler("viewport-change", () => follow(viewer, made));
    made.addHandler("viewport-change", () => (place.matches(":hover") ? follow(made, viewer) : follow(viewer, made)));
    follow(viewer, made);
    return made;
  }

  async function compare() {
    const wanted = how.value === "off" ? undefined : layers.rows.get(right.value);
    stage.dataset.how = how.value;
    for (const row of layers.rows.values()) row.form.classList.toggle("compared", row === wanted);
    if (how.value === "off" && !second) return;
    const other = await (second ??= openSecond());
    if (wanted && !laid.has(wanted)) laid.set(wanted, layOver(other, slide, wanted.info));
    for (const [row, show] of laid) show(row === wanted ? row.look() : null);
  }
  form.onchange = compare;
  viewer.addHandler("layers", compare);
  handle.oninput = () => stage.style.setProperty("--share", `${handle.value / 10}%`);
}
