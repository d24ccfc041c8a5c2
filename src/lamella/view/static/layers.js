// The list of layers, which the server wrote into the page: which are shown, how strongly, in which colours.
import {ask, say} from "./ask.js";
import {layOver} from "./laid.js";

const LOOK = ["opacity", "channel", "map", "low", "high"]; // names of a form's fields, and their order in the address
const TYPING_MS = 200; // after the last letter, before a search

export function showLayers(section, slide, viewer) {
  const rows = new Map();
  const shown = []; // the last one lies on top
  const listeners = [];
  const changed = () => listeners.forEach((listener) => listener());
  for (const form of section.querySelectorAll("form[data-layer]")) {
    const row = layerRow(form, slide, viewer);
    const {id} = row.info;
    rows.set(id, row);
    form.addEventListener("look", () => {
      if (shown.includes(id) !== row.on()) {
        if (row.on()) shown.push(id); else shown.splice(shown.indexOf(id), 1);
      }
      changed();
    });
  }
  return {
    rows,
    onChange(listener) { listeners.push(listener); },
    strengthen(step) { if (shown.length) rows.get(shown.at(-1)).strengthen(step); },
    state: () => shown.map((id) => [id, ...LOOK.map((name) => rows.get(id).look()[name] ?? "")]
      .map(encodeURIComponent).join("~")),
    restore(states) {
      const wanted = states.map((state) => state.split("~").map(decodeURIComponent)).filter(([id]) => rows.has(id));
      for (const [id, row] of rows) if (!wanted.some(([other]) => other === id)) row.turn(false);
      for (const [id, ...values] of wanted) rows.get(id).turn(true, values);
    },
  };
}

function layerRow(form, slide, viewer) {
  const info = slide.layers.find(({id}) => id === form.dataset.layer);
  const field = form.elements;
  const laid = layOver(viewer, slide, info, (text) => { form.querySelector(".count").textContent = text; });
  let typing = 0, hidden = false; // hidden: by a comparison, though turned on
  const look = () => Object.fromEntries(new FormData(form));
  function show() {
    laid.show(field.shown.checked && !hidden ? look() : null);
    form.dispatchEvent(new Event("look"));
  }

  async function legend() { // the range of values belongs to the channel
    if (!field.low) return;
    try {
      const {low, high, unit, stops, bare} = await ask(`api/slides/${slide.id}/layers/${info.id}/legend?${new URLSearchParams(look())}`);
      form.querySelector(".ramp").style.background = `linear-gradient(to right, ${stops})`;
      form.querySelector(".unit").textContent = unit;
      form.querySelector(".bare").textContent = bare && `Left bare: ${bare}`;
      for (const [end, value] of [["low", low], ["high", high]]) {
        field[end].placeholder = Number(value.toPrecision(3));
        const slider = form.querySelector(`[data-end=${end}]`);
        Object.assign(slider, {min: low, max: high, step: (high - low) / 200 || 1, value: field[end].value || value});
      }
    } catch (error) { say(error.message, true); }
  }

  async function search() {
    const found = await ask(`api/slides/${slide.id}/layers/${info.id}/channels?${new URLSearchParams(
      {search: field.find.value, limit: 20})}`);
    field.find.list.replaceChildren(...found.channels.map((name) => new Option(name, name)));
    const exact = found.channels.find((name) => name.toLowerCase() === field.find.value.toLowerCase());
    form.querySelector(".found").textContent = exact ? "" : `${found.channels.length || "none"} found`;
    if (exact && exact !== field.channel.value) choose(exact);
  }

  function choose(channel) {
    Object.assign(field.channel, {value: channel});
    if (field.low) field.low.value = field.high.value = "";
    legend();
    show();
  }

  form.onsubmit = (event) => event.preventDefault();
  form.oninput = ({target}) => {
    if (target === field.find) { clearTimeout(typing); typing = setTimeout(search, TYPING_MS); }
    if (target.dataset.end) field[target.dataset.end].value = Number(Number(target.value).toPrecision(3));
    if (target === field.opacity) show();
  };
  form.onchange = ({target}) => {
    if (target === field.find || target === field.opacity) return;
    if (target === field.channel) return choose(target.value);
    if (target === field.map || target === field.low || target === field.high) legend();
    if (target === field.shown && target.checked) legend();
    show();
  };
  return {
    info, laid, look, on: () => field.shown.checked,
    hide(whether) { if (hidden !== whether) { hidden = whether; show(); } },
    turn(on, values = []) {
      values.forEach((value, number) => { if (field[LOOK[number]]) field[LOOK[number]].value = value; });
      if (field.find && field.channel.value) field.find.value = field.channel.value;
      if (!on && !field.shown.checked) return;
      field.shown.checked = on;
      if (on) legend();
      show();
    },
    strengthen(step) {
      field.opacity.value = Number(field.opacity.value) + step;
      show();
    },
  };
}
