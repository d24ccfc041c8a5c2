// A volume in three linked planes, or a film: every picture comes from the server; this moves the cross and the sliders.
import {ask, make, root, say} from "./ask.js";

const part = (name) => document.getElementById(name);
const address = `api/scans/${document.querySelector("main").dataset.scan}`;
const at = (axis) => Number(part(`at-${axis}`).value);
const pictures = [...document.querySelectorAll(".picture")];
let facts;

// Does one job at a time; of those that come meanwhile only the last is done.
function latest(job) {
  let next, busy;
  return async (...wanted) => {
    next = wanted;
    if (busy) return;
    for (busy = true; next;) {
      const now = next;
      next = undefined;
      await job(...now).catch((error) => say(error.message, true));
    }
    busy = false;
  };
}

function draw() {
  say("");
  const place = at("fourth"), {names, frame_ms: step} = facts;
  const time = step ? `, ${(place * step / 1000).toFixed(2)} s` : "";
  part("said-fourth").textContent = `${names[place]} of ${names.length}${time}`;
  if (facts.kind === "video") return pictures[0].show(`${address}/frames/${place}.jpg?v=${facts.version}`);
  for (const [axis, size] of Object.entries(facts.size)) part(`said-${axis}`).textContent = `${at(axis) + 1} of ${size}`;
  const [level, width, mask] = ["level", "width", "mask"].map((name) => part(name).value);
  const share = (axis) => `${100 * (1 - (at(axis) + .5) / facts.size[axis])}%`; // pictures run against their axes
  return Promise.all(pictures.map((picture) => {
    const {across, down, through} = picture.dataset, plane = `planes/${through}/${at(through)}.png`;
    picture.querySelector(".upright").style.left = share(across);
    picture.querySelector(".level").style.top = share(down);
    Object.assign(picture.querySelector(".mask"), {hidden: !mask}).style.opacity = part("opacity").value;
    if (mask) picture.showMask(`${address}/masks/${mask}/${plane}?v=${facts.version}`);
    return picture.show(`${address}/${plane}?channel=${place}&level=${level}&width=${width}&v=${facts.version}`);
  }));
}

const tell = latest(async (x, y, z) => {
  part("value").textContent = (await ask(`${address}/values?x=${x}&y=${y}&z=${z}&channel=${at("fourth")}`)).text;
});
const move = () => Promise.all([draw(), facts.kind === "volume" && tell(at("x"), at("y"), at("z"))]);

function pointer(picture, event) { // the voxel under it; with a button down the cross goes there
  const {across, down, through} = picture.dataset, box = picture.getBoundingClientRect();
  const along = (axis, share) => Math.min(facts.size[axis] - 1, Math.max(0, Math.floor(facts.size[axis] * (1 - share))));
  const voxel = {
    [across]: along(across, (event.clientX - box.left) / box.width),
    [down]: along(down, (event.clientY - box.top) / box.height), [through]: at(through),
  };
  if (!event.buttons) return void tell(voxel.x, voxel.y, voxel.z);
  for (const axis of "xyz") part(`at-${axis}`).value = voxel[axis];
  move();
}

function preset() { // channels have ranges of their own
  const chosen = (facts.windows[at("fourth")] ?? facts.windows[0])[part("window").selectedIndex];
  if (chosen) [part("level").value, part("width").value] = [chosen.level, chosen.width].map((one) => +one.toPrecision(6));
}

async function play({target: button}) {
  const playing = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", playing);
  while (button.getAttribute("aria-pressed") === "true") {
    part("at-fourth").value = (at("fourth") + 1) % facts.names.length;
    await Promise.all([draw(), new Promise((done) => setTimeout(done, facts.frame_ms ?? 100))]);
  }
}

function showLabels() {
  const chosen = facts.masks[part("mask").value];
  part("labels").replaceChildren(...(chosen?.labels ?? []).map(({text, colour}) => {
    const swatch = make("span", {className: "swatch"});
    swatch.style.background = colour;
    return make("li", {}, swatch, text);
  }));
}

function openVolume() {
  const {mm, windows, masks} = facts;
  part("planes").style.gridTemplateColumns = `${mm.x}fr ${mm.y}fr`;
  part("planes").style.maxWidth = `calc((100vh - 14rem) * ${(mm.x + mm.y) / (mm.y + mm.z)})`;
  for (const axis of "xyz") {
    Object.assign(part(`at-${axis}`), {max: facts.size[axis] - 1, value: facts.at[axis], oninput: move});
  }
  part("window").append(...windows[0].map(({name}) => make("option", {text: name})), make("option", {text: "own"}));
  part("window").onchange = () => { preset(); draw(); };
  part("level").oninput = part("width").oninput = () => { part("window").value = "own"; draw(); };
  part("masks").hidden = !masks.length;
  part("mask").append(...masks.map(({name}, value) => make("option", {text: name, value})), make("option", {text: "none", value: ""}));
  part("mask").onchange = () => { showLabels(); draw(); };
  part("opacity").oninput = draw;
  for (const picture of pictures) {
    picture.onpointerdown = picture.onpointermove = (event) => pointer(picture, event);
    picture.addEventListener("wheel", (event) => {
      event.preventDefault();
      part(`at-${picture.dataset.through}`).value = at(picture.dataset.through) - Math.sign(event.deltaY);
      move();
    }, {passive: false});
  }
  preset();
  showLabels();
}

function image(element) { // shows an address; what the server says of one that fails is told
  return latest(async (url) => {
    if (element.shown === url) return;
    element.src = root + (element.shown = url);
    await element.decode().catch(() => ask(url));
  });
}

try {
  facts = await ask(address);
  for (const picture of pictures) {
    picture.show = image(picture.querySelector(".values"));
    if (picture.querySelector(".mask")) picture.showMask = image(picture.querySelector(".mask"));
    picture.style.aspectRatio = `${facts.mm[picture.dataset.across ?? "x"]} / ${facts.mm[picture.dataset.down ?? "y"]}`;
  }
  part("fourth").hidden = facts.names.length < 2;
  part("fourth-title").textContent = facts.fourth;
  Object.assign(part("at-fourth"), {max: facts.names.length - 1, oninput: () => { if (facts.windows && part("window").value !== "own") preset(); move(); }});
  part("play").onclick = play;
  part("facts").append(...[...facts.said, ...facts.refused].map((text) => make("li", {text})));
  if (facts.kind === "volume") openVolume();
  part("shown").hidden = false;
  await move();
} catch (error) {
  say(error.message, true);
}
