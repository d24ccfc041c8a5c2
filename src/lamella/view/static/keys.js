// Keys press the buttons that name them (data-key), or move the view; the page's help lists them all.
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
  for (const button of document.querySelectorAll("header [data-key]")) button.onclick = does[button.dataset.key];
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(fieldsOf(event.key))) return;
    const buttons = [...document.querySelectorAll(`[data-key="${CSS.escape(event.key)}"]:enabled`)];
    const button = buttons.find((one) => !one.closest("[hidden]"));
    if (!button && !Object.hasOwn(does, event.key)) return;
    event.preventDefault();
    if (button) button.click(); else does[event.key]();
  });
}

// Where a key has a meaning of its own.
function fieldsOf(key) {
  if (key === "Enter") return "a, button, input, select, summary, dialog";
  if (key.startsWith("Arrow")) return "input:not([type=checkbox]), select, dialog";
  return "input:not([type=checkbox], [type=radio]), select:not(.drawn), dialog";
}
