// Keys, and the buttons that do the same; the page's help lists them.
export function steer(viewer, layers) {
  const {viewport} = viewer;
  const move = (x, y) => () => {
    const {width, height} = viewport.getBounds();
    viewport.panBy(new globalThis.OpenSeadragon.Point(x * width / 5, y * height / 5)).applyConstraints();
  };
  const zoom = (factor) => () => viewport.zoomBy(factor).applyConstraints();
  const does = {
    "+": zoom(1.5), "=": zoom(1.5), "-": zoom(1 / 1.5), 0: () => viewport.goHome(),
    ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1),
    "[": () => layers.top()?.strengthen(-2), "]": () => layers.top()?.strengthen(2),
    l: () => document.body.classList.toggle("bare"),
    f: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
    "?": () => document.getElementById("help").showModal(),
  };
  for (const button of document.querySelectorAll("[data-key]")) button.onclick = does[button.dataset.key];
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (!Object.hasOwn(does, event.key)) return;
    event.preventDefault();
    does[event.key]();
  });
}
