// One layer on one viewer: its tiles and, where few enough are in view, the outlines of its objects.
import {ask, root} from "./ask.js";
import {outlinesOn} from "./outlines.js";
import {boxInView, tileSource} from "./viewer.js";

const MOST_OUTLINES = 3000; // more are not told apart, and take long to draw
const REST_MS = 150; // without movement, before objects are asked for
const READING_MS = 700; // before asking again while their file is still being read

// Returns show(look): a form's data with opacity, channel, map, low and high, or null to hide the layer.
// tell(text, read) is told how many objects are in view, and when their file has been read to its end.
export function layOver(viewer, slide, info, tell = () => {}) {
  const base = `api/slides/${slide.id}/layers/${info.id}`;
  const outlines = info.objects ? outlinesOn(viewer) : null;
  const items = new Set(); // the tiles in sight and, for a moment, those that will take their place
  let look = null, asked = null, timer = 0, turn = 0, reading = false, whole = "";

  function paint() {
    const opacity = look ? Number(look.get("opacity")) : 0;
    if (outlines) outlines.place.style.opacity = 1.6 * opacity; // lines need more than areas
    for (const item of items) item.setOpacity(outlines?.place.firstChild ? 0 : opacity); // tiles stand in for too many
  }

  function keepOnly(item) {
    for (const other of items) if (other !== item) { viewer.world.removeItem(other); items.delete(other); }
    paint();
  }

  function tiles() {
    const query = String(new URLSearchParams([...look].filter(([name, value]) => value && name !== "opacity"))) + whole;
    if (asked?.query === query) return;
    const mine = asked = {query};
    const [old] = items;
    viewer.addTiledImage({
      tileSource: tileSource(slide, slide.layer_tile_px,
        (level, x, y) => `${root}${base}/tiles/${level}/${x}_${y}.png?${query}`),
      opacity: 0, preload: true, index: old ? viewer.world.getIndexOfItem(old) + 1 : undefined,
      success({item}) {
        if (mine !== asked) return void viewer.world.removeItem(item); // other tiles are wanted by now
        items.add(item);
        if (items.size > 1) item.whenFullyLoaded(() => { if (items.has(item)) keepOnly(item); }); else paint();
      },
    });
  }

  async function objects() {
    const mine = ++turn;
    const [x0, y0, x1, y1] = boxInView(viewer).map(Math.round);
    const box = {x0, y0, x1, y1, limit: MOST_OUTLINES, channel: look?.get("channel") ?? ""};
    const {svg, said, ready} = await ask(`${base}/objects?${new URLSearchParams(box)}`);
    if (mine !== turn || !look) return;
    outlines.draw(svg);
    tell(said, reading && ready === 1);
    if (ready < 1) { reading = true; later(READING_MS); }
    else if (reading) { reading = false; whole = "&whole=1"; tiles(); } // earlier ones show a part
    paint();
  }
  function later(wait) { clearTimeout(timer); timer = setTimeout(objects, wait); }
  viewer.addHandler("viewport-change", () => { if (look && outlines) later(REST_MS); });

  return function show(wanted) {
    if (wanted && outlines && wanted.get("channel") !== look?.get("channel")) later(0);
    look = wanted;
    if (look && info.tiles) tiles();
    if (look) return paint();
    asked = null;
    if (outlines) { outlines.draw(""); tell(""); }
    keepOnly(null);
  };
}
