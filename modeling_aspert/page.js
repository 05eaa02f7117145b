"use strict";
// Draws the sentences of a page. Text from the records only ever becomes a text node or an attribute value.

const data = JSON.parse(document.getElementById("data").textContent);
const sentences = data.sentences;
const symmetric = new Set(data.symmetric);
const PARTS = ["entities", "relations"];
// Outcomes of an error analysis: sign, name, colour and line, in the order of the legend.
const KINDS = {
  correct: { sign: "✓", name: "correct", colour: 0, line: "" },
  wrong_type: { sign: "≠", name: "wrong type", colour: 2, line: "" },
  wrong_boundary: { sign: "↔", name: "wrong boundary", colour: 1, line: "" },
  wrong_entity: { sign: "↔", name: "wrong entity", colour: 1, line: "" },
  missed: { sign: "−", name: "missed", colour: 3, line: "dashed" },
  invented: { sign: "+", name: "invented", colour: 5, line: "dotted" },
};
const COLOURS = 8;
const LINES = ["", "dashed", "dotted"];
const LINE = 28; // height of a line of text, as in the style sheet
const SIDES = ["left", "right"];
const MARGIN = 16; // least room at both sides of the text, as in the style sheet
const LANE = 19; // height of a row of relations, above the text
const ROW = 19; // height of a row of entity labels, under the text

const byId = (id) => document.getElementById(id);
const state = {
  off: { entities: new Set(), relations: new Set() },
  offKinds: { entities: new Set(), relations: new Set() },
  threshold: 0,
  query: null,
  focus: null,
};
const outcomes = sentences.some((s) => PARTS.some((part) => s[part].some((item) => item.kind)));
const typeNumber = Object.fromEntries(PARTS.map((p) => [p, new Map(data.types[p].map((name, i) => [name, i]))]));

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shape(tag, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (parent) parent.append(node);
  return node;
}

// ------------------------------------------------------------------------------------------------ what is shown

function typesOf(item) {
  return item.kind ? [item.gold, item.predicted].filter((name) => name !== null) : [item.type];
}

function passes(part, item) {
  if (typesOf(item).every((name) => state.off[part].has(name))) return false;
  if (item.kind && state.offKinds[part].has(item.kind)) return false;
  if (item.score !== null && item.score < state.threshold) return false;
  const focus = state.focus;
  if (!focus) return true;
  if (focus.part !== part) return false;
  if ("kind" in focus && focus.kind !== item.kind) return false;
  if ("type" in focus && !typesOf(item).includes(focus.type)) return false;
  return ["gold", "predicted"].every((side) => !(side in focus) || focus[side] === item[side]);
}

// Indices of the items to draw. A relation needs its two entities: without outcomes it goes when one of them goes;
// with outcomes the entities are drawn with it, faintly.
function visible(sentence) {
  const entities = new Set();
  const context = new Set();
  sentence.entities.forEach((item, i) => passes("entities", item) && entities.add(i));
  const relations = [];
  sentence.relations.forEach((item, i) => {
    if (!passes("relations", item)) return;
    const ends = [item.head, item.tail];
    if (outcomes) ends.forEach((end) => entities.has(end) || context.add(end));
    else if (!ends.every((end) => entities.has(end))) return;
    relations.push(i);
  });
  const all = [...entities, ...context].sort((a, b) => {
    const [x, y] = [sentence.entities[a], sentence.entities[b]];
    return x.start - y.start || y.end - x.end || a - b;
  });
  // "Only sentences with …": with anything drawn, or, in an error analysis, with an error or what a table was asked for.
  const asked = (item) => !item.kind || state.focus || item.kind !== "correct";
  const worth =
    [...entities].some((i) => asked(sentence.entities[i])) || relations.some((i) => asked(sentence.relations[i]));
  return { entities: all, relations, context, worth };
}

function matchesQuery(sentence) {
  if (!state.query) return true;
  const fields = [sentence.text, sentence.id || ""];
  for (const part of PARTS) for (const item of sentence[part]) fields.push(...typesOf(item));
  return fields.some((field) => field.search(state.query) >= 0);
}

function style(part, item) {
  if (item.kind) {
    const kind = KINDS[item.kind];
    return { colour: kind.colour, line: item.predicted === null ? "dashed" : kind.line };
  }
  const number = typeNumber[part].get(item.type) || 0;
  return { colour: number % COLOURS, line: LINES[Math.floor(number / COLOURS) % LINES.length] };
}

function labelOf(item) {
  const label = item.label || item.type;
  const short = label.length > 40 ? label.slice(0, 39) + "…" : label;
  return item.kind ? `${KINDS[item.kind].sign} ${short}` : short;
}

function surface(sentence, entity) {
  const words = sentence.text.slice(entity.start, entity.end);
  return words.length > 80 ? words.slice(0, 79) + "…" : words;
}

// [what, where, how sure]: for the tooltip, the screen reader and the list
function describe(sentence, part, item) {
  const name = item.kind ? `${item.label || item.type} · ${KINDS[item.kind].name}` : item.type;
  let place;
  if (part === "entities") place = surface(sentence, item);
  else {
    const [head, tail] = [item.head, item.tail].map(
      (end) => `\u2068${surface(sentence, sentence.entities[end])}\u2069`,
    );
    place = symmetric.has(item.type) ? `${head} — ${tail}` : `${head} → ${tail}`;
  }
  return [name, place, item.score === null ? "" : `score ${item.score.toFixed(3)}`];
}

// ------------------------------------------------------------------------------------------------------ drawing

const pen = document.createElement("canvas").getContext("2d");
const widths = new Map();
function labelWidth(label) {
  if (!widths.has(label)) {
    pen.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
    widths.set(label, pen.measureText(label).width);
  }
  return widths.get(label);
}

// Where the browser breaks the text into lines: [[from, to], …], by bisection on the position of single characters.
function breakLines(box, text) {
  const paragraph = element("p", { class: "measure", dir: "auto" }, text);
  box.replaceChildren(paragraph);
  const direction = getComputedStyle(paragraph).direction;
  const node = paragraph.firstChild;
  const range = document.createRange();
  const top = (index) => {
    for (let i = index; i < text.length; i++) {
      range.setStart(node, i);
      range.setEnd(node, i + 1);
      const rects = range.getClientRects();
      if (rects.length) return rects[0].top;
    }
    return Infinity;
  };
  const lines = [];
  for (let from = 0; from < text.length;) {
    const limit = top(from) + LINE / 2;
    let [low, high] = [from + 1, text.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (top(middle) > limit) high = middle;
      else low = middle + 1;
    }
    lines.push({ from, to: low });
    from = low;
  }
  return { lines, direction };
}

function queryMatches(text) {
  if (!state.query) return [];
  return [...text.matchAll(state.query)]
    .filter((m) => m[0])
    .map((m) => ({ start: m.index, end: m.index + m[0].length }));
}

// Smallest free row for each [left, right], in the given order.
function pack(items) {
  const rows = [];
  for (const item of items) {
    let row = rows.findIndex((taken) =>
      taken.every((other) => item.right + 6 <= other.left || other.right + 6 <= item.left),
    );
    if (row < 0) row = rows.push([]) - 1;
    rows[row].push(item);
    item.row = row;
  }
  return rows.length;
}

const clamp = (value, low, high) => Math.max(low, Math.min(value, Math.max(low, high)));

// Draws a sentence into its card. `margins`: room at the left and right of the text for relations between lines; how
// much is needed shows in a first drawing.
function draw(card, margins = null) {
  const sentence = sentences[card.dataset.index];
  const box = card.querySelector(".drawing");
  const shown = visible(sentence);
  for (const side of SIDES) {
    if (margins) box.style.setProperty(`--${side}`, `${margins[side]}px`);
    else box.style.removeProperty(`--${side}`);
  }
  const inner = margins || { left: MARGIN, right: MARGIN };
  const { lines, direction } = breakLines(box, sentence.text);
  const width = box.clientWidth;
  setText(box, sentence, shown, lines, direction);
  const covers = measure(box, lines);
  placeEntityNames(sentence, covers, lines, direction, width);
  const arcs = shown.relations.map((r) => connect(sentence, r, covers));
  spreadEnds(arcs, covers, width);
  const height = stack(lines, route(arcs, lines, width, inner));
  const wanted = placeRuns(arcs, lines, width, inner);
  if (!margins && SIDES.some((side) => wanted[side] > MARGIN)) {
    draw(card, wanted);
    return;
  }
  placeRelationNames(arcs, inner.left, width - inner.right);

  const picture = shape("svg", { width, height });
  const items = { entities: new Map(), relations: new Map() };
  for (const e of shown.entities) {
    items.entities.set(e, drawEntity(picture, sentence, e, covers.get(e), lines, shown.context.has(e)));
  }
  for (const arc of arcs) items.relations.set(arc.r, [drawArc(picture, sentence, arc, lines)]);
  // The names last, so that no line runs through them.
  for (const arc of arcs) items.relations.get(arc.r).unshift(drawArcLabel(picture, sentence, arc));
  box.append(picture);
  if (!lines.length) box.append(element("p", { class: "measure quiet" }, "(empty text)"));
  card.items = items;
  card.shown = shown;
  const count = `${shown.entities.length} entities, ${shown.relations.length} relations`;
  box.setAttribute(
    "aria-label",
    `Sentence ${Number(card.dataset.index) + 1}: ${count}. Arrow keys walk through them.`,
  );
}

// The text line by line, cut at the ends of entities and of search hits.
function setText(box, sentence, shown, lines, direction) {
  const hits = queryMatches(sentence.text);
  const size = (e) => sentence.entities[e].end - sentence.entities[e].start;
  for (const line of lines) {
    const crossing = (span) => span.start < line.to && span.end > line.from;
    const entities = shown.entities.filter((e) => crossing(sentence.entities[e]));
    const marks = hits.filter(crossing);
    const cuts = new Set([line.from, line.to]);
    for (const span of [...entities.map((e) => sentence.entities[e]), ...marks]) {
      cuts.add(Math.max(span.start, line.from)).add(Math.min(span.end, line.to));
    }
    const ordered = [...cuts].sort((a, b) => a - b);
    line.pieces = ordered.slice(0, -1).map((start, i) => {
      const end = ordered[i + 1];
      const inside = (span) => span.start <= start && end <= span.end;
      const piece = {
        node: element(marks.some(inside) ? "mark" : "span"),
        entities: entities.filter((e) => inside(sentence.entities[e])),
      };
      const text = sentence.text.slice(start, end);
      piece.node.textContent = end === line.to ? text.trimEnd() : text;
      if (piece.entities.length) {
        piece.node.className = "covered";
        piece.node.dataset.entity = piece.entities.reduce((a, b) => (size(b) < size(a) ? b : a));
      }
      return piece;
    });
    line.node = element("div", { class: "line", dir: direction }, ...line.pieces.map((piece) => piece.node));
  }
  box.replaceChildren(...lines.map((line) => line.node));
}

// Where entities lie: entity -> [{line, left, right}], one for each line, or more where text runs both ways.
function measure(box, lines) {
  const covers = new Map();
  const origin = box.getBoundingClientRect().left;
  lines.forEach((line, number) => {
    for (const piece of line.pieces) {
      for (const rect of piece.entities.length ? piece.node.getClientRects() : []) {
        const [left, right] = [rect.left - origin, Math.max(rect.right, rect.left + 3) - origin];
        for (const e of piece.entities) {
          if (!covers.has(e)) covers.set(e, []);
          const last = covers
            .get(e)
            .find((part) => part.line === number && left <= part.right + 1 && right >= part.left - 1);
          if (last) [last.left, last.right] = [Math.min(last.left, left), Math.max(last.right, right)];
          else covers.get(e).push({ line: number, left, right });
        }
      }
    }
  });
  return covers;
}

// Rows of bars and names under each line; the shortest spans nearest to the text.
function placeEntityNames(sentence, covers, lines, direction, width) {
  const rows = lines.map(() => []);
  for (const [e, parts] of covers) {
    const entity = sentence.entities[e];
    parts.forEach((part, i) => {
      part.label = i === 0 ? labelOf(entity) : "";
      part.size = entity.end - entity.start;
      const room = part.label ? labelWidth(part.label) : 0;
      part.x = clamp(direction === "rtl" ? part.right - room : part.left, 2, width - room - 2);
      rows[part.line].push({ part, left: Math.min(part.left, part.x), right: Math.max(part.right, part.x + room) });
    });
  }
  lines.forEach((line, number) => {
    const order = rows[number].sort((a, b) => a.part.size - b.part.size || a.part.left - b.part.left);
    // A row that only carries on entities from the line before has no names and is low.
    const heights = Array(pack(order)).fill(6);
    for (const { part, row } of order) if (part.label) heights[row] = ROW;
    for (const { part, row } of order) part.drop = heights.slice(0, row).reduce((a, b) => a + b, 0);
    line.below = heights.reduce((a, b) => a + b, 2);
  });
}

// A relation between the nearest two pieces of its entities.
function connect(sentence, r, covers) {
  const relation = sentence.relations[r];
  const pairs = covers.get(relation.head).flatMap((head) => covers.get(relation.tail).map((tail) => ({ head, tail })));
  const cost = ({ head, tail }) => Math.abs(head.line - tail.line) * 1e6 + Math.abs(head.left - tail.left);
  const { head, tail } = pairs.reduce((a, b) => (cost(b) < cost(a) ? b : a));
  const text = labelOf(relation);
  return { r, relation, label: { text, width: labelWidth(text) }, head: { part: head }, tail: { part: tail } };
}

// Gives every end of a relation its x. Several ends on one entity stand side by side, ordered so that their arcs nest;
// an entity around another one is touched where only it is.
function spreadEnds(arcs, covers, width) {
  const groups = new Map();
  const middle = (part) => (part.left + part.right) / 2;
  for (const arc of arcs) {
    const [head, tail] = [arc.head, arc.tail];
    if (head.part.line !== tail.part.line)
      arc.side = middle(head.part) + middle(tail.part) <= width ? "left" : "right";
    for (const end of [head, tail]) {
      if (!groups.has(end.part)) groups.set(end.part, []);
      groups.get(end.part).push(end);
      const other = end === head ? tail : head;
      const target = arc.side ? (arc.side === "left" ? -1 : 2) * width : middle(other.part);
      end.delta = target - middle(end.part);
    }
  }
  for (const [part, ends] of groups) {
    const [left, right] = ownStretch(part, covers);
    ends.sort((a, b) => (a.delta < 0 ? 0 : 1) - (b.delta < 0 ? 0 : 1) || b.delta - a.delta);
    const gap = Math.min(12, (right - left) / (ends.length + 1));
    ends.forEach((end, i) => (end.x = (left + right) / 2 + (i - (ends.length - 1) / 2) * gap));
  }
  for (const { head, tail } of arcs) {
    if (head.part.line === tail.part.line && Math.abs(head.x - tail.x) < 8) {
      const [first, second] = head.delta >= 0 ? [head, tail] : [tail, head];
      [first.x, second.x] = [first.x - 4, second.x + 4];
    }
  }
}

// Horizontal pieces of the relations, by line. A relation that leaves its line goes to the margin `side` and along it.
function route(arcs, lines, width, inner) {
  const segments = lines.map(() => []);
  for (const arc of arcs) {
    const { head, tail, label } = arc;
    const room = label.width + 8;
    const add = (line, from, to, labelled) => {
      const segment = { leaves: Boolean(arc.side), left: Math.min(from, to), right: Math.max(from, to), drop: 0 };
      segment.length = segment.right - segment.left;
      if (labelled) {
        // Where the arc is no wider than its name, the name stands above the arc and not in it.
        if (segment.length < room + 16) segment.drop = 6;
        label.x = clamp((from + to) / 2, inner.left + room / 2, width - inner.right - room / 2);
        label.segment = segment;
        segment.left = Math.min(segment.left, label.x - room / 2);
        segment.right = Math.max(segment.right, label.x + room / 2);
      }
      segments[line].push(segment);
      return segment;
    };
    if (!arc.side) {
      head.segment = tail.segment = add(head.part.line, head.x, tail.x, true);
      continue;
    }
    const edge = arc.side === "left" ? 0 : width;
    const headLabelled = Math.abs(head.x - edge) >= Math.abs(tail.x - edge);
    head.segment = add(head.part.line, head.x, edge, headLabelled);
    tail.segment = add(tail.part.line, tail.x, edge, !headLabelled);
  }
  return segments;
}

// Gives every line the height that its rows above and below need. Returns the height of all.
function stack(lines, segments) {
  let height = 0;
  lines.forEach((line, number) => {
    const lanes = pack(segments[number].sort((a, b) => a.leaves - b.leaves || a.length - b.length));
    const above = lanes ? lanes * LANE + 8 : 2;
    line.top = height + above;
    line.node.style.paddingTop = `${above}px`;
    line.node.style.height = `${above + LINE + line.below}px`;
    height += above + LINE + line.below;
  });
  return height;
}

const laneY = (lines, { part, segment }) => lines[part.line].top - 14 - segment.row * LANE + segment.drop;

// Columns in the margins for the relations between lines. Returns the room that each margin wants.
function placeRuns(arcs, lines, width, inner) {
  const wanted = {};
  for (const side of SIDES) {
    const runs = arcs.filter((arc) => arc.side === side);
    for (const arc of runs)
      [arc.left, arc.right] = [laneY(lines, arc.head), laneY(lines, arc.tail)].sort((a, b) => a - b);
    const columns = pack(runs.sort((a, b) => a.right - a.left - (b.right - b.left)));
    wanted[side] = clamp(8 + columns * 5, MARGIN, 48);
    const step = Math.min(5, (inner[side] - 8) / Math.max(1, columns - 1));
    for (const arc of runs) {
      const inward = inner[side] - 6 - arc.row * step;
      arc.marginX = side === "left" ? inward : width - inward;
    }
  }
  return wanted;
}

// Slides each name along its arc to where the fewest other arcs come down through it.
function placeRelationNames(arcs, left, right) {
  const ends = arcs.flatMap((arc) => [arc.head, arc.tail]);
  for (const { label, head, tail } of arcs) {
    const line = (label.segment === head.segment ? head : tail).part.line;
    const stems = ends
      .filter((end) => end.part.line === line && end.segment.row > label.segment.row)
      .map((end) => end.x);
    const room = label.width / 2 + 4;
    const [low, high] = [Math.max(label.segment.left, left) + room, Math.min(label.segment.right, right) - room];
    const hits = (x) => stems.filter((stem) => Math.abs(stem - x) < room).length;
    let best = hits(label.x);
    for (let step = 0; best && low < high && step <= 20; step++) {
      const x = low + ((high - low) * step) / 20;
      if (hits(x) < best) [best, label.x] = [hits(x), x];
    }
  }
}

// The widest part of an entity's piece of line that no smaller entity covers, or the whole piece.
function ownStretch(part, covers) {
  let free = [[part.left, part.right]];
  for (const others of covers.values()) {
    for (const other of others) {
      if (other.line !== part.line || other.size >= part.size) continue;
      free = free.flatMap(([left, right]) => [
        [left, Math.min(right, other.left)],
        [Math.max(left, other.right), right],
      ]);
      free = free.filter(([left, right]) => right - left >= 8);
    }
  }
  return free.sort((a, b) => b[1] - b[0] - (a[1] - a[0]))[0] || [part.left, part.right];
}

function group(picture, sentence, part, index, context = false) {
  const item = sentence[part][index];
  const node = shape(
    "g",
    { class: context ? "item context" : "item", "data-part": part, "data-index": index },
    picture,
  );
  const look = style(part, item);
  node.style.setProperty("--c", `var(--c${look.colour})`);
  return { node, line: look.line };
}

function name(node, sentence, part, index) {
  node.setAttribute("tabindex", "-1");
  node.setAttribute("role", "img");
  const kind = part === "entities" ? "Entity" : "Relation";
  const [what, where, sure] = describe(sentence, part, sentence[part][index]);
  node.setAttribute("aria-label", [`${kind} ${what}`, where, sure].filter(Boolean).join(", "));
}

function drawLabel(node, label, x, y, width) {
  shape("rect", { class: "plate", x: x - 3, y: y - 11, width: width + 6, height: 14, rx: 3 }, node);
  shape("text", { class: "label", x, y }, node).textContent = label;
}

function drawEntity(picture, sentence, index, parts, lines, context) {
  const { node, line: dash } = group(picture, sentence, "entities", index, context);
  for (const part of parts) {
    const { top } = lines[part.line];
    const y = top + LINE + part.drop;
    shape(
      "rect",
      { class: "tint", x: part.left, y: top + 3, width: part.right - part.left, height: LINE - 6, rx: 3 },
      node,
    );
    shape("line", { class: `bar ${dash}`, x1: part.left, x2: part.right, y1: y, y2: y }, node);
    if (part.label) drawLabel(node, part.label, part.x, y + 14, labelWidth(part.label));
  }
  name(node, sentence, "entities", index);
  return [node];
}

function drawArc(picture, sentence, arc, lines) {
  const { node, line: dash } = group(picture, sentence, "relations", arc.r);
  const { head, tail } = arc;
  const [headY, tailY] = [laneY(lines, head), laneY(lines, tail)];
  const [headTop, tailTop] = [lines[head.part.line].top + 3, lines[tail.part.line].top + 3];
  const points = [
    [head.x, headTop],
    [head.x, headY],
  ];
  if (arc.side) points.push([arc.marginX, headY], [arc.marginX, tailY]);
  points.push([tail.x, tailY], [tail.x, tailTop]);
  const path = rounded(points);
  shape("path", { class: "grip", d: path }, node);
  shape("path", { class: `arc ${dash}`, d: path }, node);
  shape("circle", { class: "head", cx: head.x, cy: headTop, r: 2.5 }, node);
  if (symmetric.has(arc.relation.type)) shape("circle", { class: "head", cx: tail.x, cy: tailTop, r: 2.5 }, node);
  else shape("path", { class: "head", d: `M${tail.x} ${tailTop + 2}l-4 -8h8z` }, node);
  arc.label.y = (arc.label.segment === head.segment ? headY : tailY) - 1.5 * arc.label.segment.drop;
  return node;
}

function drawArcLabel(picture, sentence, arc) {
  const { node } = group(picture, sentence, "relations", arc.r);
  drawLabel(node, arc.label.text, arc.label.x - arc.label.width / 2, arc.label.y + 4, arc.label.width);
  name(node, sentence, "relations", arc.r);
  return node;
}

// A path of straight lines with round corners.
function rounded(points) {
  let path = `M${points[0]}`;
  for (let i = 1; i < points.length - 1; i++) {
    const [before, corner, after] = [points[i - 1], points[i], points[i + 1]];
    const at = (other) => {
      const [dx, dy] = [other[0] - corner[0], other[1] - corner[1]];
      const length = Math.hypot(dx, dy) || 1;
      const radius = Math.min(6, length / 2);
      return [corner[0] + (dx / length) * radius, corner[1] + (dy / length) * radius];
    };
    path += `L${at(before)}Q${corner} ${at(after)}`;
  }
  return `${path}L${points[points.length - 1]}`;
}

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
    // a record that is only numbered has its number already
    if (sentence.id !== null && sentence.id !== String(index)) title.append(" · ", element("bdi", {}, sentence.id));
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

const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

function fillFacts(card) {
  const facts = card.querySelector(".facts");
  if (!card.shown) return;
  const sentence = sentences[card.dataset.index];
  const { entities, relations } = card.shown;
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
  byId("status").textContent =
    `Showing ${wanted.length.toLocaleString("en")} of ${count(sentences.length, "sentence", "sentences")}, ` +
    `${count(totals[0], "entity", "entities")}, ${count(totals[1], "relation", "relations")}`;
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
