// Boxes and clicks for a promptable model on the region in view; what it outlines is accepted, corrected or rejected.
import {ask, say} from "./ask.js";
import {outlinesOn} from "./outlines.js";
import {boxInView, onSlide, placeAt} from "./viewer.js";

const SIGNS = {positives: "+", negatives: "−", boxes: ""};

export function prompting(section, slide, viewer, annotations) {
  if (!slide.prompt) return; // the page says why
  const part = (name) => section.querySelector(`[data-part=${name}]`);
  const mask = outlinesOn(viewer, "outlines mask");
  viewer.canvas.append(viewer.overlaysContainer); // signs lie above outlines
  let prompts = []; // [kind, place] in the order given
  let on = false, outline = null, shown = [], asked = 0, from = null; // from: where a box begins
  const of = (kind) => prompts.filter(([own]) => own === kind).map(([, place]) => place);

  function show(drawn = prompts) {
    shown.forEach((element) => viewer.removeOverlay(element));
    shown = drawn.map(([kind, place]) => {
      const element = document.createElement("span"), box = onSlide(viewer, place);
      Object.assign(element, {className: `sign ${kind}`, textContent: SIGNS[kind]});
      viewer.addOverlay({element, location: kind === "boxes" ? box : box.getTopLeft(), placement: "CENTER"});
      return element;
    });
  }
  function tell(text, fault) {
    say(text, fault, part("answer"));
    part("back").disabled = part("reject").disabled = !prompts.length;
    part("accept").disabled = !outline;
    show();
  }
  async function look() { // without prompts the view is only made ready
    const number = ++asked, given = Object.keys(SIGNS).map((kind) => [kind, of(kind)]);
    tell("The model looks …");
    const body = {region: boxInView(viewer), ...Object.fromEntries(given)};
    const found = await ask(`api/slides/${slide.id}/prompt`, body).catch(({message}) => ({fault: message}));
    if (number !== asked) return; // another prompt came since
    if (!found.fault) { [outline = null] = found.features; mask.draw(found.svg); }
    tell(found.fault ?? found.said, Boolean(found.fault));
  }
  function add(kind, place) { // one object has one box
    prompts = [...prompts.filter(([own]) => own !== "boxes" || kind !== "boxes"), [kind, place]];
    look();
  }
  function reject() {
    [prompts, outline, asked] = [[], null, asked + 1];
    mask.draw("");
    tell("");
  }
  const atCross = (kind) => () => add(kind, placeAt(viewer, viewer.viewport.getContainerSize().divide(2)));
  const does = {
    reject, yes: atCross("positives"), no: atCross("negatives"),
    start: () => annotations.setTool(on ? "move" : "prompt"),
    back() { prompts.pop(); if (of("boxes").length || of("positives").length) look(); else reject(); },
    accept() { annotations.add(outline); reject(); },
  };
  for (const name of Object.keys(does)) part(name).onclick = does[name];
  viewer.addHandler("tool", ({name}) => {
    on = name === "prompt";
    part("asking").hidden = !on;
    part("start").setAttribute("aria-pressed", String(on));
    reject();
    if (on) look(); // the encoder works while the user aims
  });
  viewer.addHandler("canvas-click", ({quick, position, originalEvent}) => {
    const sign = section.querySelector("[name=sign]:checked").value;
    if (on && quick) add(originalEvent.shiftKey ? "negatives" : sign, placeAt(viewer, position));
  });
  viewer.addHandler("canvas-press", ({position}) => { from = placeAt(viewer, position); });
  const dragged = (name, then) => viewer.addHandler(name, (event) => {
    if (!on) return;
    event.preventDefaultAction = true; // no pan, no glide
    const to = placeAt(viewer, event.position);
    then([Math.min, Math.max].flatMap((end) => [0, 1].map((axis) => end(from[axis], to[axis]))));
  });
  dragged("canvas-drag", (box) => show([["boxes", box]]));
  dragged("canvas-drag-end", (box) => add("boxes", box));
  Object.assign(globalThis.lamella, {prompts: () => ({prompts, outline})}); // for the tests
}
