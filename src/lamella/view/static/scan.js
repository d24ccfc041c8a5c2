// A volume in three linked planes, or a film: every picture comes from the server; this moves the cross and the sliders.
import {ask, root, say} from "./ask.js";

const part = (name) => document.getElementById(name);
const main = document.querySelector("main"), address = `api/scans/${main.dataset.scan}`;
const at = (axis) => Number(part(`at-${axis}`).value);
const count = (axis) => Number(part(`at-${axis}`).max) + 1;
const pictures = [...document.querySelectorAll(".picture")];

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

function shownBy(image) { // what the server says of a picture that does not come is told
  return latest(async (url) => {
    if (image.dataset.shown === url) return;
    image.src = root + (image.dataset.shown = url);
    await image.decode().catch(() => ask(url));
  });
}

const tell = latest(async (x, y, z) => {
  part("value").textContent = (await ask(`${address}/values?x=${x}&y=${y}&z=${z}&channel=${at("fourth")}`)).text;
});

function draw() {
  say("");
  for (const {id} of document.querySelectorAll("output")) {
    const axis = id.replace("said-", ""), time = axis === "fourth" && main.dataset.step * at(axis) / 1000;
    part(id).textContent = `${at(axis) + 1} of ${count(axis)}${time ? `, ${time.toFixed(2)} s` : ""}`;
  }
  const look = new URLSearchParams(new FormData(part("look")));
  if (main.dataset.kind === "video") return pictures[0].show(`${address}/frames/${at("fourth")}.jpg?${look}`);
  const share = (axis) => `${100 * (1 - (at(axis) + .5) / count(axis))}%`; // pictures run against their axes
  return Promise.all(pictures.map((picture) => {
    const {across, down, through} = picture.dataset, plane = `planes/${through}/${at(through)}.png?${look}`;
    picture.querySelector(".upright").style.left = share(across);
    picture.querySelector(".level").style.top = share(down);
    const mask = Object.assign(picture.querySelector(".mask"), {hidden: !part("mask")?.value});
    mask.style.opacity = part("opacity")?.value;
    if (!mask.hidden) picture.showMask(`${address}/masks/${part("mask").value}/${plane}`);
    return picture.show(`${address}/${plane}&channel=${at("fourth")}`);
  }));
}

const move = () => Promise.all([draw(), part("value") && tell(at("x"), at("y"), at("z"))]);

function pointer(picture, event) { // the voxel under it; with a button down the cross goes there
  const {across, down, through} = picture.dataset, box = picture.getBoundingClientRect();
  const along = (axis, share) => Math.min(count(axis) - 1, Math.max(0, Math.floor(count(axis) * (1 - share))));
  const voxel = {
    [across]: along(across, (event.clientX - box.left) / box.width),
    [down]: along(down, (event.clientY - box.top) / box.height), [through]: at(through),
  };
  if (!event.buttons) return tell(voxel.x, voxel.y, voxel.z);
  for (const axis of "xyz") part(`at-${axis}`).value = voxel[axis];
  return move();
}

async function play({target: button}) {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
  while (button.getAttribute("aria-pressed") === "true") {
    part("at-fourth").value = (at("fourth") + 1) % count("fourth");
    await Promise.all([move(), new Promise((done) => setTimeout(done, main.dataset.step || 100))]);
  }
}

for (const picture of pictures) {
  const {through, ratio} = picture.dataset;
  picture.style.aspectRatio = ratio;
  picture.show = shownBy(picture.querySelector(".values"));
  if (!through) continue;
  picture.showMask = shownBy(picture.querySelector(".mask"));
  picture.onpointerdown = picture.onpointermove = (event) => pointer(picture, event);
  picture.onwheel = (event) => {
    event.preventDefault();
    part(`at-${through}`).value = at(through) - Math.sign(event.deltaY);
    move();
  };
}
if (part("planes")) { // all in sight, with what stands above and below
  const {columns, ratio} = part("planes").dataset;
  Object.assign(part("planes").style, {gridTemplateColumns: columns, maxWidth: `calc((100vh - 21rem) * ${ratio})`});
}
main.oninput = move;
part("play").onclick = play;
part("look").onsubmit = (event) => event.preventDefault();
await move();
