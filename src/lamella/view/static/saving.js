// Keeps the server's copy of one author's objects: what was touched is sent a moment later, until it is there.
import {ask, say} from "./ask.js";

const PAUSE_MS = 700; // after the last change: a shape that is dragged is sent once
const LONGEST_WAIT_S = 60;

// A GeoJSON feature of the server, which comes with how it is drawn, as an object of Annotorious; and back.
export const drawn = (feature, author) => ({
  id: feature.id, bodies: [], properties: {author, feature},
  target: {annotation: feature.id, selector: feature.selector},
});
const written = ({id, properties, target}) => ({...properties.feature, id, selector: target.selector});

// tell(text, fault) is told how it goes.
export function saving(path, store, author, version, tell) {
  const touched = new Set(), held = new Map(); // held: why the server refuses an object, until it is touched again
  let timer = 0, busy = null, failures = 0;

  // What the server has takes the place of what is here, except what was touched since.
  function take({version: now, features}) {
    version = now;
    if (!features) return;
    const theirs = features.filter(({id}) => !touched.has(id) && !held.has(id)).map((item) => drawn(item, author));
    const kept = new Set([...touched, ...held.keys(), ...features.map(({id}) => id)]);
    const gone = store.all().filter(({id, properties}) => properties?.author === author && !kept.has(id));
    store.bulkDeleteAnnotations(gone, "REMOTE");
    store.bulkUpsertAnnotations(theirs, "REMOTE");
  }

  function refused(error, ids) {
    const {conflicts = {}, refused: reasons = {}} = error.facts ?? {};
    const known = {...conflicts, ...reasons};
    ids.filter((id) => !Object.hasOwn(known, id)).forEach((id) => touched.add(id));
    Object.entries(reasons).forEach(([id, reason]) => held.set(id, reason));
    if (error.facts?.conflicts) { // both are kept: theirs under the old id, the one from here as a new object
      const own = Object.keys(conflicts).map((id) => store.getAnnotation(id)).filter(Boolean);
      own.forEach((item) => store.addAnnotation(drawn({...written(item), id: undefined}, author), "LOCAL"));
      take(error.facts);
      say(`Changed elsewhere in the meantime: ${Object.keys(conflicts).length}. Both versions are kept.`, true);
    }
    const wait = Object.keys(known).length ? 0 : Math.min(2 ** ++failures, LONGEST_WAIT_S);
    tell(`Not saved yet: ${error.message.replace(/[.]?$/, ".")}${wait ? ` Trying again in ${wait} s.` : ""}`, true);
    timer = setTimeout(save, wait * 1000);
  }

  async function send(ids) {
    const upserts = ids.map((id) => store.getAnnotation(id)).filter(Boolean).map(written);
    const deletes = ids.filter((id) => !store.getAnnotation(id));
    try {
      take(await ask(path, {method: "POST", body: {base_version: version, upserts, deletes}}));
      failures = 0;
      const [reason] = held.values();
      const but = reason ? `, but for ${held.size}: ${reason}. Move its corners, or draw it again` : "";
      tell(`Saved as version ${version}${but}.`, Boolean(reason));
    } catch (error) {
      refused(error, ids);
    }
  }

  async function save() {
    await busy;
    clearTimeout(timer);
    const ids = [...touched];
    touched.clear();
    if (ids.length) await (busy = send(ids));
  }
  function touch(ids) {
    ids.forEach((id) => { touched.add(id); held.delete(id); });
    clearTimeout(timer);
    timer = setTimeout(save, PAUSE_MS);
    tell("Not saved yet.");
  }
  return {touch, save, take, pending: () => touched.size + held.size};
}
