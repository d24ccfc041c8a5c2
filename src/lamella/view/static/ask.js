// Asking the server, and making elements. Addresses are relative to the viewer's first page.
export const root = document.body.dataset.root;

export async function ask(path, {method = "GET", body} = {}) {
  const answer = await fetch(root + path, {
    method,
    headers: body === undefined ? {} : {"content-type": "application/json", "x-lamella": "1"},
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const facts = await answer.json().catch(() => ({error: `the server answered ${answer.status}`}));
  if (!answer.ok) throw Object.assign(new Error(facts.error), {status: answer.status, facts});
  return facts;
}

// make("button", {text: "Save", onclick: save}, child...): properties, `text`, and attributes with a dash or `role`.
export function make(tag, {text, ...rest} = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(rest)) {
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export function say(text, fault = false) {
  const place = document.getElementById("status");
  place.textContent = text;
  place.classList.toggle("fault", fault);
}
