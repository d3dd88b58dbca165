
"use strict";
// What a worker says is untrusted: text enters the document through textContent only.

const EVERY = 2000; // ms between two looks
const PATIENCE = 5000; // ms for an answer
const LONGEST = 5000; // ms between two attempts while nobody answers
const SYMBOLS = { backoff: "\u21bb", starting: "\u25d4", ready: "\u25cf", draining: "\u25d1", killing: "\u2715" };
const TROUBLE = /failed|hung|not_|kill|refused|giving_up|backoff|timeout|stalled|rolled_back|incomplete/;

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
function size(bytes) {
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
  return Number.isNaN(date.getTime()) ? String(time) : date.toLocaleTimeString([], { hourCycle: "h23" });
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

/** A row with a cell of each class; a label is for screens that are too narrow for a head. */
function row(...cells) {
  return () => {
    const made = element("tr");
    const head = element("th");
    head.scope = "row";
    made.append(head);
    for (const [name, label] of cells) {
      const cell = element("td", name);
      if (label) cell.dataset.label = label;
      made.append(cell);
    }
    return made;
  };
}

/** A bar and what it means; a meter is good at one end. */
function bar(cell, kind, value, max, label, best = 0) {
  if (!cell.firstElementChild) cell.append(element(kind), element("span"));
  const [shown, text] = cell.children;
  shown.max = Math.max(max, 1);
  if (kind === "meter") {
    shown.low = best ? 0.5 : shown.max / 4;
    shown.high = best ? shown.max - 0.5 : shown.max / 2;
    shown.optimum = best ? shown.max : 0;
  }
  shown.value = value;
  shown.setAttribute("aria-label", label);
  write(text, label);
}

const POOL = [["state"], ["bar"], ["number", "generation"], ["number", "restarts"], ["bar"], ["error", "last error"]];

function showPool(line, pool, name) {
  const [head, state, ready, generation, restarts, rollout, error] = line.children;
  write(head, name);
  write(state, pool.state);
  classify(state, `state ${pool.state}`);
  bar(ready, "meter", pool.ready, pool.desired, `${pool.ready} of ${pool.desired}${pool.pinned ? ", pinned" : ""}`, 1);
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
  write(error, pool.last_error || "");
}

const PARTS = ["name", "is", "age", "memory", "which", "pid", "more", "says"];

function makeCell() {
  const made = element("li");
  made.append(...PARTS.map((name) => element("span", name)));
  return made;
}

function showWorker(cell, worker) {
  const [name, is, age, memory, which, pid, more, says] = cell.children;
  classify(cell, worker.state);
  write(name, `${SYMBOLS[worker.state] || "?"} ${worker.slot}`);
  write(is, worker.state);
  write(age, worker.age_seconds === null ? "no process" : `up ${duration(worker.age_seconds)}`);
  write(memory, size(worker.resident_memory_bytes));
  write(which, `gen ${worker.generation}`);
  write(pid, worker.pid ? `pid ${worker.pid}` : "");
  const beat = worker.heartbeat_age_seconds === null ? "" : `beat ${duration(worker.heartbeat_age_seconds)} ago`;
  const restarts = worker.restarts ? `${worker.restarts} restart${worker.restarts > 1 ? "s" : ""}` : "";
  write(more, [beat, restarts].filter(Boolean).join(", "));
  write(says, worker.status);
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
  made.append(element("time"), element("b"), element("span", "whose"), element("span", "more"));
  return made;
}

function showEvent(line, entry) {
  const [time, what, whose, more] = line.children;
  const { time: when, event, pool, slot, reason, error, ...rest } = entry;
  time.dateTime = when;
  hint(time, when);
  write(time, clock(when));
  write(what, event);
  classify(what, error || TROUBLE.test(event) ? "trouble" : "");
  write(whose, pool === undefined ? "" : pool + (slot === undefined || slot === null ? "" : `/${slot}`));
  const fields = Object.entries({ reason, error, ...rest }).filter(([, value]) => ![null, undefined, ""].includes(value));
  write(more, fields.map(([key, value]) => `${key}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", "));
}

/** How many workers are in which state. */
function showLegend(pools) {
  const workers = pools.flatMap(([, pool]) => pool.workers);
  for (const [n, [state, symbol]] of Object.entries(SYMBOLS).entries()) {
    const count = workers.filter((worker) => worker.state === state).length;
    write(at("legend").children[n], `${symbol} ${state} ${count}`);
    classify(at("legend").children[n], count ? state : "none");
  }
}

/** Show a status as /status tells it. `now`: the observer's clock, in ms; ours may be wrong. */
function show(status, now) {
  const pools = Object.entries(status.pools);
  write(at("phase"), status.phase);
  classify(at("phase"), `tag ${status.phase}`);
  const up = duration(Math.max(0, now - Date.parse(status.started_at)) / 1000);
  write(at("about"), `version ${status.version}, pid ${status.pid}, up ${up}, ${status.config.path || "no file"}`);
  const error = status.config.error ? `The last reload was rejected:\n${status.config.error}` : "";
  write(at("problem"), error);
  at("problem").hidden = !error;
  keep(at("pools"), pools, row(...POOL), showPool);
  showLegend(pools);
  keep(at("workers"), pools, makeGroup, showGroup);
  at("sockets-section").hidden = !Object.keys(status.sockets).length;
  keep(at("sockets"), Object.entries(status.sockets), row(["address"], ["bar"]), showSocket);
  const seen = new Map();
  const events = status.events.map((entry) => {
    const text = JSON.stringify(entry);
    seen.set(text, (seen.get(text) || 0) + 1);
    return [`${text} ${seen.get(text)}`, entry];
  });
  keep(at("events"), events.reverse(), makeEvent, showEvent);
  const kept = pools.map(([, pool]) => pool).filter((pool) => !["completed", "stopped"].includes(pool.state));
  const sum = (key) => kept.reduce((total, pool) => total + pool[key], 0);
  document.title = `${sum("ready")}/${sum("desired")} ready - entrypoint`;
}

let last = null; // when the figures that are shown came
let failures = 0;
let timer = 0;

function mark(trouble) {
  document.body.classList.toggle("stale", Boolean(trouble));
  if (!trouble) return write(at("freshness"), `live, every ${EVERY / 1000} s`);
  document.title = "not live - entrypoint";
  const since = last ? `These figures are of ${clock(last)}` : "There are no figures yet";
  return write(at("freshness"), `Not live: ${trouble}. ${since}; trying again.`);
}

/** Ask once, and show the answer. Throws an error that says why there is none. */
async function refresh() {
  const answer = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) }).catch((error) => {
    throw new Error(error.name === "TimeoutError" ? "no answer" : "connection lost");
  });
  if (!answer.ok) throw new Error((await answer.text()).trim().slice(0, 200) || `HTTP ${answer.status}`);
  show(await answer.json(), Date.parse(answer.headers.get("date")) || Date.now());
  last = new Date();
}

async function look() {
  clearTimeout(timer);
  try {
    await refresh();
    failures = 0;
    mark("");
  } catch (error) {
    failures += 1;
    mark(error.message);
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
