// The page of a run, or of two: charts that the server draws anew as the logs grow, and the search of settings.
import {ask, put, say} from "./ask.js";

const part = (name) => document.getElementById(name);
const POLL_MS = 2000;

if (part("curves")) {
  const {run, version} = part("curves").dataset, form = part("curve-controls");
  let seen = version, asked = 0;
  const draw = async () => {
    const mine = ++asked;
    try {
      const answer = await ask(`api/runs/${run}/charts?${new URLSearchParams(new FormData(form))}&seen=${seen}`);
      if (mine !== asked) return; // the controls were changed meanwhile
      if (answer.html !== null) {
        const held = [...document.querySelectorAll(".chart > svg")].indexOf(document.activeElement);
        put(answer.html, part("charts"));
        if (held >= 0) document.querySelectorAll(".chart > svg")[held]?.focus();
      }
      seen = answer.version;
      say(answer.status);
      next = setTimeout(later, answer.more ? 0 : POLL_MS);
    } catch (error) {
      say(`The curves stand still: ${error.message}`, true);
      next = setTimeout(later, POLL_MS);
    }
  };
  const later = () => (document.hidden || !form.elements.live.checked ? (next = setTimeout(later, POLL_MS)) : draw());
  let next = setTimeout(later, POLL_MS);
  form.onchange = () => { clearTimeout(next); seen = ""; draw(); };
  form.onsubmit = (event) => { event.preventDefault(); form.onchange(); };
}

// Values under the pointer, from the ends of the chart's axes.
document.addEventListener("pointermove", ({target, clientX, clientY}) => {
  const chart = target.closest?.(".chart > svg");
  if (!chart) return;
  const [x0, x1, y0, y1] = chart.dataset.ends.split(" ").map(Number);
  const {x, y} = new DOMPoint(clientX, clientY).matrixTransform(chart.getScreenCTM().inverse());
  const across = (x - 58) / 316, up = (168 - y) / 160; // where run_charts.html has its axes
  const value = "log" in chart.dataset ? y0 * (y1 / y0) ** up : y0 + up * (y1 - y0);
  const place = Math.round(x0 + across * (x1 - x0)).toLocaleString("en");
  part("reading").textContent = `at ${place}: ${value.toPrecision(4)}`;
});

if (part("find")) {
  part("find").oninput = part("given").onchange = () => {
    const wanted = part("find").value.toLowerCase(), rows = [...part("settings-table").tBodies[0].rows];
    for (const row of rows) {
      const left = part("given").checked && !("given" in row.dataset);
      row.hidden = left || !row.textContent.toLowerCase().includes(wanted);
    }
    part("found").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} settings`;
  };
}
