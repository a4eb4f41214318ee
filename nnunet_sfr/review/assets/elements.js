// Elements of the page.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function swatch(colour) {
  const node = element("span", { class: "swatch" });
  node.style.background = colour;
  return node;
}

// Buttons of which one is pressed; returns a function that presses one. After a click the keys are the image's again.
export function choice(parent, options, choose) {
  const chosen = (key, event) => {
    choose(key);
    if (event.detail) byId("view").focus({ preventScroll: true });
  };
  const buttons = options.map(({ key, content, title }) => element("button", { type: "button", title: title ?? null, "data-key": key, onclick: (event) => chosen(key, event) }, ...content));
  parent.append(...buttons);
  return (pressed) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.key === String(pressed)));
  };
}
