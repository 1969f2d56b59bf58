"use strict";
// Draws the page from the data beside it. Text goes into text nodes only: no value of a run becomes markup.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const root = document.documentElement;

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
  const left = rounded === 0 ? 0 : Math.max(0, places - 1 - Math.floor(Math.log10(Math.abs(rounded))));
  return rounded.toFixed(Number.isInteger(value) ? 0 : left);
}

// The value to the digits that its error leaves: 0.380 ± 0.012.
function measured(value, half) {
  if (value === null || value === undefined) return "-";
  if (!half) return digits(value);
  const places = Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(half))));
  return `${value.toFixed(places)} ± ${half.toFixed(places)}`;
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name) => make("option", name, { value: name })));
  if (chosen !== undefined) select.value = chosen;
}

// --- which table, which number ---------------------------------------------------------------------------------------

let table = data.tables[0];
let number = table ? table.metric : "";
let grid = null;

const value = (row) => (number === table.metric ? row.value : (row.numbers[number] || [null])[0]);
const half = (row) => (number === table.metric ? row.half : (row.numbers[number] || [null, null])[1]);
const larger = () => table.larger_numbers.includes(number);
const better = (a, b) => (larger() ? a > b : a < b);
const described = (row) => row.name;

function columns() {
  const numeric = { hozAlign: "right", headerHozAlign: "right", headerSortStartingDir: "asc" };
  const factors = table.factors.map((name) => ({
    title: name, field: `factor ${name}`, headerFilter: "list",
    headerFilterParams: { valuesLookup: true, clearable: true, multiselect: false }, minWidth: 110,
    maxInitialWidth: 240,
  }));
  const main = number === table.metric;
  const found = [
    { title: "#", field: "place", width: 60, ...numeric },
    ...(main ? [{ title: "", field: "mark", width: 70, headerSort: false, formatter: (cell) => {
      const mark = cell.getValue();
      return make("span", mark === "tied" ? "=" : mark, mark ? { class: `mark-${mark}` } : {});
    } }] : []),
    ...factors,
    { title: number, field: "shown", minWidth: 140, ...numeric, sorter: "number",
      formatter: (cell) => {
        const row = cell.getData();
        return make("span", row.shown === null && row.reason ? row.reason : measured(row.shown, row.reach));
      } },
    ...(main ? [{ title: "to the best", field: "gap", minWidth: 150, ...numeric, sorter: "number",
      formatter: (cell) => {
        const row = cell.getData();
        const sign = row.gap > 0 ? "+" : "";
        return make("span", row.gap === null ? "" : sign + measured(row.gap, row.gap_half));
      } }] : []),
    { title: "NFE", field: "nfe", width: 80, ...numeric, formatter: (cell) => make("span", digits(cell.getValue())) },
    { title: "sampling s", field: "sampling", width: 110, ...numeric,
      formatter: (cell) => make("span", digits(cell.getValue(), 3)) },
    { title: "training s", field: "training", width: 110, ...numeric,
      formatter: (cell) => make("span", digits(cell.getValue(), 3)) },
    { title: "real against real", field: "floor", width: 140, visible: main, ...numeric,
      formatter: (cell) => make("span", digits(cell.getValue())) },
  ];
  return found;
}

function leaderboard() {
  if (grid) grid.destroy();
  const rows = table.rows.map((row) => ({ ...row, shown: value(row), reach: half(row) }));
  rows.sort((a, b) => (a.shown === null) - (b.shown === null) || (larger() ? b.shown - a.shown : a.shown - b.shown));
  rows.forEach((row, i) => { row.place = i + 1; });
  grid = new Tabulator("#table", {
    // A setting's name holds dots.
    nestedFieldSeparator: false, data: rows, columns: columns(), index: "cell", layout: "fitDataFill", selectableRows: false, maxHeight: "70vh",
    placeholder: "nothing passes the filter",
  });
  grid.on("rowClick", (_, row) => { choose(row.getData().cell); find("cells").scrollIntoView(); });
  grid.on("dataFiltered", (_, shown) => { find("shown").textContent = `${shown.length} of ${rows.length} cells`; });
  find("protocol").textContent = table.protocol;
  find("shown").textContent = `${rows.length} of ${rows.length} cells`;
}

find("find").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  grid.setFilter((row) => words.every((word) => row.name.toLowerCase().includes(word)));
});

// --- images ----------------------------------------------------------------------------------------------------------

let place = { cell: null, image: 0 };

function scale(strip) { return strip.images ? Math.max(1, Math.round(44 / strip.width)) : 1; }

// A line of the page's own colour between images that lie side by side: black pictures run into each other.
function apart(image, count) {
  const end = `calc(${100 / count}% - 2px)`, next = `${100 / count}%`;
  if (count > 1) image.style.maskImage = `repeating-linear-gradient(to right, #000 0 ${end}, transparent ${end} ${next})`;
}

function images() {
  const rows = table.rows.filter((row) => data.strips[row.cell]);
  find("images").hidden = rows.length === 0;
  const body = rows.map((row) => {
    const strip = data.strips[row.cell];
    const line = make("tr");
    line.append(make("th", `${row.place}. ${row.name}`, { scope: "row" }));
    const count = Math.max(1, strip.images);
    const image = make("img", null, { src: strip.src, alt: `samples of ${row.name}`, tabindex: "0", role: "button",
      width: strip.width * count * scale(strip), height: strip.height * scale(strip), "data-cell": row.cell });
    apart(image, count);
    const enlarge = (x) => enlarged(row.cell, strip.images ? Math.floor(x * strip.images) : 0);
    image.addEventListener("click", (event) => enlarge(Math.min(0.999, Math.max(0, event.offsetX / image.clientWidth))));
    image.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(0); });
    const cell = make("td");
    cell.append(image);
    line.append(cell);
    return line;
  });
  find("strips").replaceChildren(...body);
}

function picture(cell, image) {
  const strip = data.strips[cell];
  const figure = make("figure");
  const row = table.rows.find((one) => one.cell === cell);
  const loaded = new Image();
  if (!strip.images) {
    loaded.src = strip.src;
    figure.append(loaded);
  } else {
    const size = Math.max(1, Math.floor(320 / strip.width));
    const canvas = make("canvas", null, { width: strip.width * size, height: strip.height * size });
    loaded.addEventListener("load", () => {
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      pen.drawImage(loaded, image * strip.width, 0, strip.width, strip.height, 0, 0, canvas.width, canvas.height);
    });
    loaded.src = strip.src;
    figure.append(canvas);
  }
  figure.append(make("figcaption", `${row.place}. ${row.name}: ${measured(value(row), half(row))}`));
  return figure;
}

function enlarged(cell, image) {
  place = { cell, image };
  const pictures = [picture(cell, image)];
  // The same noise drawn by the best, to compare with.
  if (table.rows[0].cell !== cell && data.strips[table.rows[0].cell]) pictures.push(picture(table.rows[0].cell, image));
  find("large").replaceChildren(...pictures);
  find("caption").textContent = data.strips[cell].images ? `starting noise ${image}` : "";
  if (!find("light").open) find("light").showModal();
}

find("light").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  const rows = table.rows.filter((row) => data.strips[row.cell]);
  const at = rows.findIndex((row) => row.cell === place.cell);
  const next = rows[Math.min(rows.length - 1, Math.max(0, at + step[0]))].cell;
  const count = Math.max(1, data.strips[next].images);
  enlarged(next, Math.min(count - 1, Math.max(0, place.image + step[1])));
});
find("light").addEventListener("click", (event) => { if (event.target === find("light")) find("light").close(); });

// --- how images come about -------------------------------------------------------------------------------------------

const lively = !matchMedia("(prefers-reduced-motion: reduce)").matches;

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

const PALETTE = ["#2463c4", "#d1632a", "#1a7f4b", "#8a4fbf", "#b3402f", "#0e8a97", "#7a6a00", "#c24f8f", "#5d6570",
  "#4f8f2c"];
const SYMBOLS = ["circle", "square", "diamond", "cross", "triangle-up", "star", "x", "pentagon"];

function layout(extra) {
  const style = getComputedStyle(root);
  const line = style.getPropertyValue("--line"), text = style.getPropertyValue("--text");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const { xaxis = {}, yaxis = {}, ...rest } = extra;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, size: 13 }, height: 420,
    margin: { l: 60, r: 20, t: 20, b: 60 }, hovermode: "closest", legend: { orientation: "h", y: -0.2 },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis, title: { standoff: 14, ...yaxis.title } }, ...rest,
  };
}

// Numbers in their order, words in that of the cells.
const sorted = (names) => (names.some((name) => isNaN(name)) ? names : names.sort((a, b) => a - b));

function draw(id, traces, extra = {}) {
  const full = layout(extra);
  find(id).style.height = `${full.height}px`;
  Plotly.react(id, traces, full, { displaylogo: false, responsive: true, displayModeBar: false });
}

const logarithmic = (values) => {
  const there = values.filter((one) => one > 0);
  return there.length > 1 && Math.max(...there) > 8 * Math.min(...there);
};

function pareto() {
  const key = find("against").value;
  const rows = table.rows.filter((row) => value(row) !== null && row[key] !== null && row[key] !== undefined);
  find("cost").hidden = rows.length === 0;
  if (!rows.length) return;
  const factor = table.factors.includes("sampler") ? "sampler" : table.factors.find((name) => !/nfe/.test(name));
  // Cells that differ in their budget only make one line; the sampler is its colour.
  const colours = [...new Set(rows.map((row) => (factor ? row[`factor ${factor}`] : "all")))];
  const alike = table.factors.filter((name) => !/nfe|steps/.test(name));
  const groups = new Map();
  for (const row of rows) {
    const line = JSON.stringify(alike.map((name) => row[`factor ${name}`]));
    groups.set(line, [...(groups.get(line) || []), row]);
  }
  const front = [...rows].sort((a, b) => a[key] - b[key] || (better(value(a), value(b)) ? -1 : 1)).filter(
    (row, i, all) => all.slice(0, i).every((other) => better(value(row), value(other))));
  const traces = [{ x: front.map((row) => row[key]), y: front.map(value), mode: "lines", name: "best at its cost",
    line: { color: "#8a929c", dash: "dot" }, hoverinfo: "skip" }];
  const told = new Set();
  [...groups.values()].forEach((members) => {
    members.sort((a, b) => a[key] - b[key]);
    const option = factor ? members[0][`factor ${factor}`] : "all", i = colours.indexOf(option);
    const line = { color: PALETTE[i % PALETTE.length], width: 1 };
    traces.push({ x: members.map((row) => row[key]), y: members.map(value), name: option, mode: "lines+markers", line,
      legendgroup: option, showlegend: !told.has(option),
      marker: { size: 9, color: PALETTE[i % PALETTE.length], symbol: SYMBOLS[i % SYMBOLS.length] },
      error_y: { type: "data", array: members.map((row) => half(row) || 0), color: PALETTE[i % PALETTE.length],
        thickness: 1 },
      text: members.map((row) => `${row.name}<br>${measured(value(row), half(row))}`.replaceAll("<br>", "\n")),
      hovertemplate: "%{text}<extra></extra>" });
    told.add(option);
  });
  const words = key === "nfe" ? "network calls a sample" : "seconds of sampling";
  const kind = (values) => (logarithmic(values) ? "log" : "linear");
  draw("pareto", traces, { xaxis: { title: { text: words }, type: kind(rows.map((row) => row[key])) },
    yaxis: { title: { text: number }, type: kind(rows.map(value)) } });
}

function worth() {
  const parts = [];
  for (const [factor, found] of Object.entries(number === table.metric ? table.effects : {})) {
    if (!found.length) continue;
    const block = make("div");
    block.append(make("h3", `${factor}: best on average ${found[0].beside}`));
    const list = make("table", null, { class: "effects" });
    const head = make("tr");
    for (const word of ["", `difference in ${number}`, "pairs", "better in", ""]) head.append(make("th", word));
    list.append(head);
    for (const one of found) {
      const line = make("tr");
      line.append(make("td", `${one.option} instead of ${one.beside}`));
      const sign = one.mean > 0 ? "+" : "";
      const mean = one.mean === null ? one.pairs.reduce((a, b) => a + b, 0) / one.pairs.length : one.mean;
      line.append(make("td", sign + measured(mean, one.half)));
      line.append(make("td", String(one.pairs.length)));
      line.append(make("td", `${one.wins} of ${one.pairs.length}`));
      line.append(make("td", one.half !== null && Math.abs(mean) <= one.half ? "cannot be told apart" : ""));
      list.append(line);
    }
    block.append(list);
    parts.push(block);
  }
  find("worth").replaceChildren(...parts);
}

function heat() {
  const across = find("across").value, down = find("down").value;
  find("pair").hidden = find("heat").hidden = table.factors.length < 2;
  if (table.factors.length < 2) return;
  const names = (factor) => sorted([...new Set(table.rows.map((row) => row[`factor ${factor}`]))]);
  const xs = names(across), ys = names(down);
  const means = ys.map((y) => xs.map((x) => {
    const there = table.rows.filter((row) => row[`factor ${across}`] === x && row[`factor ${down}`] === y)
      .map(value).filter((one) => one !== null);
    return there.length ? there.reduce((a, b) => a + b, 0) / there.length : null;
  }));
  draw("heat", [{ type: "heatmap", x: xs, y: ys, z: means, colorscale: "Viridis", reversescale: larger(),
    text: means.map((row) => row.map((one) => digits(one, 3))), texttemplate: "%{text}", hoverongaps: false,
    colorbar: { title: { text: number } } }],
  { xaxis: { title: { text: across }, type: "category" }, yaxis: { title: { text: down }, type: "category" },
    height: 160 + 44 * ys.length });
}

function parallel() {
  const rows = table.rows.filter((row) => value(row) !== null);
  find("all").hidden = find("parallel").hidden = table.factors.length < 2 || rows.length < 2;
  if (find("parallel").hidden) return;
  const values = rows.map(value), low = Math.min(...values), high = Math.max(...values);
  const spread = (one) => (high > low ? (one - low) / (high - low) : 0.5);
  const orders = table.factors.map((name) => sorted([...new Set(table.rows.map((row) => row[`factor ${name}`]))]));
  const height = (factor, row) => {
    const order = orders[factor], at = order.indexOf(row[`factor ${table.factors[factor]}`]);
    return order.length > 1 ? at / (order.length - 1) : 0.5;
  };
  const axes = [...table.factors, number];
  const traces = rows.map((row) => {
    const good = larger() ? spread(value(row)) : 1 - spread(value(row));
    return { x: axes.map((_, i) => i), mode: "lines", hoverinfo: "text", showlegend: false,
      y: [...table.factors.map((_, i) => height(i, row)), spread(value(row))],
      line: { color: `hsl(${Math.round(20 + 190 * good)}, 65%, 50%)`, width: row.place === 1 ? 4 : 1.5 },
      text: axes.map(() => `${row.name}: ${measured(value(row), half(row))}`) };
  });
  const notes = [];
  orders.forEach((order, i) => order.forEach((option, at) => notes.push({ x: i, xanchor: "left", xshift: 4,
    y: order.length > 1 ? at / (order.length - 1) : 0.5, text: option.replaceAll("<", "‹"), showarrow: false,
    bgcolor: getComputedStyle(root).getPropertyValue("--panel") })));
  for (const [y, one] of [[0, low], [1, high]]) {
    notes.push({ x: axes.length - 1, y, xanchor: "left", xshift: 4, text: digits(one), showarrow: false });
  }
  draw("parallel", traces, { annotations: notes, yaxis: { visible: false, range: [-0.1, 1.1] },
    xaxis: { tickvals: axes.map((_, i) => i), ticktext: axes, showgrid: true, range: [-0.1, axes.length - 0.5] } });
}

function curves() {
  find("training").hidden = data.fits.length === 0;
  if (!data.fits.length) return;
  draw("curves", data.fits.map((fit, i) => ({ x: fit.steps, y: fit.loss, name: fit.name, mode: "lines",
    line: { color: PALETTE[i % PALETTE.length] } })),
  { xaxis: { title: { text: "step" } }, yaxis: { title: { text: "loss" }, type: "log" } });
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
  parts.push(listed(Object.entries(row.numbers).map(([key, [one, reach]]) => [key, measured(one, reach)])));
  if (known.command) parts.push(make("p", "What reproduces it:"), make("pre", known.command));
  if (strip) {
    const count = Math.max(1, strip.images), by = strip.images ? Math.max(1, Math.floor(64 / strip.width)) : 1;
    const image = make("img", null, { src: strip.src, alt: `samples of ${row.name}`, width: strip.width * count * by,
      height: strip.height * by, style: "image-rendering: pixelated" });
    apart(image, count);
    const holder = make("div", null, { class: "scroll" });
    holder.append(image);
    parts.push(holder);
  }
  const differs = Object.entries(known.differs);
  if (cell !== data.best) {
    const list = make("table");
    const head = make("tr");
    for (const word of ["setting", "here", "the best"]) head.append(make("th", word));
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
  const result = recorded(cell);
  parts.push(folded("result.json", listed(Object.entries(result).filter(([, one]) => one !== null))));
  const machine = ([key]) => key.startsWith("version_") || key.startsWith("git_") || ["host", "platform"].includes(key);
  parts.push(folded("environment", listed(Object.entries(result).filter(machine))));
  parts.push(make("p", `files and log: ${known.folder}`, { class: "quiet" }));
  const holder = make("div", null, { class: "detail" });
  holder.append(...parts);
  find("detail").replaceChildren(holder);
}

// --- downloads -------------------------------------------------------------------------------------------------------

// A cell's result.json: that of the best, and what differs.
function recorded(cell) { return { ...data.result, ...data.cells[cell].result }; }

function csv() {
  const quoted = (one) => {
    const text = one === null || one === undefined ? "" : one === true ? "True" : one === false ? "False" : String(one);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = Object.keys(data.cells).map((cell) => {
    const result = recorded(cell);
    return data.columns.map((name) => quoted(result[name])).join(",");
  });
  return [data.columns.map(quoted).join(","), ...rows, ""].join("\n");
}

if (find("csv")) find("csv").addEventListener("click", (event) => {
  event.target.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
});

// --- all together ----------------------------------------------------------------------------------------------------

function figures() { pareto(); heat(); parallel(); curves(); }

function everything() {
  leaderboard(); images(); motions(); worth(); figures();
}

function theme(name) { root.dataset.theme = name; if (table) figures(); }

find("theme").addEventListener("click", () => theme(root.dataset.theme === "dark" ? "light" : "dark"));
root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

if (find("bib")) {
  find("bib").href = `data:application/x-bibtex;charset=utf-8,${encodeURIComponent(find("bibtex").textContent)}`;
}

if (table) {
  const titles = data.tables.map((one, i) => `${i + 1}. ${one.apart || one.metric}`);
  options(find("which"), titles);
  document.querySelector(".several").hidden = titles.length < 2;
  const settle = () => {
    options(find("number"), table.numbers, number);
    options(find("across"), table.factors, table.factors[0]);
    options(find("down"), table.factors, table.factors[1]);
    find("cell").replaceChildren(...table.rows.map(
      (row) => make("option", `${row.place}. ${described(row)}`, { value: row.cell })));
    everything();
    choose(table.rows[0].cell);
  };
  find("which").addEventListener("change", (event) => {
    table = data.tables[titles.indexOf(event.target.value)];
    number = table.metric;
    settle();
  });
  find("number").addEventListener("change", (event) => { number = event.target.value; everything(); });
  find("against").addEventListener("change", pareto);
  for (const id of ["across", "down"]) find(id).addEventListener("change", heat);
  find("cell").addEventListener("change", (event) => choose(event.target.value));
  settle();
} else {
  for (const id of ["leaderboard", "images", "cost", "effects", "training", "cells"]) {
    if (id !== "leaderboard" || !data.failures.length) find(id).hidden = true;
  }
}
