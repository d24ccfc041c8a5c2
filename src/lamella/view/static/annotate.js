// Drawing on the slide. What is drawn is saved by itself; the server wrote the controls into the page.
import {ask, make, root} from "./ask.js";
import {drawn, saving} from "./saving.js";
import {boxInView, goTo, placeAt} from "./viewer.js";

const LISTED = 200; // objects in the list; more would make the page slow
const NEAR_PX = 8; // display pixels from a point that still hit it
const HINTS = {
  rectangle: "Drag over the slide.", point: "Click on the slide.",
  polygon: "Click corner by corner; a double click, or a click on the first corner, closes it.",
};
const DRAWN_BY_HAND = {type: "Feature", properties: {objectType: "annotation"}, editable: true};

// Polygons of GeoJSON (rings, closed) as Annotorious draws them.
function selectorOf(polygons) {
  const bounds = (ring) => {
    const [xs, ys] = [ring.map(([x]) => x), ring.map(([, y]) => y)];
    return {minX: Math.min(...xs), minY: Math.min(...ys), maxX: Math.max(...xs), maxY: Math.max(...ys)};
  };
  const parts = polygons.map((rings) => ({rings: rings.map((ring) => ({points: ring.slice(0, -1)})), bounds: bounds(rings[0])}));
  return {type: "MULTIPOLYGON", geometry: {polygons: parts, bounds: bounds(polygons.flatMap(([outline]) => outline))}};
}
const boxRing = (x, y, w, h) => [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]];

// Returns {add(feature, name), className(), author, onChange(listener), setTool(name), onTool(listener)}: what other
// tools add is saved as if it were drawn; while another tool than "move" is set, clicks select nothing.
export async function annotate(section, slide, viewer) {
  const part = (name) => section.querySelector(`[data-part=${name}]`);
  const author = localStorage.getItem("lamella-author") || slide.author;
  const path = `api/slides/${slide.id}/annotations`, ownPath = `${path}/${encodeURIComponent(author)}`;
  const {authors, classes, free_colours: free, refused, read_only: readOnly} = await ask(path);
  const listeners = {change: [], tool: []};
  let tool = "move";

  const chosen = part("class");
  const nameOf = ({properties}) => properties?.feature.properties?.classification?.name ?? "";
  const own = ({properties}) => !properties || properties.author === author;
  const editable = ({properties}) => !properties || properties.feature.editable;
  function classed({properties: {classification, ...rest}, ...feature}, name) {
    const color = [1, 3, 5].map((at) => parseInt(classes[name]?.slice(at, at + 2), 16));
    return {...feature, properties: name ? {...rest, classification: {name, color}} : rest};
  }
  function showClasses(name) {
    classes[name] ??= free.find((colour) => !Object.values(classes).includes(colour)) ?? free[0];
    chosen.replaceChildren(new Option("no class", ""), ...Object.keys(classes).map((each) => new Option(each)));
    chosen.value = name;
  }

  const anno = globalThis.AnnotoriousOSD.createOSDAnnotator(viewer, {
    drawingEnabled: false, drawingMode: "drag", polygonSimplificationTolerance: 0.1,
    userSelectAction: (item) => (tool !== "move" || !own(item) ? "NONE" : editable(item) ? "EDIT" : "SELECT"),
    style: (item, state) => ({ // of others, and of regions, the edge alone
      fill: classes[nameOf(item)], stroke: classes[nameOf(item)] ?? "#868e96",
      fillOpacity: own(item) && nameOf(item) !== "Region" ? 0.2 : 0,
      strokeWidth: editable(item) ? 3 : state?.selected ? 14 : 9,
    }),
  });
  const {store} = anno.state;
  function tell(text, fault = false) {
    part("saved").textContent = text;
    part("saved").classList.toggle("fault", fault);
  }
  const mine = saving(ownPath, store, author, authors[author]?.version ?? 0, tell);
  const selected = () => anno.getSelected()[0];
  function add({geometry: {type, coordinates}, ...feature}, name = chosen.value) {
    const made = {...DRAWN_BY_HAND, ...feature, selector: selectorOf(type === "Polygon" ? [coordinates] : coordinates)};
    store.addAnnotation(drawn({...classed(made, name), id: undefined}, author), "LOCAL");
  }
  function addPoint(x, y) {
    const geometry = {type: "Point", coordinates: [x, y]}, selector = selectorOf([[boxRing(x - 0.5, y - 0.5, 1, 1)]]);
    const made = classed({...DRAWN_BY_HAND, geometry, selector, editable: false}, chosen.value);
    store.addAnnotation(drawn({...made, id: undefined}, author), "LOCAL");
  }

  // The list: a way to every object without a mouse.
  function show() {
    const items = store.all().filter((item) => own(item) && item.properties).reverse();
    part("drawn").replaceChildren(...items.slice(0, LISTED).map((item) => {
      const {minX, minY, maxX, maxY} = item.target.selector.geometry.bounds;
      const [w, h] = [(maxX - minX) * slide.mpp_x, (maxY - minY) * slide.mpp_y].map((um) => um.toPrecision(3));
      const swatch = make("span", {className: "swatch"});
      swatch.style.background = classes[nameOf(item)] ?? "";
      return make("li", {}, make("button", {
        type: "button", "aria-pressed": String(selected()?.id === item.id),
        onclick() {
          const margin = Math.max(maxX - minX, maxY - minY, 100), [x0, y0, x1, y1] = boxInView(viewer);
          setTool("move");
          anno.setSelected(item.id, editable(item));
          if (minX < x0 || minY < y0 || maxX > x1 || maxY > y1) {
            goTo(viewer, [minX - margin, minY - margin, maxX + margin, maxY + margin]);
          }
        },
      }, swatch, `${nameOf(item) || "no class"}, ${editable(item) ? `${w} × ${h} µm` : item.properties.feature.geometry.type}`));
    }));
    part("more").textContent = items.length > LISTED ? `and ${items.length - LISTED} more` : items.length ? "" : "Nothing yet.";
    part("export").hidden = !items.length;
    section.querySelector("[data-act=remove]").disabled = !selected();
    listeners.change.forEach((listener) => listener(items));
  }

  function setTool(name) {
    tool = name;
    anno.cancelDrawing();
    anno.cancelSelected();
    if (name in HINTS && name !== "point") anno.setDrawingTool(name);
    anno.setDrawingMode(name === "polygon" ? "click" : "drag");
    anno.setDrawingEnabled(name in HINTS && name !== "point");
    viewer.element.dataset.tool = name;
    part("hint").textContent = HINTS[name] ?? "";
    for (const button of section.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
    listeners.tool.forEach((listener) => listener(name));
  }

  // Changes, from wherever they come.
  store.observe(({changes: {created, updated, deleted}}) => {
    const items = [...created, ...deleted, ...updated.map(({newValue}) => newValue)];
    mine.touch(items.filter(({properties}) => properties).map(({id}) => id));
  }, {origin: "LOCAL"});
  store.observe(show);
  anno.on("createAnnotation", (item) => { // drawn by hand: it has no class yet
    if (item.properties) return;
    store.updateAnnotation({...item, properties: {author, feature: classed(DRAWN_BY_HAND, chosen.value)}}, "LOCAL");
    anno.cancelSelected();
  });
  anno.on("selectionChanged", ([item]) => {
    if (item) chosen.value = nameOf(item);
    show();
  });
  viewer.addHandler("canvas-click", ({quick, position}) => {
    const [x, y] = placeAt(viewer, position), [x0, , x1] = boxInView(viewer);
    const near = NEAR_PX * (x1 - x0) / viewer.element.clientWidth;
    if (quick && tool === "point") addPoint(x, y);
    const hit = tool === "move" && store.all().find((item) => {
      const {minX, minY, maxX, maxY} = item.target.selector.geometry.bounds;
      return own(item) && !editable(item) && Math.hypot((minX + maxX) / 2 - x, (minY + maxY) / 2 - y) < near;
    });
    if (hit) anno.setSelected(hit.id, false);
  });

  const does = {
    undo: anno.undo, redo: anno.redo, save: mine.save,
    remove() { if (selected()) anno.removeAnnotation(selected().id); },
  };
  const keys = {b: "rectangle", o: "polygon", p: "point", Escape: "move"};
  for (const button of section.querySelectorAll("[data-act]")) button.onclick = () => does[button.dataset.act]();
  for (const button of section.querySelectorAll("[data-tool]")) button.onclick = () => setTool(button.dataset.tool);
  addEventListener("keydown", (event) => {
    if (event.target.closest?.("input:not([type=checkbox]), select, dialog") || event.ctrlKey || event.metaKey) return;
    if (Object.hasOwn(keys, event.key)) setTool(keys[event.key]);
    else if (event.key === "u") does.undo();
    else if (event.key === "Delete") does.remove();
  });
  chosen.onchange = () => {
    const item = selected(), name = chosen.value;
    anno.cancelSelected();
    if (item) store.updateAnnotation({...item, properties: {author, feature: classed(item.properties.feature, name)}}, "LOCAL");
  };
  const submits = {
    classes({name}) { showClasses(name.trim()); chosen.onchange(); },
    numbers({x, y, w, h, unit}) {
      const [sx, sy] = unit === "um" ? [slide.mpp_x, slide.mpp_y] : [1, 1];
      if (!(w > 0 && h > 0)) addPoint(x / sx, y / sy);
      else add({geometry: {type: "Polygon", coordinates: [boxRing(x / sx, y / sy, w / sx, h / sy)]}});
    },
    async author({name}) { // another name: another file
      await mine.save();
      if (mine.pending()) return;
      localStorage.setItem("lamella-author", name.trim());
      location.reload();
    },
  };
  for (const [name, act] of Object.entries(submits)) {
    part(name).onsubmit = (event) => { event.preventDefault(); act(Object.fromEntries(new FormData(event.target))); };
  }
  part("import").onchange = async ({target}) => {
    try {
      await mine.save();
      const body = JSON.parse(await target.files[0].text());
      const found = await ask(`${ownPath}/import`, {method: "POST", body});
      Object.assign(classes, {...found.classes, ...classes});
      showClasses(chosen.value);
      mine.take(found);
      tell(`${found.read} objects read, saved as version ${found.version}.`);
    } catch (error) {
      tell(`Not imported: ${error.message}`, true);
    }
    target.value = "";
  };
  Object.assign(part("export"), {href: `${root}${ownPath}.geojson`, download: `${slide.name}.geojson`});
  part("author").elements.name.value = author;
  part("others").onchange = ({target}) => anno.setFilter((item) => own(item) || target.checked);
  addEventListener("beforeunload", (event) => { if (mine.pending()) event.preventDefault(); });

  anno.setAnnotations(Object.entries(authors).flatMap(([name, {features}]) => features.map((item) => drawn(item, name))));
  part("names").textContent = Object.keys(authors).filter((name) => name !== author).join(", ") || "nobody so far";
  tell([readOnly, ...Object.values(refused)].filter(Boolean).join(" "), true);
  showClasses(Object.keys(classes)[0]);
  setTool("move");
  show();
  return {
    anno, add, author, setTool, className: () => chosen.value,
    onChange: (listener) => listeners.change.push(listener), onTool: (listener) => listeners.tool.push(listener),
  };
}
