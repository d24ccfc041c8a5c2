// A volume in three linked planes, or a film: the pictures come from the server, this moves the cross and the sliders.
import {ask, root, say} from "./ask.js";

const part = (name) => document.getElementById(name);
const main = document.querySelector("main"), address = `api/scans/${main.dataset.scan}`;
const at = (axis) => Number(part(`at-${axis}`).value);
const count = (axis) => Number(part(`at-${axis}`).max) + 1;
const pictures = [...document.querySelectorAll(".picture")];
const axes = [...main.querySelectorAll("output")].map(({id}) => id.replace("said-", ""));

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

const tell = latest(async (voxel) => {
  const {text} = await ask(`${address}/values?${new URLSearchParams({...voxel, channel: at("fourth")})}`);
  part("value").textContent = text;
});

function draw() {
  say("");
  for (const axis of axes) {
    const time = axis === "fourth" && main.dataset.step * at(axis) / 1000;
    part(`said-${axis}`).textContent = `${at(axis) + 1} of ${count(axis)}${time ? `, ${time.toFixed(2)} s` : ""}`;
    // Planes run against their axes.
    main.style.setProperty(`--${axis}`, `${100 * (1 - (at(axis) + .5) / count(axis))}%`);
  }
  const look = new URLSearchParams(new FormData(part("look"))), mask = part("mask")?.value;
  if (main.dataset.kind === "video") return pictures[0].show(`${address}/frames/${at("fourth")}.jpg?${look}`);
  main.style.setProperty("--opacity", mask ? part("opacity").value : 0);
  return Promise.all(pictures.map((picture) => {
    const {through} = picture.dataset, plane = `planes/${through}/${at(through)}.png?${look}`;
    if (mask) picture.showMask(`${address}/masks/${mask}/${plane}`);
    return picture.show(`${address}/${plane}&channel=${at("fourth")}`);
  }));
}

const move = () => Promise.all([draw(), part("value") && tell({x: at("x"), y: at("y"), z: at("z")})]);

function pointer({currentTarget, clientX, clientY, buttons}) { // with a button down the cross goes there
  const {across, down, through} = currentTarget.dataset, box = currentTarget.getBoundingClientRect();
  const along = (axis, share) => Math.max(0, Math.ceil(count(axis) * (1 - share)) - 1);
  const voxel = {
    [across]: along(across, (clientX - box.left) / box.width),
    [down]: along(down, (clientY - box.top) / box.height), [through]: at(through),
  };
  if (!buttons) return tell(voxel);
  for (const axis in voxel) part(`at-${axis}`).value = voxel[axis];
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
  picture.onpointerdown = picture.onpointermove = pointer;
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
