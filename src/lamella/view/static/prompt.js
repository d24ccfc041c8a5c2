// Boxes and clicks for a promptable model on the region in view; what it outlines is accepted, corrected or rejected.
import {ask, make} from "./ask.js";
import {outlinesOn} from "./outlines.js";
import {boxInView, placeAt} from "./viewer.js";

const INK = [0, 114, 178]; // of outline and box; clicks are told apart by their signs (prompt.css)
const KEYS = {s: "start", c: "yes", x: "no", Backspace: "back", Enter: "accept", Delete: "reject"};

export function prompting(section, slide, viewer, annotations) {
  if (!slide.prompt) return; // the page says why
  const part = (name) => section.querySelector(`[data-part=${name}]`);
  const button = (name) => section.querySelector(`[data-do=${name}]`);
  const [mask, frame] = [true, false].map((filled) => outlinesOn(viewer, {filled, legend: {classes: []}}));
  const drawn = (geometry) => ({geometry, properties: {classification: {color: INK}}});
  let on = false, prompts = [], outline = null, signs = [], asked = 0; // prompts: [kind, place] in the order given
  const of = (kind) => prompts.filter(([own]) => own === kind).map(([, place]) => place);

  function show(boxes = of("boxes")) {
    mask.draw(outline ? [drawn(outline.geometry)] : []);
    frame.draw(boxes.map(([x, y, u, v]) => drawn({type: "Polygon", coordinates: [[[x, y], [u, y], [u, v], [x, v]]]})));
    signs.forEach((sign) => viewer.removeOverlay(sign));
    signs = prompts.filter(([kind]) => kind !== "boxes").map(([kind, [x, y]]) => {
      const element = make("span", {className: `sign ${kind}`, text: kind === "positives" ? "+" : "−"});
      viewer.addOverlay({element, location: viewer.viewport.imageToViewportCoordinates(x, y), placement: "CENTER"});
      return element;
    });
  }
  function tell(text, fault = false) {
    part("answer").textContent = text;
    part("answer").classList.toggle("fault", fault);
    button("back").disabled = button("reject").disabled = !prompts.length;
    button("accept").disabled = !outline;
    show();
  }
  // The region is what is in view and whatever was pointed at; without prompts it is only made ready.
  async function look() {
    const number = ++asked;
    tell("The model looks …");
    const [left, top, right, bottom] = boxInView(viewer);
    const places = [[left, top], [right, bottom], ...prompts.flatMap(([, place]) => [place.slice(0, 2), place.slice(-2)])];
    const [xs, ys] = [0, 1].map((axis) => places.map((place) => place[axis]));
    const region = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    const body = {region, boxes: of("boxes"), positives: of("positives"), negatives: of("negatives")};
    try {
      const found = await ask(`api/slides/${slide.id}/prompt`, {method: "POST", body});
      if (number !== asked) return; // another prompt came since
      outline = found.features[0] ?? null;
      const time = `${found.seconds.toFixed(1)} s${found.known_view ? "" : ", a new view"}`;
      if (!prompts.length) tell(`Ready (${time}).`);
      else if (!outline) tell("The model sees nothing there: try a box, or another zoom.");
      else tell(`Believed IoU ${found.believed_iou.toFixed(2)} (${time}). Accept it, or click to correct it.`);
    } catch (error) {
      if (number === asked) tell(error.message, true);
    }
  }
  function add(kind, place) {
    prompts = [...prompts.filter(([own]) => own !== "boxes" || kind !== "boxes"), [kind, place]]; // one object, one box
    look();
  }
  function reject() {
    [prompts, outline, asked] = [[], null, asked + 1];
    tell("");
  }
  const middle = () => placeAt(viewer, viewer.viewport.getContainerSize().divide(2));
  const does = {
    reject,
    start: () => annotations.setTool(on ? "move" : "prompt"),
    yes: () => add("positives", middle()),
    no: () => add("negatives", middle()),
    back() { prompts.pop(); if (of("boxes").length || of("positives").length) look(); else reject(); },
    accept() { annotations.add(outline); reject(); },
  };
  for (const name of Object.keys(does)) button(name).onclick = does[name];
  addEventListener("keydown", (event) => {
    const [name, at] = [Object.hasOwn(KEYS, event.key) && KEYS[event.key], (kinds) => event.target.closest?.(kinds)];
    if (!name || event.ctrlKey || event.metaKey || event.altKey || at("input:not([type=radio]), select, dialog")) return;
    if ((name !== "start" && (!on || button(name).disabled)) || (event.key === "Enter" && at("button, a, summary"))) return;
    event.preventDefault();
    does[name]();
  });
  annotations.onTool((tool) => {
    if (on === (tool === "prompt")) return;
    on = !on;
    part("asking").hidden = !on;
    viewer.element.classList.toggle("prompting", on);
    button("start").setAttribute("aria-pressed", String(on));
    reject();
    if (on) look(); // the encoder works while the user aims
  });
  viewer.addHandler("canvas-click", ({quick, position, originalEvent}) => {
    const sign = section.querySelector("[name=sign]:checked").value;
    if (on && quick) add(originalEvent.shiftKey ? "negatives" : sign, placeAt(viewer, position));
  });
  let from = null; // where a box begins
  viewer.addHandler("canvas-press", ({position}) => { from = placeAt(viewer, position); });
  const boxTo = ([x, y]) => [Math.min(from[0], x), Math.min(from[1], y), Math.max(from[0], x), Math.max(from[1], y)];
  viewer.addHandler("canvas-drag", (event) => {
    if (!on) return;
    event.preventDefaultAction = true; // no pan
    show([boxTo(placeAt(viewer, event.position))]);
  });
  viewer.addHandler("canvas-drag-end", (event) => {
    if (!on) return;
    event.preventDefaultAction = true; // no glide
    add("boxes", boxTo(placeAt(viewer, event.position)));
  });
  Object.assign(globalThis.lamella, {prompts: () => ({prompts, outline})}); // for the tests
}
