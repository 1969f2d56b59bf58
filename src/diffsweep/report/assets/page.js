"use strict";
// Draws the page from the data beside it. Text goes into text nodes only: no value of a run becomes markup.
let data = null;
const find = (id) => document.getElementById(id);
const root = document.documentElement;

// The data in a page; many are compressed.
async function unpacked(page) {
  const node = page.getElementById("data");
  if (node.type !== "application/gzip") return JSON.parse(node.textContent);
  const bytes = Uint8Array.from(atob(node.textContent), (one) => one.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function digits(value, places = 4) {
  if (value === null || value === undefined) return "-";
  if (typeof value !== "number") return String(value);
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6)) return value.toExponential(places - 1);
  const rounded = Number(value.toPrecision(places));
  return rounded.toFixed(rounded === 0 ? 0 : Math.max(0, places - 1 - Math.floor(Math.log10(Math.abs(rounded)))));
}

function count(value) { return typeof value === "number" ? value.toLocaleString("en") : digits(value); }

// The value to the digits that its error leaves, as 0.380 ± 0.012, which words.with_error says as well; in one line.
function measured(value, half) {
  if (value === null || value === undefined) return "-";
  if (!half || half <= 1e-7 * Math.abs(value)) return digits(value);
  const error = Number(half.toExponential(1));
  const places = 1 - Math.floor(Math.log10(error) + 1e-9), largest = Math.max(Math.abs(value), error);
  if (largest < 1e-4 || largest >= 1e6) {
    const left = Math.max(0, Math.floor(Math.log10(largest)) + places);
    return `${value.toExponential(left)}\u00a0±\u00a0${error.toExponential(1)}`;
  }
  const unit = 10 ** Math.max(0, -places), after = Math.max(0, places);
  const said = (Math.round(value / unit) * unit).toFixed(0);
  // What rounds to 0 has no sign.
  const rounded = places > 0 ? value.toFixed(after) : said;
  return `${Number(rounded) === 0 ? rounded.replace("-", "") : rounded}\u00a0±\u00a0${error.toFixed(after)}`;
}

const signed = (value, half) => (value > 0 ? "+" : "") + measured(value, half);

// As much of a text as there is room for; both ends of it, for lists and paths differ at theirs. Plotly reads tags.
function short(text, room = 40) {
  const plain = String(text).replaceAll("<", "\u2039").replaceAll(">", "\u203a");
  if (plain.length <= room) return plain;
  const tail = Math.floor(room / 3);
  return `${plain.slice(0, Math.max(1, room - tail - 1))}\u2026${tail ? plain.slice(-tail) : ""}`;
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name) => make("option", name, { value: name })));
  if (chosen !== undefined) select.value = chosen;
}

// --- which table, which number ---------------------------------------------------------------------------------------

let table = null;
let number = "";
let grid = null;

const value = (row) => (number === table.metric ? row.value : (row.numbers[number] || [null])[0]);
const half = (row) => (number === table.metric ? row.half : (row.numbers[number] || [null, null])[1]);
const larger = () => table.larger_numbers.includes(number);
const better = (a, b) => (larger() ? a > b : a < b);
const direction = () => `${larger() ? "larger" : "smaller"} is better`;

function columns() {
  const numeric = { hozAlign: "right", headerHozAlign: "right", headerSortStartingDir: "asc" };
  const factors = table.factors.map((name) => ({
    title: name, field: `factor ${name}`, headerFilter: "list",
    headerFilterParams: { valuesLookup: true, clearable: true, multiselect: false,
      elementAttributes: { "aria-label": `only cells with ${name}` } }, minWidth: 102, maxInitialWidth: 240,
  }));
  const main = number === table.metric;
  const formatted = (write) => (
    { ...numeric, formatter: (cell) => make("span", write(cell.getValue(), cell.getData())) });
  const shown = [
    { title: "#", field: "place", width: 44, ...numeric },
    ...(main ? [{ title: "", field: "mark", width: 46, headerSort: false, formatter: (cell) => {
      const mark = cell.getValue();
      return make("span", mark === "tied" ? "=" : mark, mark ? { class: `mark-${mark}` } : {});
    } }] : []),
    { title: number, field: "shown", minWidth: 120, sorter: "number",
      ...formatted((_, row) => (row.shown === null && row.reason) || measured(row.shown, row.reach)) },
    ...factors,
    ...(main ? [{ title: "difference to the best", field: "gap", width: 146, sorter: "number",
      ...formatted((gap, row) => (gap === null ? "" : signed(gap, row.gap_half))) }] : []),
    { title: "network calls", field: "nfe", width: 106, ...formatted(count) },
    { title: "sampling time, s", field: "sampling", width: 112, ...formatted((one) => digits(one, 3)) },
    { title: "training time, s", field: "training", width: 104, ...formatted((one) => digits(one, 3)) },
    ...(differ("parameters") ? [
      { title: "parameters", field: "parameters", width: 106, ...formatted(count) }] : []),
    ...(differ("operations") ? [
      { title: "GFLOP a sample", field: "operations", width: 106,
        ...formatted((one) => (one === null ? "" : digits(one / 1e9, 3))) }] : []),
    { title: "real against real", field: "floor", width: 96, visible: main, ...formatted((one) => digits(one)) },
    ...(main && table.rows.some((row) => typeof row.reconstruction === "number") ? [
      { title: "after the autoencoder", field: "reconstruction", width: 96, ...formatted((one) => digits(one)) }] : []),
    ...(table.rows.some((row) => row.strength) ? [{ title: "guidance strength", field: "strength", width: 96 }] : []),
    ...(table.rows.some((row) => row.saturated) ? [{ title: "saturated", field: "saturated", width: 96 }] : []),
  ];
  return shown.map((column) => {
    const key = column.width ? "width" : "minWidth";
    return { ...column, [key]: Math.max(column[key], Math.min(240, titleWidth(column.title))) };
  });
}

// Pixels of a column whose title breaks between its words only, beside the arrow that sorts.
function titleWidth(title) {
  return 38 + 8.5 * Math.max(...title.split(" ").map((word) => word.length));
}

function differ(field) {
  return new Set(table.rows.map((row) => row[field])).size > 1;
}

// What a reader has set of the table, for the next one.
const kept = { filters: [] };

function leaderboard() {
  if (grid) grid.destroy();
  const rows = table.rows.map((row) => ({ ...row, shown: value(row), reach: half(row) }));
  rows.sort((a, b) => (a.shown === null) - (b.shown === null) || (larger() ? b.shown - a.shown : a.shown - b.shown));
  rows.forEach((row, i) => { row.place = i + 1; });
  grid = new Tabulator("#table", {
    data: rows, columns: columns(), index: "cell", layout: "fitDataFill", selectableRows: false, maxHeight: "70vh",
    // A setting's name holds dots.
    nestedFieldSeparator: false, placeholder: "nothing passes the filter",
    columnDefaults: { headerWordWrap: true },
    // On paper nobody scrolls.
    printAsHtml: true, printRowRange: "active", printConfig: { formatCells: true },
  });
  grid.on("rowClick", (_, row) => { choose(row.getData().cell); find("cells").scrollIntoView(); });
  grid.on("dataFiltered", (_, shown) => { find("shown").textContent = `${shown.length} of ${rows.length} cells`; });
  const filters = kept.filters;
  grid.on("tableBuilt", () => {
    for (const one of filters) if (grid.getColumn(one.field)) grid.setHeaderFilterValue(one.field, one.value);
    filtered();
    for (const column of grid.getColumns().filter((one) => one.getDefinition().headerSort !== false)) {
      const head = column.getElement(), field = column.getField();
      head.tabIndex = 0;
      head.addEventListener("keydown", (event) => {
        if (event.target !== head || (event.key !== "Enter" && event.key !== " ")) return;
        event.preventDefault();
        grid.setSort(field, head.getAttribute("aria-sort") === "ascending" ? "desc" : "asc");
      });
    }
  });
  find("protocol").textContent = table.protocol;
  find("direction").textContent = direction();
  find("shown").textContent = `${rows.length} of ${rows.length} cells`;
}

function filtered() {
  const words = find("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = (row) => words.every((word) => row.name.toLowerCase().includes(word)) && within(row);
  if (words.length || brushes.size) grid.setFilter(passes);
  else grid.clearFilter();
}

find("find").addEventListener("input", filtered);

// --- images ----------------------------------------------------------------------------------------------------------

let place = { cell: null, image: 0 };
const lively = !matchMedia("(prefers-reduced-motion: reduce)").matches;

function scale(strip) { return strip.images ? Math.max(1, Math.round(44 / strip.width)) : 1; }

// A line of the page's own colour between images that lie side by side: black pictures run into each other.
function apart(image, count) {
  const next = `${100 / count}%`, end = `calc(${next} - 2px)`, line = `#000 0 ${end}, transparent ${end} ${next}`;
  if (count > 1) image.style.maskImage = `repeating-linear-gradient(to right, ${line})`;
}

function images() {
  const rows = table.rows.filter((row) => data.strips[row.cell]);
  find("images").hidden = rows.length === 0;
  const several = rows.some((row) => data.strips[row.cell].images);
  find("strips").classList.toggle("whole", !several);
  find("looking").textContent = several ? "A column is one starting noise: what differs between rows is the choice "
    + "alone. Click to enlarge, then use the arrow keys." : "All from the same starting noises. Click to enlarge, then "
    + "use the arrow keys.";
  let headed = "";
  const body = rows.flatMap((row) => {
    const strip = data.strips[row.cell];
    const line = make("tr");
    line.append(make("th", `${row.place}. ${row.name}`, { scope: "row" }));
    const count = Math.max(1, strip.images);
    // What was asked for stands above the rows that were asked for the same.
    const heads = strip.texts && headed !== JSON.stringify(strip.texts) ? [requests(strip)] : [];
    headed = strip.texts ? JSON.stringify(strip.texts) : headed;
    const image = make("img", null, { src: showing(strip), alt: `samples of ${row.name}`, tabindex: "0", role: "button",
      width: strip.width * count * scale(strip), height: strip.height * scale(strip), "data-cell": row.cell });
    apart(image, count);
    const enlarge = (x) => enlarged(row.cell, strip.images ? Math.floor(x * strip.images) : 0);
    const inside = (share) => Math.min(0.999, Math.max(0, share));
    image.addEventListener("click", (event) => enlarge(inside(event.offsetX / image.clientWidth)));
    image.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      enlarge(0);
    });
    const cell = make("td");
    cell.append(image);
    if (data.sounds[row.cell]) cell.append(player(row.cell, row.name));
    line.append(cell);
    return [...heads, line];
  });
  find("strips").replaceChildren(...body);
}

// The texts that images were asked for, each above its own.
function requests(strip) {
  const line = make("tr", null, { class: "requests" });
  const holder = make("td");
  for (let from = 0, to; from < strip.texts.length; from = to) {
    to = from + 1;
    while (to < strip.texts.length && strip.texts[to] === strip.texts[from]) to += 1;
    const text = strip.texts[from];
    const part = make("span", text || "no text", { title: text || "no text" });
    part.style.width = `${(to - from) * strip.width * scale(strip)}px`;
    holder.append(part);
  }
  line.append(make("th", "asked for", { scope: "row" }), holder);
  return line;
}

// Which image of a strip it is, in words.
function said(strip, image) {
  if (!strip.images) return "";
  const number = strip.numbers ? strip.numbers[image] : image;
  return `starting noise ${number}${strip.texts && strip.texts[image] ? `: ${strip.texts[image]}` : ""}`;
}

// What moves does so, unless who looks has asked for peace.
function showing(strip) { return strip.still && !lively ? strip.still : strip.src; }

// The first samples, one after the other.
function player(cell, name) {
  return make("audio", null, { src: data.sounds[cell], controls: "", preload: "metadata", "aria-label": `sounds of ${name}` });
}

function picture(cell, image) {
  const strip = data.strips[cell];
  const figure = make("figure");
  const row = table.rows.find((one) => one.cell === cell);
  const loaded = new Image();
  if (!strip.images) {
    loaded.src = strip.src;
    loaded.alt = `samples of ${row.name}`;
    figure.append(loaded);
  } else if (strip.still) {
    // A canvas would show the first frame only: a window on the moving row instead.
    const size = Math.max(1, Math.floor(320 / strip.width));
    const pane = make("div", null, { class: "window" });
    pane.style.cssText = `width: ${strip.width * size}px; height: ${strip.height * size}px`;
    loaded.src = showing(strip);
    loaded.alt = `sample ${image} of ${row.name}`;
    loaded.style.cssText = `width: ${strip.width * size * strip.images}px; margin-left: ${-image * strip.width * size}px`;
    pane.append(loaded);
    figure.append(pane);
  } else {
    const size = Math.max(1, Math.floor(320 / strip.width));
    const canvas = make("canvas", null, { width: strip.width * size, height: strip.height * size, role: "img",
      "aria-label": `sample ${image} of ${row.name}` });
    loaded.addEventListener("load", () => {
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      pen.drawImage(loaded, image * strip.width, 0, strip.width, strip.height, 0, 0, canvas.width, canvas.height);
    });
    loaded.src = strip.src;
    figure.append(canvas);
  }
  figure.append(make("figcaption", `${row.place}. ${row.name}: ${number} ${measured(value(row), half(row))}`));
  return figure;
}

const pictured = () => table.rows.filter((row) => data.strips[row.cell]);
// The cell that a reader has chosen to stand beside; the best where there is none.
let beside = null;

function enlarged(cell, image) {
  place = { cell, image };
  const rows = pictured(), names = rows.map((row) => `${row.place}. ${row.name}`);
  const other = rows.find((row) => row.cell === beside) || rows[0];
  options(find("beside"), names, names[rows.indexOf(other)]);
  const pictures = [picture(cell, image)];
  // The same noise drawn by another, to compare with.
  if (other.cell !== cell) pictures.push(picture(other.cell, image));
  const sliding = find("sliding").checked && pictures.length === 2;
  find("slide").hidden = !sliding;
  if (sliding) {
    const over = make("div", null, { class: "over" });
    over.append(...pictures.map((figure) => figure.firstChild));
    find("large").replaceChildren(over, ...pictures);
    slid();
  } else {
    find("large").replaceChildren(...pictures);
  }
  find("caption").textContent = said(data.strips[cell], image);
  if (!find("light").open) find("light").showModal();
}

// What is left of the slider shows the one picture, what is right of it the other.
function slid() {
  const over = document.querySelector("#large .over");
  if (over) over.lastChild.style.clipPath = `inset(0 0 0 ${find("slide").value}%)`;
}

find("slide").addEventListener("input", slid);
find("sliding").addEventListener("change", () => enlarged(place.cell, place.image));
find("beside").addEventListener("change", () => {
  beside = pictured()[find("beside").selectedIndex].cell;
  enlarged(place.cell, place.image);
});
find("light").addEventListener("keydown", (event) => {
  // Arrows move what has the focus.
  if (event.target.closest(".controls")) return;
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  const rows = pictured(), at = rows.findIndex((row) => row.cell === place.cell);
  const next = rows[Math.min(rows.length - 1, Math.max(0, at + step[0]))].cell;
  const count = Math.max(1, data.strips[next].images);
  enlarged(next, Math.min(count - 1, Math.max(0, place.image + step[1])));
});
find("light").addEventListener("click", (event) => { if (event.target === find("light")) find("light").close(); });

// --- how images come about -------------------------------------------------------------------------------------------

// An animation starts over for whoever asks for it, as it does for nobody with an address that was seen before.
function go(image) {
  const bytes = Uint8Array.from(atob(data.motions[image.dataset.cell].src.split(",")[1]), (one) => one.charCodeAt(0));
  stop(image);
  image.src = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
}

function stop(image) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.src = data.motions[image.dataset.cell].still;
}

function press(node, pressed) { node.setAttribute("aria-pressed", String(pressed)); }

const pressed = (node) => node.getAttribute("aria-pressed") === "true";

function motions() {
  if (!find("motions")) return;
  const rows = table.rows.filter((row) => data.motions[row.cell]);
  find("motions").hidden = rows.length === 0;
  const alone = ({ cell }) => data.motions[cell].width === data.motions[cell].tile;
  find("moving").classList.toggle("whole", rows.every(alone));
  find("moving").replaceChildren(...rows.map((row) => {
    const motion = data.motions[row.cell];
    const by = Math.max(1, Math.round(44 / motion.tile));
    const image = make("img", null, { src: motion.still, alt: `sampling of ${row.name}`, tabindex: "0", role: "button",
      width: motion.width * by, height: motion.height * by, "data-cell": row.cell,
      "aria-pressed": "false" });
    const toggle = () => { press(image, !pressed(image)); (pressed(image) ? go : stop)(image); };
    if (lively) image.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse" && !pressed(image)) go(image);
    });
    image.addEventListener("pointerleave", () => { if (!pressed(image)) stop(image); });
    image.addEventListener("click", toggle);
    image.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle();
    });
    const line = make("tr"), cell = make("td");
    cell.append(image);
    line.append(make("th", `${row.place}. ${row.name}`, { scope: "row" }), cell);
    return line;
  }));
  press(find("go"), false);
}

if (find("go")) find("go").addEventListener("click", () => {
  press(find("go"), !pressed(find("go")));
  for (const image of find("moving").querySelectorAll("img")) {
    press(image, pressed(find("go")));
    (pressed(image) ? go : stop)(image);
  }
});

// --- figures ---------------------------------------------------------------------------------------------------------

// Okabe and Ito's colours, which the colour-blind tell apart, without yellow; somewhat darker, for thin lines.
const PALETTE = ["#0072b2", "#d08700", "#009e73", "#c4659b", "#d55e00", "#3d9fd6", "#808080"];
const SYMBOLS = ["circle", "square", "diamond", "cross", "triangle-up", "star", "x", "pentagon"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const GREY = "#808890";

const width = (id) => (printing ? PAPER : find(id).clientWidth || 800);

// What is drawn for the screen's width would be cut on paper, and be of night's colours.
const PAPER = 680;
let printing = false;

function layout(id, traces, extra) {
  const style = getComputedStyle(root);
  const line = style.getPropertyValue("--line"), text = style.getPropertyValue("--text");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const { xaxis = {}, yaxis = {}, height = 420, ...rest } = extra;
  // The legend stands above the plot, in as many rows as it needs.
  const names = traces.filter((one) => one.showlegend !== false && one.type !== "heatmap").map((one) => one.name || "");
  const longest = Math.max(0, ...names.map((name) => name.length));
  const beside = Math.max(1, Math.floor((width(id) - 80) / (7 * longest + 50)));
  const rows = names.length > 1 ? Math.ceil(names.length / beside) : 0;
  const titled = (one) => ({ ...axis, ...one, title: { standoff: 14, ...one.title } });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, size: 13 },
    margin: { l: 60, r: 20, t: 20, b: 50 }, hovermode: "closest", height: height + 20 * rows, showlegend: rows > 0,
    width: width(id),
    legend: { orientation: "h", x: 0, y: 1, xanchor: "left", yanchor: "bottom", maxheight: 10000 },
    xaxis: titled(xaxis), yaxis: titled(yaxis), ...rest,
  };
}

// Numbers in their order, words in that of the cells.
const sorted = (names) => (names.some((name) => isNaN(name)) ? names : names.sort((a, b) => a - b));

function draw(id, traces, extra = {}) {
  const full = layout(id, traces, extra);
  find(id).style.height = `${full.height}px`;
  // Drawn anew: what is drawn over loses the room of its legend.
  Plotly.newPlot(id, traces, full, { displaylogo: false, displayModeBar: false });
}

// An axis of numbers; of those that span much a logarithmic one, with whole numbers at its ticks.
function axis(title, values, ratio) {
  const low = Math.min(...values), high = Math.max(...values);
  if (!(low > 0 && high > ratio * low)) return { title: { text: title } };
  const first = Math.floor(Math.log10(low)), decades = Math.floor(Math.log10(high)) - first + 1;
  const powers = Array.from({ length: decades }, (_, i) => 10 ** (first + i));
  const inside = (steps) => powers.flatMap((power) => steps.map((one) => one * power))
    .filter((one) => one >= low * 0.9 && one <= high * 1.1);
  const chosen = [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8]].map(inside).find((some) => some.length > 3)
    || inside([1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9]);
  return { title: { text: title }, type: "log", tickvals: chosen,
    ticktext: chosen.map((one) => String(Number(one.toPrecision(2)))) };
}

const option = (row, factor) => row[`factor ${factor}`];

// Of so many cells each is drawn; of more, every so many in the order of their number, the first and the last included.
const DRAWN = 1500;

function thinned(rows) {
  const every = Math.ceil(rows.length / DRAWN);
  return rows.filter((_, i) => i % every === 0 || i === rows.length - 1);
}

function pareto() {
  const key = find("against").value;
  const all = table.rows.filter((row) => value(row) !== null && row[key] !== null && row[key] !== undefined);
  // The best of them: what is far behind is told by the leaderboard.
  const rows = [...all].sort((a, b) => (better(value(a), value(b)) ? -1 : 1)).slice(0, DRAWN);
  find("drawn").textContent = rows.length < all.length ? `Drawn are the best ${count(rows.length)} of ${count(all.length)} cells.` : "";
  find("cost").hidden = rows.length === 0;
  if (!rows.length) return;
  // Cells that differ in their budget only make one line; the sampler is its colour, all else its dashes.
  const alike = table.factors.filter((name) => !/^sampler[.](nfe|steps)$/.test(name));
  const factor = alike.includes("sampler") ? "sampler" : alike[0];
  const told = (row) => (factor ? option(row, factor) : "cells");
  // Trainings that differ in their seed only look the same: they are.
  const rest = (row) => alike.filter((name) => name !== factor && name !== "seed" && option(row, name) !== "-")
    .map((name) => `${name}=${option(row, name)}`).join(" ");
  const colours = [...new Set(rows.map(told))], dashes = [...new Set(rows.map(rest))];
  const apart = dashes.length <= DASHES.length;
  const look = (colour, symbol, dash) => ({ mode: "lines+markers",
    line: { color: colour, width: 1.3, dash: DASHES[dash] },
    marker: { size: 9, color: colour, symbol: symbol + (dash % 2 ? "-open" : "") } });
  const coloured = (at, dash) => look(PALETTE[at % PALETTE.length], SYMBOLS[at % SYMBOLS.length], dash);
  const lines = new Map();
  for (const row of rows) {
    const line = JSON.stringify(alike.map((name) => option(row, name)));
    lines.set(line, [...(lines.get(line) || []), row]);
  }
  const front = [...rows].sort((a, b) => a[key] - b[key] || (better(value(a), value(b)) ? -1 : 1)).filter(
    (row, i, all) => all.slice(0, i).every((other) => better(value(row), value(other))));
  const traces = [{ x: front.map((row) => row[key]), y: front.map(value), mode: "lines", name: "best at its cost",
    line: { color: GREY, width: 7 }, opacity: 0.35, hoverinfo: "skip",
    showlegend: colours.length + dashes.length > 2 }];
  for (const members of lines.values()) {
    members.sort((a, b) => a[key] - b[key]);
    const drawn = coloured(colours.indexOf(told(members[0])), apart ? dashes.indexOf(rest(members[0])) : 0);
    traces.push({ ...drawn, x: members.map((row) => row[key]), y: members.map(value), showlegend: false,
      error_y: { type: "data", array: members.map((row) => half(row) || 0), color: drawn.line.color, thickness: 1 },
      text: members.map((row) => `${short(row.name, 200)}<br>${measured(value(row), half(row))}`),
      hovertemplate: "%{text}<extra></extra>" });
  }
  const legend = (name, drawn) => traces.push({ ...drawn, x: [null], y: [null], name: short(name), hoverinfo: "skip" });
  if (colours.length > 1) colours.forEach((name, i) => legend(name, coloured(i, 0)));
  if (dashes.length > 1 && apart) dashes.forEach((name, i) => legend(name || "as it is", look(GREY, "circle", i)));
  traces.push(...floorLines(rows, rows.map((row) => row[key])));
  const words = { nfe: "network calls a sample", sampling: "seconds of sampling, all samples of a cell",
    operations: "floating-point operations a sample", training: "seconds of training" }[key];
  draw("pareto", traces, { xaxis: axis(words, rows.map((row) => row[key]), 8),
    yaxis: axis(`${number}, ${direction()}`, [...rows.map(value), ...floors(rows)], 3) });
}

// What real data reach against real data, of each cell that knows it; on a logarithmic axis nothing else has a place.
function floors(rows) {
  const known = rows.map((row) => (row.numbers[number] || [])[2]).filter((one) => one !== null && one !== undefined);
  return rows.every((row) => value(row) > 0) ? known.filter((one) => one > 0) : known;
}

// A line at the floor, and a band where cells have several.
function floorLines(rows, xs) {
  const known = floors(rows);
  if (!known.length) return [];
  const low = Math.min(...known), high = Math.max(...known), ends = [Math.min(...xs), Math.max(...xs)];
  const line = (y, more) => ({ x: ends, y: [y, y], mode: "lines", hoverinfo: "text",
    text: `real against real: ${digits(low)}${high > low ? ` to ${digits(high)}` : ""}`,
    line: { color: GREY, width: 1.5, dash: "dot" }, name: "real against real", ...more });
  return high > low
    ? [line(low, { showlegend: false }), line(high, { fill: "tonexty", fillcolor: "rgba(128, 136, 144, .25)" })]
    : [line(low)];
}

function worth() {
  const parts = [], main = number === table.metric, rough = (one) => (one > 0 ? "+" : "") + digits(one, 3);
  for (const [factor, found] of Object.entries(main ? table.effects : {})) {
    if (!found.length) continue;
    const block = make("div");
    const mean = (one) => (one.mean === null ? one.pairs.reduce((a, b) => a + b, 0) / one.pairs.length : one.mean);
    const even = (one) => one.half !== null && Math.abs(mean(one)) <= one.half;
    const level = found.filter(even).map((one) => one.option);
    const tied = level.length ? `, but it cannot be told from ${level.join(", ")}` : "";
    block.append(make("h3", factor === "seed" ? "seed: what another training of the same changes"
      : `${factor}: ${found[0].beside} is best on average${tied}`));
    const list = make("table", null, { class: "effects" });
    const head = make("tr");
    for (const word of ["option", `mean difference in ${number}`, "from", "to", "pairs", "better in", ""]) {
      head.append(make(word ? "th" : "td", word, word ? { scope: "col" } : {}));
    }
    list.append(head);
    for (const one of found) {
      const line = make("tr");
      line.append(make("th", `${one.option} instead of ${one.beside}`, { scope: "row" }));
      for (const text of [signed(mean(one), one.half), rough(Math.min(...one.pairs)), rough(Math.max(...one.pairs)),
        String(one.pairs.length), `${one.wins} of ${one.pairs.length}`, even(one) ? "cannot be told apart" : ""]) {
        line.append(make("td", text));
      }
      list.append(line);
    }
    const holder = make("div", null, { class: "scroll" });
    holder.append(list);
    block.append(holder);
    parts.push(block);
  }
  find("pairs").hidden = parts.length === 0;
  if (!main && table.factors.length) {
    parts.push(make("p", `Differences with their intervals are those of ${table.metric}, by which this page ranks: `
      + `choose it above, or make a page by this one with diffsweep report --metric ${number}`, { class: "quiet" }));
  }
  find("worth").replaceChildren(...parts);
}

function heat() {
  const across = find("across").value, down = find("down").value;
  find("pair").hidden = find("heat").hidden = table.factors.length < 2;
  if (table.factors.length < 2) return;
  const names = (factor) => sorted([...new Set(table.rows.map((row) => option(row, factor)))]);
  const xs = names(across), ys = names(down);
  const cells = ys.map((y) => xs.map((x) => table.rows.filter((row) => option(row, across) === x
    && option(row, down) === y).map(value).filter((one) => one !== null)));
  const mean = (some) => (some.length ? some.reduce((a, b) => a + b, 0) / some.length : null);
  const means = cells.map((row) => row.map(mean));
  const even = new Set(cells.flat().map((some) => some.length)).size === 1;
  // A mean of fewer cells may be one of the easier ones.
  const texts = means.map((row, j) => row.map((one, i) => (one === null ? ""
    : digits(one, 3) + (even ? "" : ` (${cells[j][i].length})`))));
  find("many").textContent = `Mean ${number} by ${across} and ${down}: the darker, the better.`
    + (even ? "" : " In brackets: of how many cells it is the mean.");
  const room = width("heat") / xs.length > 44;
  const ticks = (some, size) => ({ type: "category", tickvals: some, ticktext: some.map((one) => short(one, size)) });
  draw("heat", [{ type: "heatmap", x: xs, y: ys, z: means, colorscale: "Viridis", reversescale: larger(),
    showscale: false, hoverongaps: false, text: texts, xgap: 1, ygap: 1, ...(room ? { texttemplate: "%{text}" } : {}),
    hovertemplate: `${short(down)}: %{y}<br>${short(across)}: %{x}<br>mean ${short(number)}: %{text}<extra></extra>` }],
  { xaxis: { title: { text: short(across) }, ...ticks(xs, 24) },
    yaxis: { title: { text: short(down, 24) }, ...ticks(ys, width("heat") < 500 ? 12 : 24) },
    height: 170 + 44 * ys.length });
}

function parallel() {
  // The best is drawn last, above all others.
  const ranked = table.rows.filter((row) => value(row) !== null).sort((a, b) => (better(value(a), value(b)) ? 1 : -1));
  const rows = thinned(ranked);
  find("all").hidden = find("parallel").hidden = table.factors.length < 2 || rows.length < 2;
  if (find("parallel").hidden) return;
  const positive = rows.every((row) => value(row) > 0);
  const numbers = rows.map(value), wide = positive && Math.max(...numbers) > 3 * Math.min(...numbers);
  const along = wide ? Math.log : (one) => one;
  const low = Math.min(...numbers), high = Math.max(...numbers);
  const spread = (one) => (high > low ? (along(one) - along(low)) / (along(high) - along(low)) : 0.5);
  const orders = new Map(table.factors.map(
    (name) => [name, sorted([...new Set(table.rows.map((row) => option(row, name)))])]));
  const level = (order, at) => (order.length > 1 ? at / (order.length - 1) : 0.5);
  const names = [...table.factors, number];
  const axes = [...arranged.filter((name) => names.includes(name)), ...names.filter((name) => !arranged.includes(name))];
  for (const name of brushes.keys()) if (!names.includes(name)) brushes.delete(name);
  // Where a cell stands on an axis, from 0 to 1.
  const stand = (row, name) => {
    if (!orders.has(name)) return value(row) === null ? NaN : spread(value(row));
    return level(orders.get(name), orders.get(name).indexOf(option(row, name)));
  };
  within = (row) => [...brushes].every(([name, [from, to]]) => stand(row, name) >= from && stand(row, name) <= to);
  const shades = 12, lines = Array.from({ length: shades + 2 }, () => ({ x: [], y: [], text: [] }));
  const good = (row) => (larger() ? spread(value(row)) : 1 - spread(value(row)));
  rows.forEach((row, i) => {
    const line = lines[!within(row) ? shades + 1 : i === rows.length - 1 ? shades
      : Math.min(shades - 1, Math.floor(good(row) * shades))];
    line.x.push(...axes.keys(), null);
    // Lines in one place would hide each other.
    const beside = rows.length > 1 ? (0.5 - i / (rows.length - 1)) * 0.4 : 0;
    line.y.push(...axes.map((name) => stand(row, name)
      + (orders.has(name) ? beside / Math.max(1, orders.get(name).length - 1) : 0)), null);
    line.text.push(...axes.map(() => `${short(row.name, 200)}: ${measured(value(row), half(row))}`), "");
  });
  // From orange over grey to blue, which all eyes tell apart.
  const grey = [160, 160, 160];
  const mix = (share) => {
    const end = share < 0.5 ? [213, 120, 0] : [0, 114, 178], much = Math.abs(2 * share - 1);
    return `rgb(${grey.map((one, i) => Math.round(one + (end[i] - one) * much)).join()})`;
  };
  const traces = lines.map((line, i) => ({ ...line, mode: "lines", hoverinfo: "text", showlegend: false,
    line: { color: mix(Math.min(1, i / (shades - 1))), width: i === shades ? 5 : 1.5 } }));
  // Behind all others, and silent.
  traces.unshift({ ...traces.pop(), hoverinfo: "skip", line: { color: "rgba(128, 136, 144, .2)", width: 1 } });
  const room = Math.max(5, Math.floor((width("parallel") - 60) / axes.length / 7.5));
  const panel = getComputedStyle(root).getPropertyValue("--panel");
  const note = (x, y, text) => (
    { x, y, text, xanchor: "left", xshift: 4, showarrow: false, bgcolor: panel, font: { size: 12 } });
  const notes = axes.flatMap((name, i) => (orders.get(name) || []).map(
    (one, at) => note(i, level(orders.get(name), at), short(one, room))));
  for (const one of [low, high]) notes.push(note(axes.indexOf(number), spread(one), digits(one, 3)));
  draw("parallel", traces, { annotations: notes, yaxis: { visible: false, range: [-0.24, 1.24] },
    height: Math.max(400, 110 + 20 * Math.max(...[...orders.values()].map((order) => order.length))),
    margin: { l: 20, r: 20, t: 20, b: 40 },
    xaxis: { tickvals: [...axes.keys()], ticktext: axes.map((name) => short(name, room)), tickangle: 0,
      ticklabelposition: "outside right", range: [-0.05, axes.length - 0.3] } });
  find("shades").textContent = `A line is a cell; the bluer, the better; the thick one is the best. ${number}: `
    + `${direction()}${wide ? ", on a logarithmic scale" : ""}.`
    + (rows.length < ranked.length ? ` Drawn are ${count(rows.length)} of ${count(ranked.length)} cells.` : "");
  find("brushed").textContent = brushes.size
    ? `${count(ranked.filter(within).length)} of ${count(ranked.length)} cells pass through the ranges; the leaderboard shows them.`
    : "Drag along an axis to choose a range of it, click it to let go; drag the name of an axis to move it.";
  handles(axes);
}

// Axes as the reader has put them, and the ranges that are chosen on them, as shares of their length.
let arranged = [];
const brushes = new Map();
let within = () => true;

// What a pointer takes hold of: along each axis, and at its name.
function handles(axes) {
  const box = find("parallel"), { xaxis, yaxis, _size: size } = box._fullLayout;
  for (const old of box.querySelectorAll(".rail, .grip")) old.remove();
  const gap = axes.length > 1 ? xaxis.l2p(1) - xaxis.l2p(0) : size.w;
  const put = (kind, x, y, wide, high, axis) => {
    const node = make("div", null, { class: kind, "data-axis": axis });
    node.style.cssText = `left: ${x}px; top: ${y}px; width: ${wide}px; height: ${high}px`;
    box.append(node);
    return node;
  };
  axes.forEach((name, i) => {
    const x = size.l + xaxis.l2p(i);
    const rail = put("rail", x - 9, size.t, 18, size.h, name), mark = make("div", null, { class: "brush" });
    const span = (from, to) => {
      const top = yaxis.l2p(Math.max(from, to)), below = yaxis.l2p(Math.min(from, to));
      mark.style.cssText = `top: ${top}px; height: ${below - top}px`;
    };
    if (brushes.has(name)) { span(...brushes.get(name)); rail.append(mark); }
    const at = (event) => yaxis.p2l(Math.min(size.h, Math.max(0, event.clientY - rail.getBoundingClientRect().top)));
    held(rail, (event) => {
      const from = at(event);
      rail.append(mark);
      return { move: (next) => span(from, at(next)), end: (last) => {
        const ends = [from, at(last)].sort((a, b) => a - b);
        if (Math.abs(yaxis.l2p(ends[0]) - yaxis.l2p(ends[1])) < 4) brushes.delete(name);
        else brushes.set(name, ends);
        parallel();
        filtered();
      } };
    });
    const grip = put("grip", x, size.t + size.h, Math.min(Math.max(20, gap - 8), size.l + size.w - x), 30, name);
    held(grip, (event) => ({
      move: (next) => { grip.style.transform = `translateX(${next.clientX - event.clientX}px)`; },
      end: (last) => {
        const to = Math.min(axes.length - 1, Math.max(0, i + Math.round((last.clientX - event.clientX) / gap)));
        arranged = axes.filter((one) => one !== name);
        arranged.splice(to, 0, name);
        parallel();
      },
    }));
  });
}

// From the press of a button to its release, wherever the pointer goes meanwhile.
function held(node, begin) {
  node.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    node.setPointerCapture(event.pointerId);
    const { move, end } = begin(event);
    node.addEventListener("pointermove", move);
    node.addEventListener("pointerup", (last) => { node.removeEventListener("pointermove", move); end(last); }, { once: true });
  });
}

// Curves of trainings that go on, of which no cell is finished.
let going = [];

function curves() {
  const known = new Set(data.fits.map((one) => one.fit));
  const fits = [...data.fits, ...going.filter((one) => !known.has(one.fit))];
  find("training").hidden = fits.length === 0;
  if (!fits.length) return;
  const losses = fits.flatMap((fit) => fit.loss).filter((one) => one !== null);
  draw("curves", fits.map((fit, i) => ({ x: fit.steps, y: fit.loss, name: short(fit.name), mode: "lines",
    hovertemplate: `${short(fit.name, 200)}<br>step %{x}: %{y:.4g}<extra></extra>`,
    line: { color: PALETTE[i % PALETTE.length], dash: DASHES[Math.floor(i / PALETTE.length) % DASHES.length] } })),
  { xaxis: { title: { text: "training step" } }, yaxis: axis("loss", losses, 1.5) });
}

// --- a search --------------------------------------------------------------------------------------------------------

function search() {
  const known = data.search;
  find("search").hidden = !known;
  if (!known) return;
  const at = Math.max(0, known.objectives.findIndex((one) => one.name === find("objective").value));
  options(find("objective"), known.objectives.map((one) => one.name), known.objectives[at].name);
  const { name, larger: up } = known.objectives[at], trials = known.trials;
  const said = `${name}, ${up ? "larger" : "smaller"} is better`;
  const of = (trial) => trial.values[at], numbers = trials.map(of);
  const words = (trial) => `trial ${trial.number}: ${digits(of(trial))}<br>`
    + Object.entries(trial.params).map(([key, one]) => short(`${key}=${digits(one)}`, 60)).join("<br>");
  let best = null;
  const reached = trials.map((trial) => {
    if (best === null || (up ? of(trial) > best : of(trial) < best)) best = of(trial);
    return best;
  });
  find("trials").textContent = `Trials: ${known.counts}.`;
  const order = trials.map((trial) => trial.number), dots = { mode: "markers", hoverinfo: "text", text: trials.map(words) };
  draw("history", [
    { ...dots, x: order, y: numbers, name: "trial", marker: { color: PALETTE[0], size: 7 } },
    { x: order, y: reached, mode: "lines", name: "best so far", hoverinfo: "skip",
      line: { shape: "hv", color: PALETTE[4], width: 2 } },
  ], { xaxis: { title: { text: "trial" } }, yaxis: axis(said, numbers, 3), height: 340 });
  front(known, at, words);
  const shares = Object.entries(known.importance[at]).reverse();
  find("matters").textContent = shares.length ? `Share of what the parameters explain of ${name}, by Optuna's fANOVA. `
    + "Few trials make it rough." : "Too few trials, or all alike: nothing can be said.";
  find("importance").hidden = !shares.length;
  if (shares.length) {
    const labels = shares.map(([key]) => short(key, 24));
    draw("importance", [{ type: "bar", orientation: "h", x: shares.map(([, one]) => one), y: labels, showlegend: false,
      text: shares.map(([, one]) => `${Math.round(100 * one)} %`), textposition: "auto", hoverinfo: "skip",
      marker: { color: PALETTE[0] } }],
    { xaxis: { title: { text: "importance" }, range: [0, 1] }, yaxis: { type: "category" }, height: 110 + 34 * shares.length });
  }
  find("slices").replaceChildren(...known.params.map((_, i) => make("div", null, { id: `slice-${i}`, class: "figure" })));
  known.params.forEach((key, i) => {
    const having = trials.filter((trial) => trial.params[key] !== undefined);
    const xs = having.map((trial) => trial.params[key]);
    if (!having.length) return;
    const along = xs.every((one) => typeof one === "number") ? axis(short(key), xs, 30)
      : { title: { text: short(key) }, type: "category" };
    draw(`slice-${i}`, [{ x: typeof xs[0] === "number" ? xs : xs.map((one) => short(one, 24)), y: having.map(of),
      mode: "markers", hoverinfo: "text", text: having.map(words), showlegend: false,
      marker: { size: 8, color: having.map((trial) => trial.number), colorscale: [[0, "#b9d3ea"], [1, PALETTE[0]]] } }],
    { xaxis: along, yaxis: axis(name, numbers, 3), height: 280 });
  });
}

// Two objectives against each other; a trial is in the front if none is better in one and as good in all.
function front(known, at, words) {
  const others = known.objectives.filter((_, i) => i !== at);
  find("front-of").hidden = !others.length;
  if (!others.length) return;
  const chosen = others.find((one) => one.name === find("against").value) || others[0];
  options(find("against"), others.map((one) => one.name), chosen.name);
  const to = known.objectives.indexOf(chosen), best = known.trials.filter((trial) => trial.in_front);
  best.sort((a, b) => a.values[at] - b.values[at]);
  const trace = (trials, rest) => ({ x: trials.map((one) => one.values[at]), y: trials.map((one) => one.values[to]),
    hoverinfo: "text", text: trials.map(words), ...rest });
  const said = ({ name, larger: up }) => `${name}, ${up ? "larger" : "smaller"} is better`;
  const along = (objective, i) => axis(said(objective), known.trials.map((one) => one.values[i]), 30);
  draw("front", [
    trace(known.trials, { mode: "markers", name: "trial", marker: { color: PALETTE[0], size: 7, opacity: 0.5 } }),
    trace(best, { mode: known.objectives.length === 2 ? "lines+markers" : "markers", name: "Pareto front",
      marker: { color: PALETTE[4], size: 10 }, line: { color: PALETTE[4], width: 1, dash: "dot" } }),
  ], { xaxis: along(known.objectives[at], at), yaxis: along(chosen, to), height: 380 });
}

// --- one cell --------------------------------------------------------------------------------------------------------

function listed(pairs) {
  const list = make("dl");
  for (const [key, one] of pairs) list.append(make("dt", key), make("dd", one === null ? "-" : String(one)));
  return list;
}

function folded(title, content) {
  const block = make("details");
  block.append(make("summary", title), content);
  return block;
}

function choose(cell) {
  find("cell").value = cell;
  const known = data.cells[cell], strip = data.strips[cell];
  const row = data.tables.flatMap((one) => one.rows).find((one) => one.cell === cell);
  const parts = [make("h3", row.name)];
  parts.push(listed(Object.entries(row.numbers).map(([key, [one, reach, , said]]) => [
    `${key} (${table.larger_numbers.includes(key) ? "larger" : "smaller"} is better)`,
    measured(one, reach) + (said ? `: ${said}` : "")])));
  const result = recorded(cell);
  if (known.command) {
    const commit = result.git_commit
      ? ` at commit ${result.git_commit}${result.git_dirty ? " with local changes" : ""}` : "";
    parts.push(make("p", `What reproduces it${commit}:`), make("pre", known.command, { class: "command" }));
  }
  if (strip) {
    const count = Math.max(1, strip.images), by = strip.images ? Math.max(1, Math.floor(64 / strip.width)) : 1;
    const image = make("img", null, { src: showing(strip), alt: `samples of ${row.name}`, width: strip.width * count * by,
      height: strip.height * by, class: "pixels" });
    apart(image, count);
    const holder = make("div", null, { class: "scroll" });
    holder.append(image);
    parts.push(holder);
    if (data.sounds[cell]) parts.push(player(cell, row.name));
  }
  const differs = Object.entries(known.differs);
  if (cell !== data.best) {
    const list = make("table");
    const head = make("tr");
    for (const word of ["setting", "here", "the best"]) head.append(make("th", word, { scope: "col" }));
    list.append(head);
    for (const [key, one] of differs.sort()) {
      const line = make("tr");
      for (const text of [key, one ?? "absent", data.config[key] ?? "absent"]) line.append(make("td", text));
      list.append(line);
    }
    parts.push(make("p", differs.length ? "What differs from the best:" : "Its settings are those of the best."));
    if (differs.length) parts.push(list);
  }
  const config = { ...data.config };
  for (const [key, one] of differs) { if (one === null) delete config[key]; else config[key] = one; }
  const lines = Object.keys(config).sort().map((key) => `${key}: ${config[key]}`);
  parts.push(folded("the whole configuration", make("pre", lines.join("\n"))));
  parts.push(folded("result.json", listed(Object.entries(result).filter(([, one]) => one !== null))));
  const machine = ([key]) => key.startsWith("version_") || key.startsWith("git_") || ["host", "platform"].includes(key);
  parts.push(folded("environment", listed(Object.entries(result).filter(machine))));
  parts.push(make("p", `files: ${known.folder}`, { class: "quiet" }));
  if (known.logs.length) parts.push(make("p", `logs: ${known.logs.join(", ")}`, { class: "quiet" }));
  const holder = make("div", null, { class: "detail" });
  holder.append(...parts);
  find("detail").replaceChildren(holder);
}

// --- downloads -------------------------------------------------------------------------------------------------------

// A cell's result.json: that of the best, and what differs.
function recorded(cell) { return { ...data.result, ...data.cells[cell].result }; }

function csv() {
  const quoted = (one) => {
    let text = one === null || one === undefined ? "" : one === true ? "True" : one === false ? "False" : String(one);
    if (typeof one === "string") {
      // As diffsweep/messages.py and export.py: control characters are shown, and a spreadsheet computes nothing.
      text = text.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, (code) => String.fromCharCode(code === "\x7f" ? 0x2421 : 0x2400 + code.charCodeAt(0)));
      text = text.replace(/[\x80-\x9f\u2028-\u202e\u2066-\u2069]/g, "\ufffd");
      if (/^[=+\-@\t\r]/.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) text = `'${text}`;
    }
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = Object.keys(data.cells).map((cell) => {
    const result = recorded(cell);
    return data.columns.map((name) => quoted(result[name])).join(",");
  });
  return [data.columns.map(quoted).join(","), ...rows, ""].join("\n");
}

// The links of the downloads, which a served page gets anew.
function linked() {
  if (find("csv")) find("csv").addEventListener("click", (event) => {
    event.target.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  });
  if (find("bib")) {
    find("bib").href = `data:application/x-bibtex;charset=utf-8,${encodeURIComponent(find("bibtex").textContent)}`;
  }
}

// --- all together ----------------------------------------------------------------------------------------------------

function figures() { pareto(); heat(); parallel(); search(); curves(); }

function everything() {
  leaderboard(); images(); motions(); worth(); figures();
  find("effects").hidden = table.factors.length === 0;
  offered();
}

// Nobody is led to what is not there.
function offered() {
  for (const link of document.querySelectorAll("nav a")) {
    const section = document.querySelector(link.getAttribute("href"));
    link.hidden = !section || section.hidden;
  }
}

// Another width wants other rows of the legend and other lengths of labels.
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => { if (table) figures(); }, 200);
});

function theme(name) { root.dataset.theme = name; if (table) figures(); }

let chosen = "light";
addEventListener("beforeprint", () => { chosen = root.dataset.theme; printing = true; theme("light"); });
addEventListener("afterprint", () => { printing = false; theme(chosen); });

find("theme").addEventListener("click", () => theme(root.dataset.theme === "dark" ? "light" : "dark"));
root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

linked();

let titles = [];

// Whatever follows from the data as a whole; `cell` is the one that was chosen before.
function begin(cell) {
  for (const id of ["leaderboard", "images", "cost", "effects", "cells"]) find(id).hidden = !table;
  if (!table) {
    search();
    curves();
    offered();
    return;
  }
  titles = data.tables.map((one, i) => `${i + 1}. ${one.apart || one.metric}`);
  options(find("which"), titles, titles[data.tables.indexOf(table)]);
  document.querySelector(".several").hidden = titles.length < 2;
  settle(cell);
}

function settle(cell) {
  const kept = (select, other) => (table.factors.includes(select.value) ? select.value : other);
  options(find("number"), table.numbers, number);
  options(find("across"), table.factors, kept(find("across"), table.factors[0]));
  options(find("down"), table.factors, kept(find("down"), table.factors[1]));
  find("cell").replaceChildren(...table.rows.map(
    (row) => make("option", `${row.place}. ${row.name}`, { value: row.cell })));
  everything();
  choose(table.rows.some((row) => row.cell === cell) ? cell : table.rows[0].cell);
}

// Goes on with newer data, where the reader is.
function renew(next) {
  const at = Math.max(0, data.tables.indexOf(table)), cell = find("cell").value, above = scrollY;
  kept.filters = grid ? grid.getHeaderFilters() : [];
  data = next;
  table = data.tables[Math.min(at, data.tables.length - 1)];
  if (table && !table.numbers.includes(number)) number = table.metric;
  begin(cell);
  kept.filters = [];
  scrollTo(scrollX, above);
}

find("which").addEventListener("change", (event) => {
  table = data.tables[titles.indexOf(event.target.value)];
  number = table.metric;
  settle();
});
find("number").addEventListener("change", (event) => { number = event.target.value; everything(); });
find("objective").addEventListener("change", search);
find("against").addEventListener("change", search);
find("against").addEventListener("change", pareto);
for (const id of ["across", "down"]) find(id).addEventListener("change", heat);
find("cell").addEventListener("change", (event) => choose(event.target.value));
const ready = unpacked(document).then((read) => {
  data = read;
  table = data.tables[0];
  number = table ? table.metric : "";
  begin();
});
ready.catch((error) => { find("protocol").textContent = `this browser cannot read the data: ${error.message}`; });
