// The list of layers, which the server wrote into the page: which are shown, how strongly, in which colours.
import {ask, put} from "./ask.js";
import {layOver} from "./laid.js";

const TYPING_MS = 200; // after the last letter, before a search

export function showLayers(section, slide, viewer) {
  const rows = new Map();
  const shown = new Set(); // the last one lies on top
  for (const form of section.querySelectorAll("form[data-layer]")) {
    rows.set(form.dataset.layer, layerRow(form, slide, viewer, shown));
  }
  return {
    rows,
    top: () => [...shown].at(-1),
    state: () => [...shown].map((row) => [row.info.id, ...row.look().values()].map(encodeURIComponent).join("~")),
    restore(states) {
      const wanted = states.map((state) => state.split("~").map(decodeURIComponent));
      for (const row of shown) if (!wanted.some(([id]) => id === row.info.id)) row.turn(false);
      for (const [id, ...look] of wanted) rows.get(id)?.turn(true, look);
    },
  };
}

function layerRow(form, slide, viewer, shown) {
  const info = slide.layers.find(({id}) => id === form.dataset.layer);
  const address = `api/slides/${slide.id}/layers/${info.id}`;
  const field = form.elements;
  const part = (name) => form.querySelector(`.${name}`);
  const [box, find] = [part("shown"), part("find")];
  const look = () => new FormData(form);
  const row = {info, form, look, turn, strengthen(steps) { field.opacity.stepUp(steps); show(); }};
  let typing = 0;
  const lay = layOver(viewer, slide, info, (text, read) => {
    part("count").textContent = text;
    if (read) legend(); // its classes are known now
  });

  function show() {
    lay(box.checked ? look() : null);
    if (box.checked) shown.add(row); else shown.delete(row);
    viewer.raiseEvent("layers");
  }

  function turn(on, values = []) { // values: of the look's fields, in their order
    [...look()].forEach(([name, before], number) => {
      field[name].value = values[number] || before;
      if (field[name].selectedIndex === -1) field[name].value = before; // no such choice any more
    });
    if (find && field.channel.value) find.value = field.channel.value;
    box.checked = on;
    show();
    if (on) legend();
  }

  async function legend() { // the range of values belongs to the channel
    const query = () => String(new URLSearchParams(look())), asked = query();
    const {html} = await ask(`${address}/legend?${asked}`);
    if (query() === asked) put(html, part("values")); else legend(); // another look was chosen meanwhile
  }

  function choose(channel) {
    field.channel.value = channel;
    if (field.low) field.low.value = field.high.value = "";
    turn(box.checked);
  }

  async function search() {
    const query = new URLSearchParams({search: find.value, limit: 20});
    const {channels, exact, said} = await ask(`${address}/channels?${query}`);
    find.list.replaceChildren(...channels.map((name) => new Option(name, name)));
    part("found").textContent = said;
    if (exact && exact !== field.channel.value) choose(exact);
  }

  form.oninput = ({target}) => {
    if (target === find) { clearTimeout(typing); typing = setTimeout(search, TYPING_MS); }
    if (target === field.opacity) show();
    if (target.dataset.end) field[target.dataset.end].value = Number(Number(target.value).toPrecision(3));
  };
  form.onchange = ({target}) => {
    if (target === field.channel) choose(target.value);
    else if (target === box || target === field.map) turn(box.checked);
    else if (target !== find) show();
  };
  return row;
}
