// Drawing on the slide. What is drawn is saved by itself; the server wrote the controls into the page.
import {ask, root} from "./ask.js";
import {drawn, saving} from "./saving.js";
import {boxInView, goTo, placeAt} from "./viewer.js";

const LISTED = 200; // objects in the list; more would make the page slow
const NEAR_PX = 8; // display pixels from a point that still hit it
const SHAPES = ["rectangle", "polygon"]; // what Annotorious draws
const BY_HAND = {type: "Feature", properties: {objectType: "annotation"}, editable: true};

// Returns {add(feature, name), className(), author, setTool(name), onTool(listener)}. Features of other tools come with
// their `selector` from the server and are saved as if they were drawn. While another tool than "move" is set, clicks
// select nothing.
export async function annotate(section, slide, viewer) {
  const part = (name) => section.querySelector(`[data-part=${name}]`);
  const author = localStorage.getItem("lamella-author") || slide.author;
  const path = `api/slides/${slide.id}/annotations`, ownPath = `${path}/${encodeURIComponent(author)}`;
  const {authors, classes: known, free_colours: free, refused, read_only: readOnly} = await ask(path);
  const classes = Object.assign(Object.create(null), known); // a class may be called "constructor"
  const listeners = [], chosen = part("class"), list = part("drawn");
  let tool = "move";

  const nameOf = ({properties}) => properties?.feature.properties?.classification?.name ?? "";
  const own = ({properties}) => !properties || properties.author === author;
  const editable = ({properties}) => !properties || properties.feature.editable;
  const anno = globalThis.AnnotoriousOSD.createOSDAnnotator(viewer, {
    drawingEnabled: false, drawingMode: "drag", polygonSimplificationTolerance: 0.1,
    userSelectAction: (item) => (tool !== "move" || !own(item) ? "NONE" : editable(item) ? "EDIT" : "SELECT"),
    style: (item, state) => ({ // of others, and of regions, the edge alone
      fill: classes[nameOf(item)], stroke: classes[nameOf(item)] ?? "#868e96",
      fillOpacity: own(item) && nameOf(item) !== "Region" ? 0.15 : 0,
      strokeWidth: editable(item) ? 3 : state?.selected ? 14 : 9, // points are all edge
    }),
  });
  const {store} = anno.state, selected = () => anno.getSelected()[0];
  function tell(text, fault = false) {
    part("saved").textContent = text;
    part("saved").classList.toggle("fault", fault);
  }
  const mine = saving(ownPath, store, author, authors[author]?.version ?? 0, tell);

  function classed({properties: {classification, ...rest}, ...feature}, name) {
    const color = [1, 3, 5].map((at) => parseInt(classes[name]?.slice(at, at + 2), 16));
    return {...feature, properties: name ? {...rest, classification: {name, color}} : rest};
  }
  function showClasses(name) {
    classes[name] ??= free.find((colour) => !Object.values(classes).includes(colour)) ?? free[0];
    chosen.replaceChildren(new Option("no class", ""), ...Object.keys(classes).map((each) => new Option(each)));
    chosen.value = name;
  }
  const setFeature = (item, feature) => store.updateAnnotation({...item, properties: {author, feature}}, "LOCAL");
  function add(feature, name = chosen.value) {
    store.addAnnotation(drawn({...classed({...BY_HAND, ...feature}, name), id: undefined}, author), "LOCAL");
  }
  function addBox(x, y, w, h, more = {}) {
    const bounds = {minX: x, minY: y, maxX: x + w, maxY: y + h};
    add({selector: {type: "RECTANGLE", geometry: {x, y, w, h, rot: 0, bounds}}, ...more});
  }
  const addPoint = (x, y) => {
    addBox(x - 0.5, y - 0.5, 1, 1, {editable: false, geometry: {type: "Point", coordinates: [x, y]}});
  };

  // The list: a way to every object without a mouse.
  function show() {
    const items = store.all().filter((item) => own(item) && item.properties).reverse();
    list.replaceChildren(...items.slice(0, LISTED).map((item) => {
      const {minX, minY, maxX, maxY} = item.target.selector.geometry.bounds;
      const [w, h] = [(maxX - minX) * slide.mpp_x, (maxY - minY) * slide.mpp_y].map((um) => um.toPrecision(3));
      const size = editable(item) ? `${w} × ${h} µm` : item.properties.feature.geometry.type;
      return new Option(`${nameOf(item) || "no class"}, ${size}`, item.id, false, selected()?.id === item.id);
    }));
    const rest = items.length - LISTED;
    part("more").textContent = rest > 0 ? `and ${rest} more` : items.length ? "" : "Nothing yet.";
    section.querySelector("[data-act=remove]").disabled = !selected();
  }
  list.onchange = () => {
    const item = store.getAnnotation(list.value), [x0, y0, x1, y1] = boxInView(viewer);
    const {minX, minY, maxX, maxY} = item.target.selector.geometry.bounds;
    setTool("move");
    anno.setSelected(item.id, editable(item));
    if (minX >= x0 && minY >= y0 && maxX <= x1 && maxY <= y1) return;
    const margin = Math.max(maxX - minX, maxY - minY, 100);
    goTo(viewer, [minX - margin, minY - margin, maxX + margin, maxY + margin]);
  };

  function setTool(name) {
    tool = name;
    anno.cancelDrawing();
    anno.cancelSelected();
    if (SHAPES.includes(name)) anno.setDrawingTool(name);
    anno.setDrawingMode(name === "polygon" ? "click" : "drag");
    anno.setDrawingEnabled(SHAPES.includes(name));
    viewer.element.dataset.tool = name;
    for (const button of section.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
      if (button.dataset.tool === name) part("hint").textContent = button.dataset.hint;
    }
    listeners.forEach((listener) => listener(name));
  }

  // Changes, from wherever they come.
  store.observe(({changes: {created, updated, deleted}}) => {
    const items = [...created, ...deleted, ...updated.map(({newValue}) => newValue)];
    mine.touch(items.filter(({properties}) => properties).map(({id}) => id));
  }, {origin: "LOCAL"});
  store.observe(show);
  anno.on("createAnnotation", (item) => { // drawn by hand: it has no class yet
    if (item.properties) return;
    setFeature(item, classed(BY_HAND, chosen.value));
    anno.cancelSelected();
  });
  anno.on("selectionChanged", ([item]) => {
    if (item?.properties) chosen.value = nameOf(item);
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

  // Buttons, keys (of the buttons, here and in the other tools of the panel), forms.
  const does = {undo: anno.undo, redo: anno.redo, save: mine.save, remove: () => anno.removeAnnotation(selected().id)};
  for (const button of section.querySelectorAll("[data-act]")) button.onclick = () => does[button.dataset.act]();
  for (const button of section.querySelectorAll("[data-tool]")) button.onclick = () => setTool(button.dataset.tool);
  addEventListener("keydown", (event) => {
    const field = event.target.closest?.("input:not([type=checkbox]), select, dialog");
    const button = section.parentElement.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (event.ctrlKey || event.metaKey || event.altKey || (field && field !== list) || !button) return;
    event.preventDefault();
    button.click();
  });
  chosen.onchange = () => {
    const item = selected(), name = chosen.value;
    anno.cancelSelected();
    if (item) setFeature(item, classed(item.properties.feature, name));
  };
  const submits = {
    classes({name}) { showClasses(name.trim()); chosen.onchange(); },
    numbers({x, y, w, h, unit}) {
      const [sx, sy] = unit === "um" ? [slide.mpp_x, slide.mpp_y] : [1, 1];
      if (w > 0 && h > 0) addBox(x / sx, y / sy, w / sx, h / sy);
      else addPoint(x / sx, y / sy);
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
      await ask(`${ownPath}/import`, {method: "POST", body: JSON.parse(await target.files[0].text())});
      location.reload();
    } catch (error) {
      tell(`Not imported: ${error.message}`, true);
    }
  };
  Object.assign(part("export"), {href: `${root}${ownPath}.geojson`, download: `${slide.name}.geojson`});
  part("author").elements.name.value = author;
  part("others").onchange = ({target}) => anno.setFilter((item) => own(item) || target.checked);
  addEventListener("beforeunload", (event) => { if (mine.pending()) event.preventDefault(); });

  const all = Object.entries(authors).flatMap(([name, {features}]) => features.map((item) => drawn(item, name)));
  store.bulkUpsertAnnotations(all, "REMOTE");
  part("names").textContent = Object.keys(authors).filter((name) => name !== author).join(", ") || "nobody so far";
  tell([readOnly, ...Object.values(refused)].filter(Boolean).join(" "), true);
  showClasses(Object.keys(classes)[0]);
  setTool("move");
  show();
  return {anno, add, author, setTool, className: () => chosen.value, onTool: (listener) => listeners.push(listener)};
}
