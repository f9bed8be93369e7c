"use strict";
// Everything that is shown goes through textContent or an attribute: nothing that the server says is read as HTML.
const KEPT = 120, WINDOW = 60, PAUSE = 1000, LIMIT = 10_000;
const SVG = "http://www.w3.org/2000/svg";
const narrow = matchMedia("(max-width: 46rem)");
const at = (id) => document.getElementById(id);
let about = null, seen = [], lost = null;

function make(name, text, attributes = {}, space = null) {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}
const draw = (name, attributes, text = null) => make(name, text, attributes, SVG);

// --- numbers --------------------------------------------------------------------------------------------------------
const whole = (number) => Math.round(number).toLocaleString("en-US");
const rate = (number) => number > 0 && number < 10 ? number.toFixed(1) : whole(number);
const cut = (text, longest) => text.length > longest ? text.slice(0, longest - 1) + "…" : text;

function time(seconds) {
  if (seconds === null) return "–";
  if (seconds >= 0.9995) return seconds.toFixed(1) + " s";
  const thousandths = 1000 * seconds;
  return (thousandths >= 10 ? thousandths.toFixed(0) : thousandths.toPrecision(2)) + " ms";
}

const size = (histogram) => histogram.counts.reduce((sum, count) => sum + count, 0);

/** What a histogram has gained within the last minute; all of it when that is nothing. */
function lately(find) {
  const now = seen.at(-1), then = seen.find((one) => one.clock >= now.clock - WINDOW);
  const all = find(now), before = find(then);
  const gained = {bounds: all.bounds, counts: all.counts.map((count, n) => count - before.counts[n])};
  return size(gained) ? [gained, "last minute"] : [all, "since start"];
}

/** Interpolated within its bucket, as Prometheus does; in the last bucket, its lower bound. */
function quantile(histogram, share) {
  let left = share * size(histogram);
  if (left === 0) return null;
  for (const [n, count] of histogram.counts.entries()) {
    const low = n ? histogram.bounds[n - 1] : 0, high = histogram.bounds[n] ?? low;
    if (count >= left) return low + (high - low) * left / count;
    left -= count;
  }
  return histogram.bounds.at(-1);
}

/** Per second, between neighbours of what was seen. */
function rates(which) {
  return seen.slice(1).map((one, n) => {
    const before = seen[n];
    return (one.counters[which] - before.counters[which]) / (one.clock - before.clock);
  });
}

// --- the parts of the page ------------------------------------------------------------------------------------------
function facts(stats) {
  const found = [["Model", stats.model], ["Version", cut(stats.version, 16), stats.version],
    ["Connections", whole(stats.now.connections ?? 0)], ["Workers restarted", stats.restarts],
    ["Answers not logged", stats.now.log_dropped ? whole(stats.now.log_dropped) : ""],
    ["Newer versions", stats.changes]];
  at("model").replaceChildren(...found.filter(([, text]) => text).map(([name, text, title]) => {
    const pair = make("div", null);
    pair.append(make("dt", name), make("dd", text, title && title !== text ? {title} : {}));
    return pair;
  }));
}

function flow(stats) {
  const tall = narrow.matches, parts = about.flow, svg = at("flow");
  const width = tall ? 350 : 1160, box = tall ? 350 : 290, high = 84, gap = tall ? 52 : (width - 3 * box) / 2;
  svg.setAttribute("viewBox", tall ? `0 0 ${width} ${3 * high + 2 * gap}` : `0 0 ${width} ${high}`);
  const said = [`${whole(stats.now.queue_rows ?? 0)} waiting`, about.logged];
  const drawn = parts.flatMap((part, n) => {
    const x = tall ? 0 : n * (box + gap), y = tall ? n * (high + gap) : 0, found = [];
    if (n > 0 && tall) {
      found.push(draw("path", {class: "edge", d: `M 28 ${y - gap + 4} V ${y - 9}`}),
        draw("path", {class: "tip", d: `M 23.5 ${y - 10} h 9 l -4.5 7 z`}),
        draw("text", {class: "said", x: 46, y: y - gap / 2 + 4}, said[n - 1]));
    } else if (n > 0) {
      found.push(draw("path", {class: "edge", d: `M ${x - gap + 5} ${high / 2} H ${x - 11}`}),
        draw("path", {class: "tip", d: `M ${x - 11} ${high / 2 - 4.5} v 9 l 7 -4.5 z`}),
        draw("text", {class: "said", x: x - gap / 2, y: high / 2 - 12, "text-anchor": "middle"}, said[n - 1]));
    }
    found.push(draw("rect", {x: x + .5, y: y + .5, width: box - 1, height: high - 1, rx: 9}),
      draw("text", {class: "role", x: x + 18, y: y + 23}, part.role),
      draw("text", {class: "part", x: x + 18, y: y + 44}, cut(part.name, 28)),
      draw("text", {class: "about", x: x + 18, y: y + 65}, cut(part.detail, 38)));
    return found;
  });
  const text = parts.map((part) => `${part.role}: ${part.name}, ${part.detail}`).join("; ") + `; logged ${about.logged}`;
  svg.replaceChildren(draw("title", {id: "flow-text"}, text), ...drawn);
  svg.classList.toggle("moving", (rates(1).at(-1) ?? 0) > 0);
}

function line(values) {
  const svg = draw("svg", {class: "line", viewBox: `0 0 ${KEPT} 40`, preserveAspectRatio: "none", "aria-hidden": "true"});
  const most = Math.max(...values, 1e-9), start = KEPT - values.length;
  const path = values.map((value, n) => `${n ? "L" : "M"} ${start + n + 1} ${(39 - 37 * value / most).toFixed(2)}`).join(" ");
  if (values.length > 1) {
    svg.append(draw("path", {class: "area", d: `${path} V 40 H ${start + 1} Z`}), draw("path", {d: path}));
  }
  return svg;
}

function showRates() {
  at("rates").replaceChildren(...["Requests", "Records answered"].map((name, which) => {
    const values = rates(which), card = make("div", null), axis = make("div", null, {class: "axis"});
    const figure = make("p", values.length ? rate(values.at(-1)) : "–", {class: "figure"});
    figure.append(" ", make("small", "per second"));
    axis.append(make("small", "2 min ago"), make("small", `most ${rate(Math.max(0, ...values))}`), make("small", "now"));
    card.append(make("h2", name), figure, line(values), axis);
    return card;
  }));
}

function latency(stats) {
  const found = stats.times.map((one, n) => [one.name, ...lately((seen) => seen.times[n])]);
  at("latency-over").textContent = found.some(([, , over]) => over === "last minute") ? "last minute" : "since start";
  at("latency").tBodies[0].replaceChildren(...found.map(([name, histogram]) => {
    const row = make("tr", null);
    row.append(make("th", name, {scope: "row"}));
    row.append(...[.5, .99].map((share) => make("td", time(quantile(histogram, share)))));
    return row;
  }));
}

/** Rows of a name, a bar and a number. */
function bars(into, rows, none) {
  const most = Math.max(...rows.map(([, number]) => number), 1);
  const cells = rows.flatMap(([name, number]) => {
    const bar = make("i", null), track = make("span", null, {"aria-hidden": "true"});
    bar.style.width = `${100 * number / most}%`;
    track.append(bar);
    return [make("span", name), track, make("span", whole(number))];
  });
  into.replaceChildren(...(cells.length ? cells : [make("p", none, {class: "note"})]));
}

function batches() {
  const [histogram, over] = lately((seen) => seen.batch), {bounds} = histogram;
  at("batches-over").textContent = over;
  const named = histogram.counts.map((count, n) => {
    const low = n ? bounds[n - 1] + 1 : 0, high = bounds[n];
    return [high === undefined ? `over ${whole(bounds.at(-1))}` : low >= high || n === 0 ? whole(high) : `${whole(low)}–${whole(high)}`, count];
  });
  bars(at("batches"), named.filter(([, count]) => count), "None yet.");
}

function queue(stats) {
  const {queue_rows: rows = 0, queue_requests: requests = 0} = stats.now;
  at("waiting").textContent = whole(rows);
  at("queue-note").textContent = requests ? `of ${whole(requests)} ${requests === 1 ? "request" : "requests"}` : "no request waits";
}

function rejects(stats) {
  const kinds = Object.entries(stats.rejects).sort((one, other) => other[1] - one[1]);
  bars(at("rejects"), kinds.map(([kind, number]) => [kind.replaceAll("_", " "), number]), "None: every record was answered.");
}

function show(stats) {
  facts(stats);
  flow(stats);
  showRates();
  latency(stats);
  batches();
  queue(stats);
  rejects(stats);
}

// --- try a record ---------------------------------------------------------------------------------------------------
function control(field, id) {
  const attributes = {id, "data-name": field.name, autocomplete: "off"};
  if (field.required) attributes["aria-required"] = "true";
  if (field.kind === "boolean") {
    const select = make("select", null, attributes);
    select.append(...["", "true", "false"].map((text) => make("option", text, {value: text})));
    return select;
  }
  if (["array", "object"].includes(field.kind)) return make("textarea", null, {...attributes, rows: 2, spellcheck: "false"});
  const text = field.kind !== "integer" && field.kind !== "number";
  return make("input", null, {...attributes, ...(text ? {"data-text": "1"} : {inputmode: "decimal"})});
}

function build() {
  const fields = about.form.map((field, n) => {
    const id = `field-${n}`, div = make("div", null, {class: "field"}), label = make("label", null, {for: id});
    label.append(make("span", field.name), make("small", `${field.type}${field.required ? ", required" : ""}`));
    const input = control(field, id), wrong = make("p", "", {class: "wrong", id: `${id}-wrong`});
    input.setAttribute("aria-describedby", wrong.id);
    if (field.example !== null) input.value = input.dataset.text && typeof field.example === "string" ? field.example : JSON.stringify(field.example);
    div.append(label, input, wrong);
    return div;
  });
  at("fields").replaceChildren(...fields);
}

/** What is no JSON goes as a text: the server says what is wrong with which field, and not with the whole. */
function written(field) {
  if (!field.dataset.text) {
    try {
      JSON.parse(field.value);
      return field.value;
    } catch { /* a text */ }
  }
  return JSON.stringify(field.value);
}

function record() {
  const found = [];
  for (const field of at("form").querySelectorAll("[data-name]")) {
    if (field.value.trim() === "") continue;
    found.push(`${JSON.stringify(field.dataset.name)}: ${written(field)}`);
  }
  return `{${found.join(", ")}}`;
}

/** JSON with room to break lines between its values, and not within them. */
const spelled = (value) => JSON.stringify(value, null, 1).replace(/\n */g, " ");

function answered(values) {
  const table = make("table", null), body = make("tbody", null), head = make("thead", null), titles = make("tr", null);
  titles.append(make("th", "Field", {scope: "col"}), make("th", "Answer", {scope: "col"}));
  head.append(titles);
  body.append(...Object.entries(values).map(([name, value]) => {
    const row = make("tr", null);
    row.append(make("th", name, {scope: "row"}), make("td", typeof value === "string" ? value : spelled(value)));
    return row;
  }));
  table.append(head, body);
  at("answer").replaceChildren(make("h3", "Answered"), table);
}

/** The field that a reason begins with, if it is one of ours. */
const fieldOf = (message) => about.form.findIndex(({name}) => message.startsWith(`field '${name}':`) || message.startsWith(`field "${name}":`));

function refused(status, said) {
  const parts = [make("h3", status ? `Refused: ${said.error}` : said.error, {class: "wrong"})];
  if (said.records?.length) {
    const table = make("table", null), body = make("tbody", null), head = make("thead", null), titles = make("tr", null);
    titles.append(...["Row", "Field", "Reason"].map((text) => make("th", text, {scope: "col"})));
    head.append(titles);
    for (const {row, kind, message} of said.records) {
      const n = fieldOf(message), line = make("tr", null), reason = n < 0 ? message : message.slice(message.indexOf(": ", about.form[n].name.length + 7) + 2);
      line.append(make("td", row), make("td", n < 0 ? "–" : about.form[n].name), make("td", `${kind}: ${reason}`));
      body.append(line);
      if (n >= 0) {
        at(`field-${n}`).setAttribute("aria-invalid", "true");
        at(`field-${n}-wrong`).textContent = reason;
      }
    }
    table.append(head, body);
    parts.push(table);
  }
  if (said.id) parts.push(make("p", `The log explains it under ${said.id}.`, {class: "note"}));
  at("answer").replaceChildren(...parts);
}

async function ask(event) {
  event.preventDefault();
  const button = event.target.querySelector("button"), headers = {"Content-Type": "application/json"};
  for (const field of event.target.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const text of event.target.querySelectorAll(".wrong")) text.textContent = "";
  button.disabled = true;
  try {
    const response = await fetch("try", {method: "POST", headers, body: record()});
    if (!response.ok) throw new Error(await response.text());
    const {status, said} = await response.json();
    if (status === 200) answered(said); else refused(status, said);
  } catch (error) {
    refused(0, {error: `There was no answer: ${error.message}`});
  } finally {
    button.disabled = false;
  }
}

// --- once a second --------------------------------------------------------------------------------------------------
function state(is, text) {
  if (at("state").textContent !== text) at("state").textContent = text;  // it is read aloud when it changes
  at("state").dataset.is = is;
}

async function get(path) {
  const response = await fetch(path, {cache: "no-store", signal: AbortSignal.timeout(LIMIT)});
  if (!response.ok) throw new Error(String(response.status));
  return response;
}

/** Prometheus' text: a name, labels in braces if there are any, a number. */
function parsed(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const parts = /^mlinfer_serve_(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!parts) continue;
    const labels = {};
    for (const [, name, value] of (parts[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_, escaped) => escaped === "n" ? "\n" : escaped);
    }
    found.push([parts[1], labels, Number(parts[3])]);
  }
  return found;
}

/** The numbers that the page shows, out of what a scraper reads. */
function numbers(text) {
  const all = parsed(text), of = (name) => all.filter(([found]) => found === name);
  const sum = (name) => of(name).reduce((total, [, , number]) => total + number, 0);
  const by = (name, label) => Object.fromEntries(of(name).map(([, labels, number]) => [labels[label], number]));
  const histogram = (name) => {
    const below = of(name + "_bucket");
    return {
      bounds: below.slice(0, -1).map(([, labels]) => Number(labels.le)),
      counts: below.map(([, , number], n) => number - (n ? below[n - 1][2] : 0)),
    };
  };
  const changes = by("model_changes_total", "outcome"), restarts = sum("worker_restarts_total");
  return {
    clock: performance.now() / 1000,
    model: of("model_info")[0]?.[1].model ?? "",
    version: of("model_info").map(([, labels]) => labels.version).join(", "),
    counters: [sum("requests_total"), sum("rows_total")],
    times: [["Waiting", "queue_seconds"], ["Model", "infer_seconds"], ["Log", "write_seconds"]]
      .map(([name, which]) => ({name, ...histogram(which)})),
    batch: histogram("batch_rows"),
    rejects: by("rejects_total", "kind"),
    restarts: restarts ? whole(restarts) : "",
    changes: Object.entries(changes).map(([outcome, number]) => `${whole(number)} ${outcome}`).join(", "),
    now: Object.fromEntries(["queue_rows", "queue_requests", "connections", "log_dropped"].map((name) => [name, sum(name)])),
  };
}

async function look() {
  try {
    const text = await (await get("metrics")).text();
    if (!text) {
      state("waiting", "not yet serving");
      return;
    }
    const stats = numbers(text), last = seen.at(-1);
    if (about === null || !about.serving || (last && stats.counters[0] < last.counters[0])) {  // another process may listen here by now
      about = await (await get("pipeline")).json();
      if (!about.serving) return;
      seen = [];
      at("name").textContent = document.title = about.name;
      at("try").hidden = false;
      at("why-not").textContent = about.why_not ?? at("why-not").textContent;
      at("trying").hidden = !about.form;
      if (about.form) build();
    }
    seen = [...seen, stats].slice(-KEPT - 1);
    const ready = (await fetch("ready", {cache: "no-store"})).ok;
    state(ready ? "ready" : "waiting", ready ? "ready" : "ending");
    at("ago").textContent = "";
    show(stats);
  } catch (error) {
    const reached = !(error instanceof TypeError || error.name === "TimeoutError");
    state("gone", reached ? "failed" : "cannot be reached");
    if (!lost) lost = new Date();
    at("ago").textContent = `last seen ${lost.toLocaleTimeString()}`;
    return;
  }
  lost = null;
}

async function go() {
  if (!document.hidden) await look();
  setTimeout(go, PAUSE);
}

at("form").addEventListener("submit", ask);
narrow.addEventListener("change", () => seen.length && flow(seen.at(-1)));
go();
