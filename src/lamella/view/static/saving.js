// Keeps the server's copy of one author's objects: what was touched is sent a moment later, until it is there.
import {ask, say} from "./ask.js";

const PAUSE_MS = 700; // after the last change: a shape that is dragged is sent once
const WAIT_S = 2; // after a failure

// A GeoJSON feature of the server, which comes with how it is drawn, as an object of Annotorious; and back.
export const drawn = (feature, author) => ({
  id: feature.id, bodies: [], properties: {author, feature},
  target: {annotation: feature.id, selector: feature.selector},
});
const written = ({id, properties, target}) => ({...properties.feature, id, selector: target.selector});

// Says in `place` how it goes.
export function saving(path, store, author, version, place) {
  const touched = new Set();
  let timer = 0, busy = null;

  // What the server has takes the place of what is here, except what was touched since.
  function take(features) {
    const kept = new Set([...touched, ...features.map(({id}) => id)]);
    const gone = store.all().filter(({id, properties}) => properties?.author === author && !kept.has(id));
    const theirs = features.filter(({id}) => !touched.has(id)).map((item) => drawn(item, author));
    store.bulkDeleteAnnotations(gone, "REMOTE");
    store.bulkUpsertAnnotations(theirs, "REMOTE");
  }

  async function send(ids) {
    const upserts = ids.map((id) => store.getAnnotation(id)).filter(Boolean).map(written);
    const deletes = ids.filter((id) => !store.getAnnotation(id));
    try {
      const answer = await ask(path, {base_version: version, upserts, deletes});
      version = answer.version;
      for (const id in answer.refused) touched.add(id); // sent again with the next change
      if (answer.features) take(answer.features);
      say(answer.said, Object.keys(answer.refused).length > 0, place);
    } catch (error) {
      ids.forEach((id) => touched.add(id));
      const again = !(error.status < 500); // a refusal stays one
      say(`Not saved yet${again ? `, trying again in ${WAIT_S} s` : ""}: ${error.message}`, true, place);
      if (again) timer = setTimeout(save, WAIT_S * 1000);
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
    say("Not saved yet.", false, place);
  }
  return {touch, save, pending: () => touched.size};
}
