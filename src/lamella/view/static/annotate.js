// Drawing on the slide. What is drawn is saved by itself; the server wrote the controls into the page.
import {ask, root, say} from "./ask.js";
import {drawn, saving} from "./saving.js";
import {goTo} from "./viewer.js";

const LISTED = 200; // objects in the list; more would make the page slow
const BY_HAND = {type: "Feature", properties: {objectType: "annotation"}, editable: true};

// Returns {add(feature), author, setTool(name)}. Features of other tools come with their `selector` from the server and
// are saved as if they were drawn. The viewer's event "tool" tells of another tool; only with "move" clicks select.
export async function annotate(section, slide, viewer) {
  const part = (name) => section.querySelector(`[data-part=${name}]`);
  const author = localStorage.getItem("lamella-author") || slide.author;
  const path = `api/slides/${slide.id}/annotations`, ownPath = `${path}/${encodeURIComponent(author)}`;
  const {authors, classes: known, free_colours: free, refused, read_only: readOnly} = await ask(path);
  const classes = Object.assign(Object.create(null), known); // a class may be called "constructor"
  const chosen = part("class"), list = part("drawn"), tools = [...section.querySelectorAll("[data-tool]")];
  let tool = "move";

  const nameOf = ({properties}) => properties?.feature.properties?.classification?.name ?? "";
  const own = ({properties}) => !properties || properties.author === author;
  const editable = ({properties}) => !properties || properties.feature.editable;
  const boundsOf = ({target}) => target.selector.geometry.bounds;
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
  const mine = saving(ownPath, store, author, authors[author]?.version ?? 0, part("saved"));

  function classed({properties: {classification, ...rest}, ...feature}, name) {
    const color = [1, 3, 5].map((at) => parseInt(classes[name]?.slice(at, at + 2), 16));
    return {...feature, properties: name ? {...rest, classification: {name, color}} : rest};
  }
  function showClasses(name) {
    chosen.replaceChildren(new Option("no class", ""), ...Object.keys(classes).map((each) => new Option(each)));
    chosen.value = name;
  }
  const setFeature = (item, feature) => store.updateAnnotation({...item, properties: {author, feature}}, "LOCAL");
  const add = (feature) => {
    store.addAnnotation(drawn({...classed({...BY_HAND, ...feature}, chosen.value), id: undefined}, author), "LOCAL");
  };
  const addByNumbers = async (given) => add(await ask(`api/slides/${slide.id}/shape?${new URLSearchParams(given)}`));

  // The list: a way to every object without a mouse.
  function show() {
    const items = store.all().filter((item) => own(item) && item.properties).reverse();
    list.replaceChildren(...items.slice(0, LISTED).map((item) => {
      const {minX, minY, maxX, maxY} = boundsOf(item);
      const [w, h] = [(maxX - minX) * slide.mpp_x, (maxY - minY) * slide.mpp_y].map((um) => um.toPrecision(3));
      const size = editable(item) ? `${w} × ${h} µm` : item.properties.feature.geometry.type;
      return new Option(`${nameOf(item) || "no class"}, ${size}`, item.id, false, selected()?.id === item.id);
    }));
    const rest = items.length - LISTED;
    part("more").textContent = rest > 0 ? `and ${rest} more` : items.length ? "" : "Nothing yet.";
    section.querySelector("[data-act=remove]").disabled = !selected();
  }
  list.onchange = () => {
    const item = store.getAnnotation(list.value), {minX, minY, maxX, maxY} = boundsOf(item);
    setTool("move");
    anno.setSelected(item.id, editable(item));
    goTo(viewer, [minX, minY, maxX, maxY]);
  };

  function setTool(name) {
    const {draw, hint = ""} = tools.find((button) => button.dataset.tool === name)?.dataset ?? {};
    tool = viewer.element.dataset.tool = name;
    anno.cancelDrawing();
    anno.cancelSelected();
    if (draw) { anno.setDrawingTool(name); anno.setDrawingMode(draw); }
    anno.setDrawingEnabled(Boolean(draw));
    for (const button of tools) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    part("hint").textContent = hint;
    viewer.raiseEvent("tool", {name});
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
    if (quick && tool === "point") addByNumbers(viewer.viewport.viewerElementToImageCoordinates(position));
  });

  // Buttons and forms.
  const does = {undo: anno.undo, redo: anno.redo, save: mine.save, remove: () => anno.removeAnnotation(selected().id)};
  for (const button of section.querySelectorAll("[data-act]")) button.onclick = () => does[button.dataset.act]();
  for (const button of tools) button.onclick = () => setTool(button.dataset.tool);
  chosen.onchange = () => {
    const item = selected(), name = chosen.value;
    anno.cancelSelected();
    if (item) setFeature(item, classed(item.properties.feature, name));
  };
  const submits = {
    classes({name}) {
      classes[name.trim()] ??= free.find((colour) => !Object.values(classes).includes(colour)) ?? free[0];
      showClasses(name.trim());
      chosen.onchange();
    },
    numbers: addByNumbers,
    async author({name}) { // another name: another file
      await mine.save();
      if (mine.pending()) return;
      localStorage.setItem("lamella-author", name.trim());
      location.reload();
    },
  };
  for (const [name, act] of Object.entries(submits)) {
    part(name).onsubmit = ({target}) => act(Object.fromEntries(new FormData(target)));
  }
  part("import").onchange = async ({target: {files: [file]}}) => {
    await mine.save();
    await ask(`${ownPath}/import`, JSON.parse(await file.text()));
    location.reload();
  };
  Object.assign(part("export"), {href: `${root}${ownPath}.geojson`, download: `${slide.name}.geojson`});
  part("author").elements.name.value = author;
  part("others").onchange = ({target}) => anno.setFilter((item) => own(item) || target.checked);
  addEventListener("beforeunload", (event) => { if (mine.pending()) event.preventDefault(); });

  const all = Object.entries(authors).flatMap(([name, {features}]) => features.map((item) => drawn(item, name)));
  store.bulkUpsertAnnotations(all, "REMOTE");
  say([readOnly, ...Object.values(refused)].filter(Boolean).join(" "), true, part("saved"));
  // Never "Region" unasked: what a model outlined would become one by accident.
  showClasses(Object.keys(classes).find((name) => name !== "Region") ?? "");
  setTool("move");
  return {anno, add, author, setTool};
}
