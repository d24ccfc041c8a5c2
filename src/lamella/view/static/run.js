// The page of a run, or of two: charts that the server draws anew as the logs grow.
import {ask, put, say} from "./ask.js";

const part = (name) => document.getElementById(name);
const POLL_MS = 2000;

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

async function follow(form, {run, version: seen}) {
  let asked = 0, more = false;
  async function draw() {
    const mine = ++asked;
    const answer = await ask(`api/runs/${run}/charts?${new URLSearchParams(new FormData(form))}&seen=${seen}`);
    if (mine !== asked) return; // the controls were changed meanwhile
    ({version: seen, more} = answer);
    say(answer.status);
    if (answer.html === null) return;
    const held = [...document.querySelectorAll(".chart > svg")].indexOf(document.activeElement);
    put(answer.html, part("charts"));
    document.querySelectorAll(".chart > svg")[held]?.focus();
  }
  const drawSafely = () => draw().catch((error) => say(`The curves stand still: ${error.message}`, true));
  form.onchange = () => { seen = ""; drawSafely(); };
  for (;;) {
    await new Promise((done) => setTimeout(done, more ? 0 : POLL_MS));
    if (!document.hidden && form.elements.live.checked) await drawSafely();
  }
}
if (part("curves")) follow(part("curve-controls"), part("curves").dataset);
