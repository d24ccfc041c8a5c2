// What is ticked, and another look at the same place: side by side, or under a handle that swipes between the two.
import {layOver} from "./laid.js";
import {openViewer} from "./viewer.js";

export function compareLayers(section, slide, viewer, layers) {
  const form = section.querySelector("#compare");
  if (!form) return; // no layers
  const {how, right} = form.elements;
  const [stage, handle] = ["stage", "swipe"].map((id) => document.getElementById(id));
  const laid = new Map(); // row of a layer -> what shows it in the second viewer
  let second = null;

  function follow(one, other) { // both show the same place, whichever is moved
    one.addHandler("viewport-change", () => {
      const bounds = one.viewport.getBounds(true);
      if (how.value !== "off" && !other.viewport.getBounds().equals(bounds)) other.viewport.fitBounds(bounds, true);
    });
  }

  async function openSecond() {
    const made = await openViewer(document.getElementById("second"), slide, false);
    made.viewport.fitBounds(viewer.viewport.getBounds(true), true);
    follow(viewer, made);
    follow(made, viewer);
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
  layers.onChange(compare);
  handle.oninput = () => stage.style.setProperty("--share", `${handle.value / 10}%`);
}
