"use strict";
// Keeps a served page up to date: asks its server for the state of the sweep, and for the page's data when they change.

let version = document.body.dataset.version;
const SECOND = 1000;

function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return hours ? `${hours} h ${String(minutes % 60).padStart(2, "0")} min` : `${minutes} min ${Math.round(seconds % 60)} s`;
}

function rows(body, heads) {
  const filled = heads.map((_, i) => body.some((row) => row[i] !== ""));
  const line = (cells, tag) => {
    const made = make("tr");
    cells.forEach((one, i) => { if (filled[i]) made.append(make(tag, one)); });
    return made;
  };
  return body.length ? [line(heads, "th"), ...body.map((row) => line(row, "td"))] : [];
}

function show(state) {
  find("live").classList.remove("lost");
  find("standing").textContent = state.standing;
  find("share").max = state.cells;
  find("share").value = state.done;
  find("counts").textContent = state.counts;
  find("running").replaceChildren(...rows(state.running.map((one) => [one.what, one.name,
    one.steps ? `${one.step} of ${one.steps}` : "", one.loss === null ? "" : digits(one.loss),
    one.speed === null ? "" : digits(one.speed, 3), lasting(one.eta), one.stage, one.where]),
  ["", "now", "step", "loss", "examples/s", "to go", "stage", "where"]));
  find("troubles").replaceChildren(...state.troubles.map((one) => make("p", one, { class: "careful" })));
  const log = find("log"), chosen = log.value;
  const names = JSON.stringify(state.logs);
  if (log.dataset.names !== names) {
    log.dataset.names = names;
    log.replaceChildren(...state.logs.map((one) => make("option", one.name, { value: one.id })));
    if (state.logs.some((one) => one.id === chosen)) log.value = chosen;
  }
  find("logs").hidden = !state.logs.length;
  if (JSON.stringify(going) !== JSON.stringify(state.curves)) {
    going = state.curves;
    curves();
    offered();
  }
}

async function tail() {
  if (!find("logs").open || !find("log").value) return;
  const answer = await fetch(`log/${encodeURIComponent(find("log").value)}`);
  const text = answer.ok ? await answer.text() || "nothing is written yet" : "this log cannot be read";
  const pane = find("tail");
  if (pane.textContent === text) return;
  const below = pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 4;
  pane.textContent = text;
  if (below) pane.scrollTop = pane.scrollHeight;
}

// The page anew, of which the parts that hold results are taken over; no script in it runs.
async function parts() {
  const answer = await fetch("parts");
  if (!answer.ok) return;
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["summary", "without", "downloads"]) find(id).replaceChildren(...next.getElementById(id).childNodes);
  renew(await unpacked(next));
  linked();
}

async function look() {
  let pause = 2 * SECOND;
  try {
    const answer = await fetch("state");
    if (!answer.ok) throw new Error(String(answer.status));
    const state = await answer.json();
    show(state);
    if (version !== state.version) {
      await parts();
      version = state.version;
    }
    await tail();
    if (state.over) pause = 10 * SECOND;
  } catch (error) {
    find("live").classList.add("lost");
    find("standing").textContent = "the server does not answer: what is shown may be old";
    pause = 5 * SECOND;
  }
  setTimeout(look, pause);
}

for (const event of ["toggle", "change"]) find("logs").addEventListener(event, () => { tail().catch(() => {}); });
ready.then(look);
