
"use strict";
// What a worker says is untrusted: text enters the document through textContent only.

const EVERY = 2000; // ms between two looks
const PATIENCE = 5000; // ms for an answer
const LONGEST = 15000; // ms between two attempts while nobody answers
const SYMBOLS = { backoff: "\u21bb", starting: "\u25d4", ready: "\u25cf", draining: "\u25d1", killing: "\u2715" };

const at = (id) => document.getElementById(id);

/** Seconds, in one or two units: 42 s, 3 min 5 s, 2 d 4 h. */
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => whole >= size);
  const [name, size] = units[first];
  const rest = units[first + 1];
  const more = rest ? Math.floor((whole % size) / rest[1]) : 0;
  return `${Math.floor(whole / size)} ${name}${more ? ` ${more} ${rest[0]}` : ""}`;
}

/** Bytes, in three digits or so: 38.2 MiB. */
function memory(bytes) {
  if (bytes === null || bytes === undefined) return "";
  let value = bytes / 1024;
  let unit = "KiB";
  for (const next of ["MiB", "GiB", "TiB"]) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return `${value < 100 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

function clock(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? String(time) : date.toLocaleTimeString();
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Change only what differs, so that selections, tooltips and screen readers are left in peace. */
function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function classify(target, name) {
  if (target.className !== name) target.className = name;
}

function hint(target, text) {
  if (target.title !== text) target.title = text;
}

/** Make the children of a parent those of the items, in that order, and keep the elements of those that stay. */
function keep(parent, items, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const [key, item] of items) {
    let child = old.get(key);
    old.delete(key);
    if (!child) {
      child = make();
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item, key);
  }
  for (const child of old.values()) child.remove();
}

function row(cells) {
  return () => {
    const made = element("tr");
    const head = element("th");
    head.scope = "row";
    made.append(head);
    for (let n = 1; n < cells; n++) made.append(element("td"));
    return made;
  };
}

function bar(cell, kind, value, max, label) {
  if (!cell.firstElementChild) cell.append(element(kind), element("span"));
  const [shown, text] = cell.children;
  shown.max = Math.max(max, 1);
  shown.value = value;
  shown.setAttribute("aria-label", label);
  write(text, ` ${label}`);
}

function showPool(line, pool, name) {
  const [head, state, ready, generation, restarts, rollout, error] = line.children;
  write(head, name);
  write(state, pool.state);
  classify(state, pool.state);
  write(ready, `${pool.ready} of ${pool.desired}${pool.pinned ? ", pinned" : ""}`);
  write(generation, String(pool.generation));
  write(restarts, String(pool.restarts));
  if (pool.rollout) {
    const { phase, replaced, total, reason, since_seconds: since } = pool.rollout;
    bar(rollout, "progress", replaced, total, `${phase}: ${replaced} of ${total}, generation ${pool.rollout.generation}`);
    hint(rollout, [`for ${duration(since)}`, reason].filter(Boolean).join("; "));
  } else {
    rollout.replaceChildren();
    hint(rollout, "");
  }
  classify(error, "error");
  write(error, pool.last_error || "");
}

function makeCell() {
  const made = element("li");
  made.append(element("span", "name"), element("span", "figures"), element("span", "says"));
  return made;
}

function showWorker(cell, worker) {
  const [name, figures, says] = cell.children;
  const beat = duration(worker.heartbeat_age_seconds);
  classify(cell, worker.state);
  write(name, `${SYMBOLS[worker.state] || "?"} ${worker.slot} ${worker.state}`);
  const some = [duration(worker.age_seconds), memory(worker.resident_memory_bytes), beat && `beat ${beat} ago`];
  write(figures, some.filter(Boolean).join(" \u00b7 "));
  write(says, worker.status || "");
  const all = [worker.id, worker.pid && `pid ${worker.pid}`, `generation ${worker.generation}`, `restarts ${worker.restarts}`];
  hint(cell, [...all.filter(Boolean), worker.status].filter(Boolean).join("\n"));
}

function makeGroup() {
  const made = element("div");
  made.append(element("h3"), element("ul", "cells"));
  return made;
}

function showGroup(group, pool, name) {
  const [title, cells] = group.children;
  write(title, `${name} (${pool.workers.length})`);
  cells.setAttribute("aria-label", `workers of ${name}`);
  keep(cells, pool.workers.map((worker) => [worker.id, worker]), makeCell, showWorker);
}

function showSocket(line, socket, name) {
  const [head, address, queue] = line.children;
  write(head, name);
  write(address, socket.bind);
  bar(queue, "meter", socket.queued, socket.backlog, `${socket.queued} of at most ${socket.backlog}`);
}

function makeEvent() {
  const made = element("li");
  made.append(element("time"), element("b"), element("span"));
  return made;
}

function showEvent(line, entry) {
  const [time, what, more] = line.children;
  const { time: when, event, pool, slot, ...rest } = entry;
  time.dateTime = when;
  write(time, clock(when));
  write(what, event);
  const whose = pool === undefined ? "" : pool + (slot === undefined || slot === null ? "" : `/${slot}`);
  const fields = Object.entries(rest).filter(([, value]) => value !== null && value !== "");
  const told = fields.map(([key, value]) => `${key}: ${typeof value === "object" ? JSON.stringify(value) : value}`);
  write(more, [whose, ...told].filter(Boolean).join(", "));
}

/** Show a status as /status tells it. */
function show(status) {
  const pools = Object.entries(status.pools);
  write(at("phase"), status.phase);
  classify(at("phase"), `tag ${status.phase}`);
  const up = duration((Date.now() - new Date(status.started_at).getTime()) / 1000);
  write(at("about"), `version ${status.version}, pid ${status.pid}, up ${up}, ${status.config.path || "no file"}`);
  const error = status.config.error ? `The last reload was rejected:\n${status.config.error}` : "";
  write(at("problem"), error);
  at("problem").hidden = !error;
  keep(at("pools"), pools, row(7), showPool);
  keep(at("workers"), pools, makeGroup, showGroup);
  at("sockets-section").hidden = !Object.keys(status.sockets).length;
  keep(at("sockets"), Object.entries(status.sockets), row(3), showSocket);
  const seen = new Map();
  const events = status.events.map((entry) => {
    const text = JSON.stringify(entry);
    seen.set(text, (seen.get(text) || 0) + 1);
    return [`${text} ${seen.get(text)}`, entry];
  });
  keep(at("events"), events.reverse(), makeEvent, showEvent);
}

let last = null; // when the figures that are shown came
let failures = 0;
let timer = 0;

function mark(trouble) {
  document.body.classList.toggle("stale", Boolean(trouble));
  const since = last ? `stale since ${last.toLocaleTimeString()}` : "nothing yet";
  write(at("freshness"), trouble ? `reconnecting, ${since}: ${trouble}` : "live, every 2 s");
}

async function look() {
  clearTimeout(timer);
  try {
    const answer = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error((await answer.text()).trim().slice(0, 200) || `HTTP ${answer.status}`);
    show(await answer.json());
    last = new Date();
    failures = 0;
    mark("");
  } catch (error) {
    failures += 1;
    mark(error.name === "TimeoutError" ? "no answer" : error.message);
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, Math.min(EVERY * 1.5 ** Math.max(failures - 1, 0), LONGEST));
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) look();
});
for (const [state, symbol] of Object.entries(SYMBOLS)) at("legend").append(element("li", state, `${symbol} ${state}`));
look();
