// The keyboard does everything; Escape closes a dialog, Tab goes through the buttons as everywhere.

export const KEYS = [
  ["N  P", "next, previous case"],
  ["S  A  K", "save, accept, skip"],
  ["Z  Y", "undo, redo (Ctrl+Z, Ctrl+Shift+Z too)"],
  ["B  E  O  F", "brush, eraser, outline, fill"],
  ["M", "move the cross, without drawing"],
  ["1 \u2026 9", "class; C and Shift+C: the next, the previous one"],
  ["[  ]", "smaller, larger brush"],
  ["\u2190 \u2191 \u2192 \u2193", "move the cross in its plane"],
  ["Page Up  Page Down", "next, previous slice"],
  ["X", "another plane for the arrow keys"],
  ["Space", "draw, erase or fill at the cross; with Shift and arrow keys a line is drawn"],
  ["Enter", "outline: add a corner at the cross; O again closes and fills it"],
  ["V", "next view; L: labels of SAM, of the model, their difference"],
  ["H", "hide and show the labels"],
  ["+  \u2212", "zoom around the cross; 0: all"],
  ["D  ?", "done; this list"],
];

const TYPING = ["INPUT", "SELECT", "TEXTAREA"];

// actions: by key. Keys that a focused control uses itself stay with it.
export function listen(actions, canvas) {
  addEventListener("keydown", (event) => {
    if (event.target === canvas && event.key !== "Tab") event.stopPropagation(); // the viewer has keys of its own
    if (document.querySelector("dialog[open]") || event.altKey) return;
    const { target } = event;
    const control = event.ctrlKey || event.metaKey;
    const name = (control ? "Ctrl+" : "") + (event.shiftKey ? "Shift+" : "") + (event.key.length === 1 ? event.key.toLowerCase() : event.key);
    const action = actions[name] ?? actions[name.replace("Shift+", "")];
    if (!action || usesItself(target, event.key)) return;
    event.preventDefault();
    action(event);
  }, true);
}

function usesItself(target, key) {
  if (target.type === "search") return true;
  if (TYPING.includes(target.tagName)) return key.startsWith("Arrow") || key.startsWith("Page") || key === " " || key === "Enter" || target.tagName === "SELECT";
  return (target.tagName === "BUTTON" || target.tagName === "PRE") && (key === " " || key === "Enter");
}
