"use strict";
// The demo: sends the form's text to the server, shows what comes back. All of it arrives in the document as text nodes,
// or as the document of a sandboxed frame.
const byId = (id) => document.getElementById(id);
const limit = Number(document.body.dataset.limit);
const seconds = Number(document.body.dataset.seconds);
const number = new Intl.NumberFormat("en");
const asked = { relation_threshold: null, entity_threshold: null, overlap: null };
let urls = [];

// In code points, as the server counts.
const length = () => [...byId("text").value].length;

function count() {
  const now = length();
  byId("count").textContent = `${number.format(now)} of ${number.format(limit)} characters`;
  byId("count").classList.toggle("over", now > limit);
  return now;
}

function say(text, error = false) {
  byId("message").textContent = text;
  byId("message").classList.toggle("error", error);
}

// A cell is a text, or a text and a note below it.
function fill(id, rows) {
  const body = byId(id).tBodies[0];
  body.replaceChildren();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const [text, note] of cells.map((cell) => [cell].flat())) {
      const made = row.insertCell();
      made.appendChild(document.createElement("bdi")).textContent = text;
      if (note) made.appendChild(document.createElement("small")).textContent = note;
    }
  }
  byId(id).hidden = !rows.length;
  byId(`no-${id}`).hidden = rows.length > 0;
}

function show({ record, page, height, files }) {
  byId("drawing").srcdoc = page;
  byId("drawing").style.height = `min(${height}px, 80vh)`;
  const end = (id) => [record.entities[id].text, record.entities[id].type];
  const relations = [...record.relations].sort((a, b) => b.score - a.score);
  fill("relations", relations.map((r) => [end(r.head), r.type, end(r.tail), r.score.toFixed(3)]));
  fill("entities", record.entities.map((e) => [e.text, e.type, `${e.start}–${e.end}`, e.score.toFixed(3)]));
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  byId("files").replaceChildren("Download:");
  for (const [name, content] of Object.entries(files)) {
    const link = byId("files").appendChild(document.createElement("a"));
    link.href = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
    link.download = link.textContent = name;
    link.className = "chip";
    urls.push(link.href);
  }
  byId("result").hidden = false;
  const counted = (items, one, more) => `${number.format(items.length)} ${items.length === 1 ? one : more}`;
  say(`${counted(record.entities, "entity", "entities")}, ${counted(record.relations, "relation", "relations")}.`);
}

async function extract() {
  if (byId("extract").disabled) return;
  const now = count();
  if (now > limit) {
    say(`The text has ${number.format(now)} characters; the demo takes at most ${number.format(limit)}. Shorten it.`, true);
    return;
  }
  byId("extract").disabled = true;
  byId("result").classList.add("working");
  say("Reading…");
  try {
    const response = await fetch("extract", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: byId("text").value, ...asked }),
      signal: AbortSignal.timeout(1000 * (seconds + 30)),
    });
    const answer = await response.json().catch(() => ({ error: `The server answers ${response.status}.` }));
    if (response.ok && answer.record) show(answer);
    else say(answer.error, true);
  } catch {
    say("The server does not answer. Is it running?", true);
  }
  byId("result").classList.remove("working");
  byId("extract").disabled = false;
}

byId("text").addEventListener("input", count);
byId("form").addEventListener("submit", (event) => { event.preventDefault(); extract(); });
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) extract();
});
for (const name of ["relation", "entity"]) {
  byId(name).addEventListener("input", () => {
    asked[`${name}_threshold`] = Number(byId(name).value);
    byId(`${name}-value`).textContent = asked[`${name}_threshold`].toFixed(2);
  });
}
byId("flat").addEventListener("change", () => { asked.overlap = byId("flat").checked ? "flat" : "allow"; });
count();
