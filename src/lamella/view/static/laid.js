// One layer on one viewer: its tiles and, where few enough are in view, the outlines of its objects.
import {ask, root} from "./ask.js";
import {outlinesOn} from "./outlines.js";
import {boxInView, tileSource} from "./viewer.js";

const MOST_OUTLINES = 3000; // more are not told apart, and take long to draw
const REST_MS = 150; // without movement, before objects are asked for
const READING_MS = 700; // before asking again while their file is still being read

// tell(text) is told how many objects are in view. `look`: {opacity, channel, map, low, high} as texts.
export function layOver(viewer, slide, info, tell = () => {}) {
  const base = `api/slides/${slide.id}/layers/${info.id}`;
  const outlines = info.objects ? outlinesOn(viewer, info) : null;
  let look = null, item = null, asked = "", part = null, timer = 0, turn = 0;

  function paint() {
    const opacity = look ? Number(look.opacity) : 0;
    outlines?.strength(opacity);
    item?.setOpacity(outlines?.any() ? 0 : opacity); // tiles stand in for outlines that are too many
  }

  function tiles() {
    const {opacity, ...rest} = look;
    const query = new URLSearchParams(Object.entries(rest).filter(([, value]) => value));
    if (asked === String(query) && item) return;
    const [old, address] = [item, asked = String(query)];
    item = null;
    viewer.addTiledImage({
      tileSource: tileSource(slide, (level, x, y) => `${root}${base}/tiles/${level}/${x}_${y}.png?${query}`),
      opacity: 0, preload: true, index: old ? viewer.world.getIndexOfItem(old) + 1 : undefined,
      success({item: made}) {
        if (!look || asked !== address) return void viewer.world.removeItem(made); // it was turned off meanwhile
        item = made;
        clip();
        const swap = () => { if (old) viewer.world.removeItem(old); paint(); };
        if (old) made.addOnceHandler("fully-loaded-change", swap); else swap();
      },
    });
  }

  async function objects() {
    if (!look) return;
    const [mine, [x0, y0, x1, y1]] = [++turn, boxInView(viewer).map(Math.round)];
    try {
      const {total, features, ready} = await ask(`${base}/objects?${new URLSearchParams({x0, y0, x1, y1,
        limit: MOST_OUTLINES})}`);
      if (mine !== turn || !look) return;
      outlines.draw(features);
      const count = `${total.toLocaleString("en")} in view`;
      tell((features.length < total ? `${count}, not outlined one by one: zoom in` : count)
        + (ready < 1 ? ` · ${Math.floor(ready * 100)} % of the file read` : ""));
      if (ready < 1) later(READING_MS);
      paint();
    } catch (error) { tell(error.message); }
  }
  function later(wait = REST_MS) { clearTimeout(timer); timer = setTimeout(objects, wait); }
  if (outlines) viewer.addHandler("viewport-change", () => { if (look) later(); });

  // Only the part of the viewer between two shares of its width, or all of it.
  function clip() {
    outlines?.clip(part);
    if (!item) return;
    if (!part) return void (item.getClip() && item.setClip(null));
    const [x0, y0, x1, y1] = boxInView(viewer);
    const [left, right] = part.map((share) => x0 + share * (x1 - x0));
    item.setClip(new globalThis.OpenSeadragon.Rect(left, y0, right - left, y1 - y0));
  }
  viewer.addHandler("viewport-change", () => { if (part) clip(); });

  return {
    show(wanted) {
      const before = look;
      look = wanted;
      if (!look) {
        if (item) viewer.world.removeItem(item);
        [item, asked] = [null, ""];
        outlines?.draw([]);
        tell("");
      } else {
        if (info.tiles) tiles();
        if (outlines && !before) later(0);
      }
      paint();
    },
    clip(shares) { part = shares; clip(); },
  };
}
