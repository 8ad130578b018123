// Builds elements, and changes them only where they differ.

/** `element("p", { class: "note" }, "text", child)`; `on…` are listeners, null is left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(key, value === true ? "" : value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

// Writing a text that is already there costs a layout all the same, so the last one is remembered.
const written = new WeakMap();

export function setText(target, text) {
  if (written.get(target) === text) return;
  written.set(target, text);
  target.textContent = text;
}

export function setClass(target, name, isSet) {
  if (target.classList.contains(name) !== isSet) target.classList.toggle(name, isSet);
}

export function setAttribute(target, name, value) {
  if (value === null) target.removeAttribute(name);
  else if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}

export function setHidden(target, isHidden) {
  if (target.hidden !== isHidden) target.hidden = isHidden;
}

/**
 * Makes the children of `parent` those of `items`: one element per key, made once by `make` and
 * brought up to date by `update`, in the order of the items.
 */
export function syncChildren(parent, items, { key, make, update }) {
  const known = parent.elementsByKey ?? (parent.elementsByKey = new Map());
  const wanted = new Set();
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    wanted.add(name);
    let child = known.get(name);
    if (!child) known.set(name, (child = make(item)));
    update(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const [name, child] of known) {
    if (wanted.has(name)) continue;
    child.remove();
    known.delete(name);
  }
}
