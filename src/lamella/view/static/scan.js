// A volume in three linked planes, or a film: the pictures come from the server, this moves the cross and the sliders.
import {ask, root, say} from "./ask.js";

const part = (name) => document.getElementById(name);
const main = document.querySelector("main"), address = `api/scans/${main.dataset.scan}`;
const at = (axis) => Number(part(`at-${axis}`).value);
const count = (axis) => Number(part(`at-${axis}`).max) + 1;
const pictures = [...document.querySelectorAll(".picture")];
const axes = [...main.querySelectorAll("output")].map(({id}) => id.replace("said-", ""));
let pointed = null; // the voxel under the pointer

let busy = false, again = false;
async function update() { // one round at a time; what changed meanwhile is shown by the next
  again = true;
  while (again && !busy) {
    [busy, again] = [true, false];
    await round().catch((error) => say(error.message, true));
    busy = false;
  }
}

async function load(image, place) {
  if (image.dataset.shown === place) return;
  image.src = root + (image.dataset.shown = place);
  await image.decode().catch(() => ask(place)); // which says why
}

async function tell(channel) {
  const voxel = pointed ?? {x: at("x"), y: at("y"), z: at("z")};
  part("value").textContent = (await ask(`${address}/values?${new URLSearchParams({...voxel, channel})}`)).text;
}

function round() {
  say("");
  for (const axis of axes) {
    const time = axis === "fourth" && main.dataset.step * at(axis) / 1000;
    part(`said-${axis}`).textContent = `${at(axis) + 1} of ${count(axis)}${time ? `, ${time.toFixed(2)} s` : ""}`;
    // Planes run against their axes.
    main.style.setProperty(`--${axis}`, `${100 * (1 - (at(axis) + .5) / count(axis))}%`);
  }
  const channel = at("fourth"), look = new URLSearchParams([...new FormData(part("look")), ["channel", channel]]);
  const chosen = part("mask")?.value;
  main.style.setProperty("--opacity", chosen ? part("opacity").value : 0);
  return Promise.all([part("value") && tell(channel), ...pictures.flatMap((picture) => {
    const {from, through} = picture.dataset, place = `${from}/${at(through)}?${look}`;
    const [values, mask] = picture.querySelectorAll("img");
    return [load(values, `${address}/${place}`), chosen && load(mask, `${address}/masks/${chosen}/${place}`)];
  })]);
}

function pointer({currentTarget, clientX, clientY, buttons}) { // with a button down the cross goes there
  const {across, down, through} = currentTarget.dataset, box = currentTarget.getBoundingClientRect();
  const along = (axis, share) => Math.max(0, Math.ceil(count(axis) * (1 - share)) - 1);
  pointed = {
    [across]: along(across, (clientX - box.left) / box.width),
    [down]: along(down, (clientY - box.top) / box.height), [through]: at(through),
  };
  if (buttons) for (const axis in pointed) part(`at-${axis}`).value = pointed[axis];
  update();
}

async function play({target: button}) {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
  while (button.getAttribute("aria-pressed") === "true") {
    part("at-fourth").value = (at("fourth") + 1) % count("fourth");
    await Promise.all([update(), new Promise((done) => setTimeout(done, main.dataset.step || 100))]);
  }
}

for (const picture of document.querySelectorAll(".planes .picture")) {
  picture.onpointerdown = picture.onpointermove = pointer;
  picture.onpointerleave = () => { pointed = null; update(); };
  picture.onwheel = (event) => {
    event.preventDefault();
    part(`at-${picture.dataset.through}`).value -= Math.sign(event.deltaY);
    pointer(event);
  };
}
main.oninput = () => { pointed = null; update(); };
part("play").onclick = play;
await update();
