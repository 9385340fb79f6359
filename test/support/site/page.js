// Script of all pages of the site. Tests drive it through what it puts on the window.
import Tracker from "@openreplay/tracker";

const { settings } = window;
const tracker = new Tracker({
  ...settings,
  ingestPoint: new URL(settings.ingestPoint, location.origin).href,
  // The site has no TLS.
  __DISABLE_SECURE_MODE: true,
});

const SKIPPED = "script, noscript, meta, title, base, link:not([rel=stylesheet])";
/** The tracker looks every 30 ms. */
const TICK_MS = 100;

/** Returns the tree as it is now, in the format of `documentOf` in recorded-page.ts. */
function treeOf(node) {
  if (node.nodeType === Node.TEXT_NODE) return node.data;
  if (node.nodeType !== Node.ELEMENT_NODE || node.matches(SKIPPED)) return "";
  const names = ["class", "id", "title"].filter((name) => node.hasAttribute(name));
  const attributes = names.map((name) => ` ${name}="${node.getAttribute(name)}"`).join("");
  const root = node.shadowRoot ? [...node.shadowRoot.childNodes] : [];
  const inner = node.contentDocument ? [node.contentDocument.documentElement] : [];
  const children = [...root, ...inner, ...node.childNodes].map(treeOf).join("");
  return `<${node.localName}${attributes}>${children}</${node.localName}>`;
}

function addItem(text) {
  const item = document.createElement("li");
  item.textContent = text;
  document.querySelector("#list").append(item);
}

/** Says that this happened, and has the tracker send everything up to it. */
async function mark(name) {
  tracker.event("mark", name);
  await tick();
  tracker.forceFlushBatch();
}

/** Selects from the text of an element to that of a later one. */
function select(from, to) {
  const [first, last] = [from, to].map((one) => document.querySelector(one).firstChild);
  getSelection().setBaseAndExtent(first, 0, last, last.length);
}

/** Changes the page in every way, each in a tick of its own. */
async function edit() {
  const list = document.querySelector("#list");
  const edits = [
    () => addItem("added"),
    () => list.append(list.firstElementChild),
    () => list.firstElementChild.remove(),
    () => list.setAttribute("title", "three"),
    () => list.setAttribute("title", "a list"),
    () => list.removeAttribute("class"),
    () => (document.querySelector("h1").firstChild.data = "Edited"),
    () => (frame.contentDocument.querySelector("#inner").textContent = "edited inside"),
    () => (host.shadowRoot.querySelector("#within").textContent = "edited within"),
  ];
  for (const one of edits) {
    one();
    await tick();
  }
}

async function buy() {
  window.console.log("bought", { items: 1 });
  const headers = { "x-note": "in a header", authorization: "in an authorization" };
  await fetch("/api/order", { method: "POST", body: "in a body", headers });
  await fetch("/api/missing");
  setTimeout(() => {
    throw new TypeError("broken on purpose");
  });
  void Promise.reject(new Error("caught by nobody"));
  window.hasBought = true;
}

/** Resolves after the tracker has seen what happened before. */
async function tick() {
  await new Promise((resolve) => setTimeout(resolve, TICK_MS));
}

function fillShadowRoot() {
  const root = document.querySelector("#host").attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("p { color: rgb(4, 5, 6); }");
  root.adoptedStyleSheets = [sheet];
  root.innerHTML = '<p id="within">In the shadow</p>';
}

function drawForEver() {
  const context = document.querySelector("#canvas").getContext("2d");
  let hue = 0;
  setInterval(() => {
    context.fillStyle = `hsl(${(hue += 30)} 100% 50%)`;
    context.fillRect(0, 0, 40, 30);
  }, 50);
}

document.querySelector("#buy")?.addEventListener("click", () => void buy());
if (document.querySelector("#host")) {
  fillShadowRoot();
  drawForEver();
}
Object.assign(window, {
  tracker,
  started: tracker.start(),
  treeOf,
  addItem,
  edit,
  mark,
  tick,
  select,
});
