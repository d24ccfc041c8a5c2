// Keeps the server's copy of one author's objects: what was touched is sent a moment later, until it is there.
import {ask} from "./ask.js";

const PAUSE_MS = 700; // after the last change: a shape that is dragged is sent once
const LONGEST_WAIT_S = 60;

// A GeoJSON feature of the server, which comes with how it is drawn, as an object of Annotorious; and back.
export const drawn = (feature, author) => ({
  id: feature.id, bodies: [], properties: {author, feature}, target: {annotation: feature.id, selector: feature.selector},
});
const written = ({id, properties, target}) => ({...properties.feature, id, selector: target.selector});

// tell(text, fault) is told how it goes.
export function saving(path, store, author, version, tell) {
  const touched = new Set();
  let timer = 0, busy = null, failures = 0;

  // What the server has takes the place of what is here, except what was touched since.
  function take({version: now, features}) {
    version = now;
    const ids = new Set(features?.map(({id}) => id));
    const gone = store.all().filter(({id, properties}) => properties?.author === author && !ids.has(id) && !touched.has(id));
    if (!features) return;
    store.bulkDeleteAnnotations(gone, "REMOTE");
    store.bulkUpsertAnnotations(features.filter(({id}) => !touched.has(id)).map((item) => drawn(item, author)), "REMOTE");
  }

  function refused(error, ids) {
    const {conflicts, refused: reasons} = error.facts ?? {};
    ids.filter((id) => !Object.hasOwn(conflicts ?? reasons ?? {}, id)).forEach((id) => touched.add(id));
    if (conflicts) { // both are kept: theirs under the old id, the one from here as a new object
      const own = Object.keys(conflicts).map((id) => store.getAnnotation(id)).filter(Boolean);
      own.forEach((item) => store.addAnnotation(drawn({...written(item), id: undefined}, author), "LOCAL"));
      take(error.facts);
    }
    failures += 1;
    const wait = conflicts || reasons ? 0 : Math.min(2 ** failures, LONGEST_WAIT_S);
    if (touched.size) timer = setTimeout(save, wait * 1000);
    if (conflicts) tell("Changed elsewhere in the meantime: both versions are kept.", true);
    else if (reasons) tell(`Not saved: ${Object.values(reasons)[0]}. Move its corners, or draw it again.`, true);
    else tell(`Not saved yet: ${error.message} Trying again in ${wait} s.`, true);
  }

  async function send(ids) {
    const upserts = ids.map((id) => store.getAnnotation(id)).filter(Boolean).map(written);
    const deletes = ids.filter((id) => !store.getAnnotation(id));
    try {
      take(await ask(path, {method: "POST", body: {base_version: version, upserts, deletes}}));
      failures = 0;
      tell(`Saved as version ${version}.`);
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
    ids.forEach((id) => touched.add(id));
    clearTimeout(timer);
    timer = setTimeout(save, PAUSE_MS);
    tell("Not saved yet.");
  }
  return {touch, save, take, pending: () => touched.size};
}
