// Asking the server, and telling the person. Addresses are relative to the viewer's first page.
export const root = document.body.dataset.root;

export async function ask(path, body) { // what has a body is sent to be kept
  const headers = {"content-type": "application/json", "x-lamella": "1"};
  const answer = await fetch(root + path, body && {method: "POST", headers, body: JSON.stringify(body)});
  const facts = await answer.json().catch(() => ({error: `the server answered ${answer.status}`}));
  if (!answer.ok) throw Object.assign(new Error(facts.error), {status: answer.status});
  return facts;
}

export function say(text, fault = false, place = document.getElementById("status")) {
  place.textContent = text;
  place.classList.toggle("fault", fault);
}

// HTML of our own templates, which escape what they show; scripts of a parsed text never run.
export function put(html, place) {
  place.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.children);
}
