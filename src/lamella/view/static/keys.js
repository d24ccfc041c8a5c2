// Buttons and keys do the same things; the list of keys is in the page's help.
export function steer(viewer, layers) {
  const {viewport} = viewer;
  const {body, documentElement: whole} = document;
  const move = (x, y) => () => {
    const {width, height} = viewport.getBounds();
    viewport.panBy(new globalThis.OpenSeadragon.Point(x * width / 5, y * height / 5)).applyConstraints();
  };
  const zoom = (factor) => () => viewport.zoomBy(factor).applyConstraints();
  const does = {
    in: zoom(1.5), out: zoom(1 / 1.5), home: () => viewport.goHome(),
    left: move(-1, 0), right: move(1, 0), up: move(0, -1), down: move(0, 1),
    fainter: () => layers.strengthen(-0.1), stronger: () => layers.strengthen(0.1),
    panel: () => body.classList.toggle("bare"),
    full: () => (document.fullscreenElement ? document.exitFullscreen() : whole.requestFullscreen()),
    help: () => document.getElementById("help").showModal(),
  };
  const keys = {ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "in", "=": "in", "-": "out",
    0: "home", "[": "fainter", "]": "stronger", l: "panel", f: "full", "?": "help"};
  for (const button of document.querySelectorAll("[data-does]")) button.onclick = does[button.dataset.does];
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, dialog, [contenteditable]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    does[keys[event.key]]();
  });
}
