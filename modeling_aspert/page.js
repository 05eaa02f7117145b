// The list of sentences, the filters and the tables of a page; drawing.js comes first.

// ------------------------------------------------------------------------------------------- cards and the list

const CHUNK = 50; // cards added at a time
const list = byId("list");
const tip = byId("tip");
let order = [];
let next = 0;
const onScreen = new Set();
const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) onScreen.delete(target);
      else {
        onScreen.add(target);
        if (target.stale) redraw(target);
      }
    }
  },
  { rootMargin: "600px" },
);
const ending = new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && more(), {
  rootMargin: "1500px",
});

function redraw(card) {
  card.stale = false;
  draw(card);
  fillFacts(card);
}

function more() {
  for (const index of order.slice(next, next + CHUNK)) {
    const sentence = sentences[index];
    const card = element("article", { class: "card", "data-index": index });
    const title = element("h3", {}, `${index + 1}`);
    if (sentence.id !== null) title.append(" · ", element("bdi", {}, sentence.id));
    const box = element("div", { class: "drawing", role: "group", tabindex: "0" });
    box.append(element("p", { class: "measure", dir: "auto" }, sentence.text));
    const facts = element("details", { class: "facts", hidden: "" }, element("summary"), element("ul"));
    facts.addEventListener("toggle", () => fillFacts(card));
    card.append(title, box, facts);
    card.stale = true;
    list.append(card);
    watcher.observe(card);
  }
  next += CHUNK;
  // Watched anew, because a sentinel that stays in sight is reported once.
  ending.disconnect();
  if (next < order.length) ending.observe(byId("sentinel"));
}

function fillFacts(card) {
  const facts = card.querySelector(".facts");
  if (!card.shown) return;
  const sentence = sentences[card.dataset.index];
  const { entities, relations } = card.shown;
  const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  facts.querySelector("summary").textContent =
    `${count(entities.length, "entity", "entities")}, ${count(relations.length, "relation", "relations")}`;
  facts.hidden = !entities.length && !relations.length;
  if (!facts.open) return;
  const lines = [...entities.map((i) => ["entities", i]), ...relations.map((i) => ["relations", i])];
  facts.querySelector("ul").replaceChildren(
    ...lines.map(([part, i]) => {
      const [what, where, sure] = describe(sentence, part, sentence[part][i]);
      const value = element("span", { class: "value" }, sure && `, ${sure}`);
      return element(
        "li",
        {},
        element("strong", {}, element("bdi", {}, what)),
        ": ",
        element("bdi", {}, where),
        value,
      );
    }),
  );
}

// After a change of the filters: the list anew where other sentences are shown, else only the drawings.
function update() {
  hideTip();
  const onlyWorth = byId("only-worth").checked;
  const totals = [0, 0];
  const wanted = sentences.flatMap((sentence, index) => {
    if (!matchesQuery(sentence)) return [];
    const shown = visible(sentence);
    if (onlyWorth && !shown.worth) return [];
    totals[0] += shown.entities.length - shown.context.size;
    totals[1] += shown.relations.length;
    return [index];
  });
  const number = (value) => value.toLocaleString("en");
  byId("status").textContent =
    `Showing ${number(wanted.length)} of ${number(sentences.length)} sentences, ` +
    `${number(totals[0])} entities, ${number(totals[1])} relations`;
  if (wanted.length === order.length && wanted.every((index, i) => index === order[i])) {
    for (const card of list.children) card.stale = true;
    onScreen.forEach(redraw);
    return;
  }
  order = wanted;
  next = 0;
  watcher.disconnect();
  onScreen.clear();
  list.replaceChildren();
  more();
  const start = byId("start");
  if (start.getBoundingClientRect().top < 0) start.scrollIntoView();
}

let planned = false;
function plan() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    update();
  });
}

// ------------------------------------------------------------------------------- hover, focus, keys, the tooltip

function activate(card, part, index, anchor) {
  const sentence = sentences[card.dataset.index];
  const on = { entities: new Set(), relations: new Set() };
  on[part].add(index);
  if (part === "relations") on.entities.add(sentence.relations[index].head).add(sentence.relations[index].tail);
  else {
    for (const r of card.shown.relations) {
      const { head, tail } = sentence.relations[r];
      if (head === index || tail === index) (on.relations.add(r), on.entities.add(head).add(tail));
    }
  }
  card.querySelector(".drawing").classList.add("active");
  for (const key of PARTS) {
    for (const [i, nodes] of card.items[key]) for (const node of nodes) node.classList.toggle("on", on[key].has(i));
  }
  const [what, where, sure] = describe(sentence, part, sentence[part][index]);
  tip.replaceChildren(element("strong", {}, what), element("span", { dir: "auto" }, where), element("span", {}, sure));
  tip.hidden = false;
  const rect = anchor.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  // Away from the text: above a relation's name, under an entity's.
  const [above, below] = [rect.top - size.height - 8, rect.bottom + 8];
  const fits = part === "relations" ? above > 0 : below + size.height > innerHeight;
  tip.style.left = `${clamp(rect.left, 8, innerWidth - size.width - 8)}px`;
  tip.style.top = `${fits ? Math.max(8, above) : below}px`;
}

function hideTip() {
  tip.hidden = true;
  for (const box of document.querySelectorAll(".drawing.active")) box.classList.remove("active");
}

function itemAt(target) {
  const node = target.closest?.(".item, .covered");
  const card = node?.closest(".card");
  if (!card || !card.items) return null;
  const covered = node.classList.contains("covered");
  const part = covered ? "entities" : node.dataset.part;
  return { card, part, index: Number(covered ? node.dataset.entity : node.dataset.index), node };
}

function show(event) {
  const item = itemAt(event.target);
  hideTip();
  // The plate, where there is one: the box around a whole arc says little about the place.
  if (!item) return;
  const [named] = item.card.items[item.part].get(item.index);
  activate(item.card, item.part, item.index, named.querySelector(".plate") || item.node);
}
list.addEventListener("pointerover", show);
list.addEventListener("click", show);
list.addEventListener("focusin", show);
list.addEventListener("pointerleave", hideTip);
list.addEventListener("focusout", hideTip);
addEventListener("scroll", hideTip, { passive: true });

list.addEventListener("keydown", (event) => {
  const box = event.target.closest(".drawing");
  if (!box) return;
  if (event.key === "Escape") {
    hideTip();
    box.focus();
    return;
  }
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const { items } = box.closest(".card");
  if (!step || !items) return;
  const stops = [...items.entities.values(), ...items.relations.values()].map((nodes) => nodes[0]);
  if (!stops.length) return;
  event.preventDefault();
  const here = stops.indexOf(event.target);
  stops[here < 0 ? (step > 0 ? 0 : stops.length - 1) : (here + step + stops.length) % stops.length].focus();
});

// ------------------------------------------------------------------------------------------------------ filters

function swatch(part, item) {
  const look = style(part, item);
  const picture = shape("svg", { width: 18, height: 10, "aria-hidden": "true" });
  picture.style.setProperty("--c", `var(--c${look.colour})`);
  shape(
    "line",
    { class: `${part === "entities" ? "bar" : "arc"} ${look.line}`, x1: 1, x2: 17, y1: 5, y2: 5 },
    picture,
  );
  return picture;
}

function addGroup(title, names, off, count, picture, text) {
  if (!names.length) return;
  const chips = names.map((key) => {
    const chip = element("button", { class: "chip", type: "button", "aria-pressed": "true" });
    const label = picture(key);
    if (label) chip.append(label);
    chip.append(
      element("bdi", { title: text(key) }, text(key)),
      element("small", {}, count(key).toLocaleString("en")),
    );
    chip.addEventListener("click", () => {
      if (!off.delete(key)) off.add(key);
      refresh();
    });
    return chip;
  });
  const all = element("button", { class: "link", type: "button" });
  const refresh = () => {
    chips.forEach((chip, i) => chip.setAttribute("aria-pressed", String(!off.has(names[i]))));
    all.textContent = off.size ? "show all" : "hide all";
    plan();
  };
  all.addEventListener("click", () => {
    if (off.size) off.clear();
    else names.forEach((key) => off.add(key));
    refresh();
  });
  refresh();
  byId("groups").append(element("fieldset", { class: "group" }, element("legend", {}, title), ...chips, all));
}

function counter(part, keys) {
  const counts = new Map();
  for (const sentence of sentences) {
    for (const item of sentence[part]) for (const key of keys(item)) counts.set(key, (counts.get(key) || 0) + 1);
  }
  return counts;
}

for (const part of outcomes ? PARTS : []) {
  const counts = counter(part, (item) => (item.gold === null && item.kind.startsWith("wrong") ? [] : [item.kind]));
  addGroup(
    part === "entities" ? "Entities" : "Relations",
    Object.keys(KINDS).filter((kind) => counts.has(kind)),
    state.offKinds[part],
    (kind) => counts.get(kind),
    (kind) => swatch(part, { kind }),
    (kind) => `${KINDS[kind].sign} ${KINDS[kind].name}`,
  );
}
for (const part of PARTS) {
  const counts = counter(part, (item) => new Set(typesOf(item)));
  const names = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
  addGroup(
    part === "entities" ? (outcomes ? "Entity types" : "Entities") : outcomes ? "Relation types" : "Relations",
    names,
    state.off[part],
    (type) => counts.get(type),
    (type) => (outcomes ? null : swatch(part, { type })),
    (type) => type,
  );
}
byId("filters").open = matchMedia("(min-width: 721px)").matches;
byId("filters").hidden = !byId("groups").children.length;

byId("search").addEventListener("input", (event) => {
  const words = event.target.value.trim().replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  state.query = words ? new RegExp(words, "giu") : null;
  plan();
});
byId("threshold")?.addEventListener("input", (event) => {
  state.threshold = Number(event.target.value);
  byId("threshold-value").textContent = state.threshold.toFixed(2);
  plan();
});
byId("only-worth").addEventListener("change", plan);

// ----------------------------------------------------------------------------- tables of the error analysis page

function setFocus(focus, title) {
  state.focus = focus;
  const bar = byId("focus");
  bar.hidden = !focus;
  if (focus) {
    const clear = element("button", { class: "chip", type: "button" }, "Only ", element("bdi", {}, title), " ✕");
    clear.setAttribute("aria-label", `Only ${title}; remove this filter`);
    clear.addEventListener("click", () => setFocus(null));
    bar.replaceChildren(clear);
  }
  update();
  if (focus) byId("start").scrollIntoView();
}
for (const button of document.querySelectorAll("[data-focus]")) {
  button.addEventListener("click", () => setFocus(JSON.parse(button.dataset.focus), button.title));
}

for (const button of document.querySelectorAll("th[aria-sort] button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const table = header.closest("table");
    const column = header.cellIndex;
    const up = header.getAttribute("aria-sort") === "descending";
    for (const other of header.parentNode.children)
      if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => (column ? value(a) - value(b) : value(a) < value(b) ? -1 : 1);
    const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? 1 : -1) * compare(a, b));
    table.tBodies[0].append(...rows);
  });
}

// What the keyboard reaches must not end up under the bar that sticks to the top.
const bar = document.querySelector(".toolbar");
new ResizeObserver(() => {
  const height = getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0;
  document.documentElement.style.setProperty("--bar", `${height}px`);
}).observe(bar);

let seen = 0;
new ResizeObserver(() => {
  if (list.clientWidth !== seen) {
    seen = list.clientWidth;
    widths.clear();
    plan();
  }
}).observe(list);
update();
