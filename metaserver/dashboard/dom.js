"use strict";
// Building the page. Names come from users: text only ever becomes text, never markup.

const byId = (id) => document.getElementById(id);

// el("td.n", "text", child...): an element with classes and children.
function el(kind, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const child of children) {
    if (child === null || child === undefined) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

// Replaces the children, unless they are the same already: what has the focus, is selected or is scrolled stays so.
function fill(element, children) {
  const next = document.createElement("div");
  next.append(...children);
  if (element.innerHTML !== next.innerHTML) element.replaceChildren(...next.childNodes);
}

const tag = (text, mood) => el(mood ? `span.tag.${mood}` : "span.tag", text);

function titled(element, title) {
  element.title = title;
  return element;
}

// A share as a bar; `warn` and `bad` are the percents from which it is coloured so.
function bar(percent, warn, bad) {
  const mood = percent >= bad ? ".bad" : percent >= warn ? ".warn" : "";
  const fillIn = el("i");
  fillIn.style.width = `${Math.max(0, Math.min(100, percent))}%`;
  const outer = el(`span.bar${mood}`, fillIn);
  outer.setAttribute("role", "img");
  outer.setAttribute("aria-label", `${percent} %`);
  return outer;
}

const empty = (columns, text) => {
  const cell = el("td.empty", text);
  cell.colSpan = columns;
  return el("tr", cell);
};
