"use strict";
// Draws the report from the data embedded in the page. Every text from the logs goes through textContent: names cannot become markup.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const METRICS = new Map(data.metrics.map((metric) => [metric.key, metric]));
const GROUPS = [["Accuracy", ["hit@1", "hit@3"]], ["Whole ranking", ["recall@10", "ndcg@10"]], ["Probabilities", ["nll", "ece", "brier"]]];

// ---- elements and numbers ----

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function shape(name, attributes = {}, text = null, title = null) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "fill" || key === "stroke") node.style[key] = value;
    else node.setAttribute(key, value);
  }
  if (text !== null) node.textContent = text;
  if (title !== null) node.append(shape("title", {}, title));
  return node;
}

function canvas(width, height, label) {
  return shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
}

const whole = (n) => Number(n).toLocaleString("en-US");
const plural = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
function chance(value) { return value >= 0.995 && value < 1 ? "> 99 %" : value > 0 && value < 0.005 ? "< 1 %" : percent(value, 0); }
function figure(key, value, unit = true) {
  const metric = METRICS.get(key);
  if (metric.unit === "%") return unit ? percent(value) : (100 * value).toFixed(1);
  return value.toFixed(metric.digits);
}
function range(key, { low, high }) {
  if (low === null || low === undefined) return "";
  return `${figure(key, low, false)} to ${figure(key, high, false)}`;
}
function when(time, clock = true) {
  if (data.time_kind === "order") return `order ${whole(time)}`;
  if (data.time_kind === "days") return `day ${whole(Math.floor(time / 864e8))}`;
  const text = new Date(time / 1000).toISOString();
  return clock ? `${text.slice(0, 10)} ${text.slice(11, 16)}` : text.slice(0, 10);
}
const ruler = document.createElement("canvas").getContext("2d");
const family = getComputedStyle(document.body).fontFamily;
function textWidth(text, { size = 13, strong = false } = {}) {
  ruler.font = `${strong ? 650 : 400} ${size}px ${family}`;
  return ruler.measureText(text).width;
}
function shorten(text, width, style) {
  if (textWidth(text, style) <= width) return text;
  let kept = text.slice(0, 200);
  while (kept.length > 1 && textWidth(`${kept}…`, style) > width) kept = kept.slice(0, -1);
  return `${kept.trimEnd()}…`;
}
const labelWidth = (rows) => Math.min(230, Math.max(...rows.map((row) => textWidth(row.name, { strong: row.model }))) + 14);
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const marks = [];
  for (let mark = Math.ceil(low / step - 1e-9) * step; mark <= high + step * 1e-6; mark += step) marks.push(Math.abs(mark) < step / 1e6 ? 0 : mark);
  return marks;
}
function tickText(mark, marks) {
  const exact = (digits) => marks.every((each) => Math.abs(Number(each.toFixed(digits)) - each) <= Math.abs(each) * 1e-6);
  return mark.toFixed([0, 1, 2, 3, 4, 5, 6].find(exact) ?? 6);
}

const drawings = [];
function responsive(container, draw) {
  let drawn = 0;
  const redraw = () => {
    const width = Math.floor(container.clientWidth);
    if (width > 0 && width !== drawn) { drawn = width; container.replaceChildren(draw(width)); }
  };
  drawings.push(redraw);
  redraw();
  return () => { drawn = 0; redraw(); };
}
window.addEventListener("resize", () => drawings.forEach((redraw) => redraw()));

// ---- headline ----

function drawHeadline() {
  const [model, ...baselines] = data.systems;
  at("eyebrow").textContent = ["luckyfast report", data.arch, data.dataset.name].filter(Boolean).join(" · ");
  at("footer").textContent = `Written by luckyfast ${data.version} from the files of the model folder alone. Nothing in this page is fetched from anywhere.`;
  if (!model || !model.metrics["hit@1"]) { at("lede").textContent = "This model folder holds no measured figures."; return; }
  const rival = best(baselines, "hit@1");
  const mine = model.metrics["hit@1"];
  at("finding").textContent = `${percent(mine.value)} of next visits hold the action that the model put first`;
  const visits = model.n_visits ? `Measured on ${plural(model.n_visits, "visit")} that the model had never seen, each predicted from everything before it.` : "";
  let versus = "";
  if (rival) {
    const gap = 100 * (mine.value - rival.metrics["hit@1"].value);
    versus = `The best baseline, ${rival.name}, reaches ${percent(rival.metrics["hit@1"].value)}: ${Math.abs(gap).toFixed(1)} points ${gap >= 0 ? "less" : "more"}.`;
  }
  at("lede").textContent = `${versus} ${visits}`.trim();
  for (const key of ["hit@1", "hit@3", "recall@10", "nll", "ece"]) {
    const value = model.metrics[key];
    if (!value) continue;
    const [number, unit] = figure(key, value.value).split(" ");
    const other = METRICS.get(key).comparable ? best(baselines, key) : null;
    at("headline").append(element("div", {},
      element("span", { class: "name" }, METRICS.get(key).label),
      element("b", {}, number, unit ? element("small", {}, ` ${unit}`) : null),
      element("span", { class: "range" }, range(key, value)),
      other ? element("span", { class: "range" }, `best baseline ${figure(key, other.metrics[key].value)}`) : null));
  }
}

function best(systems, key) {
  const sign = METRICS.get(key).higher_is_better ? 1 : -1;
  return systems.filter((system) => system.metrics[key]).reduce((top, system) => (!top || sign * (system.metrics[key].value - top.metrics[key].value) > 0 ? system : top), null);
}

// ---- systems: dots with intervals, and the table ----

function dots(width, rows, key, { title, labels = true }) {
  const metric = METRICS.get(key), line = 27, top = 44, bottom = 26;
  const left = labels ? Math.min(labelWidth(rows), width * 0.48) : 10, right = 54;
  const height = top + rows.length * line + bottom;
  const ends = rows.flatMap((row) => [row.value.low ?? row.value.value, row.value.high ?? row.value.value]);
  let [low, high] = [Math.min(...ends), Math.max(...ends)];
  const pad = (high - low || Math.abs(high) || 1) * 0.07;
  [low, high] = [Math.max(low - pad, low >= 0 ? 0 : -Infinity), high + pad];
  const x = (value) => left + ((value - low) / (high - low)) * (width - left - right);
  const svg = canvas(width, height, `${title}: ${rows.map((row) => `${row.name} ${figure(key, row.value.value)}`).join(", ")}`);
  svg.append(shape("text", { x: labels ? 0 : left, y: 14, class: "strong" }, title));
  svg.append(shape("text", { x: labels ? 0 : left, y: 31, class: "soft small" }, metric.higher_is_better ? "further right is better" : "further left is better"));
  const scale = metric.unit === "%" ? 100 : 1;
  const marks = ticks(low * scale, high * scale, Math.max(2, Math.floor((width - left - right) / 90)));
  for (const mark of marks) {
    svg.append(shape("line", { x1: x(mark / scale), x2: x(mark / scale), y1: top, y2: height - bottom, stroke: "var(--grid)" }));
    svg.append(shape("text", { x: x(mark / scale), y: height - 8, class: "soft small", "text-anchor": "middle" }, tickText(mark, marks) + (scale === 100 ? " %" : "")));
  }
  const model = rows.find((row) => row.model);
  if (model) svg.append(shape("line", { x1: x(model.value.value), x2: x(model.value.value), y1: top, y2: height - bottom, stroke: "var(--model)", "stroke-width": 1, "stroke-dasharray": "2 3" }));
  rows.forEach((row, index) => {
    const y = top + (index + 0.5) * line, color = row.model ? "var(--model)" : "var(--other)";
    const group = shape("g", {}, null, `${row.name}: ${figure(key, row.value.value)} (95 % interval ${range(key, row.value)})`);
    if (labels) group.append(shape("text", { x: 0, y: y + 4.5, class: row.model ? "strong" : "", fill: row.model ? "var(--model)" : "var(--ink)" }, shorten(row.name, left - 12, { strong: row.model })));
    if (row.value.low !== null && row.value.low !== undefined) group.append(shape("line", { x1: x(row.value.low), x2: x(row.value.high), y1: y, y2: y, stroke: color, "stroke-width": 2.5, "stroke-linecap": "round", "stroke-opacity": 0.55 }));
    group.append(shape("circle", { cx: x(row.value.value), cy: y, r: row.model ? 5.5 : 4.5, fill: color, stroke: "var(--page)", "stroke-width": 1.5 }));
    group.append(shape("text", { x: width, y: y + 4.5, "text-anchor": "end", class: row.model ? "strong" : "soft" }, figure(key, row.value.value)));
    svg.append(group);
  });
  return svg;
}

function drawPanels(container, panels) {
  // Panels share their row labels where they stand side by side, and each carries its own where they are stacked.
  responsive(container, (width) => {
    const stacked = width < 720 || panels.length === 1;
    const holder = document.createDocumentFragment();
    const gap = 36, labels = labelWidth(panels[0].rows);
    const plot = stacked ? width : Math.floor((width - labels - gap * (panels.length - 1)) / panels.length);
    panels.forEach((panel, index) => {
      const room = stacked ? Math.min(width, 760) : index === 0 ? plot + labels : plot;
      const box = element("div");
      box.style.flex = stacked ? "1 0 100%" : `0 0 ${room}px`;
      box.append(dots(room, panel.rows, panel.key, { title: panel.title, labels: stacked || index === 0 }));
      holder.append(box);
    });
    return holder;
  });
}

function drawSystems() {
  if (data.systems.length === 0) return;
  at("systems").hidden = false;
  const note = [`Dots are measured values, bars their 95 % bootstrap intervals over customers.`];
  if (data.systems.length > 1) note.push("The dotted line continues the model's own value, so that every gap can be read off.");
  at("systems-note").textContent = note.join(" ");
  const ranked = [...data.systems].sort((a, b) => (b.metrics["hit@1"]?.value ?? 0) - (a.metrics["hit@1"]?.value ?? 0));
  const buttons = GROUPS.filter(([, keys]) => keys.some((key) => data.systems[0].metrics[key])).map(([name, keys]) => {
    const button = element("button", { type: "button", "aria-pressed": "false", onclick: () => choose(button, keys) }, name);
    button.keys = keys;
    return button;
  });
  function choose(pressed, keys) {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === pressed)));
    const panels = keys.filter((key) => data.systems[0].metrics[key]).map((key) => ({
      key, title: METRICS.get(key).label,
      rows: ranked.filter((system) => system.metrics[key]).map((system) => ({ name: system.name, value: system.metrics[key], model: system.model })),
    }));
    const fresh = element("div", { id: "systems-plot", class: "panels" });
    at("systems-plot").replaceWith(fresh);
    drawPanels(fresh, panels);
  }
  at("systems-switch").append(...buttons);
  if (buttons.length) choose(buttons[0], buttons[0].keys);

  const keys = data.metrics.map((metric) => metric.key).filter((key) => data.systems.some((system) => system.metrics[key]));
  const head = element("tr", {}, element("th", { scope: "col" }, "System"),
    ...keys.map((key) => element("th", { scope: "col", title: METRICS.get(key).meaning }, METRICS.get(key).label + (METRICS.get(key).unit === "%" ? ", %" : ""))));
  const winners = new Map(keys.filter((key) => METRICS.get(key).comparable).map((key) => [key, best(data.systems, key)]));
  const body = ranked.map((system) => element("tr", { class: system.model ? "model" : "" }, element("th", { scope: "row" }, system.name),
    ...keys.map((key) => {
      const value = system.metrics[key];
      if (!value) return element("td", {}, "–");
      return element("td", { class: winners.get(key) === system ? "best" : "" }, element("span", {}, figure(key, value.value, false)), element("i", {}, range(key, value)));
    })));
  at("systems-table").append(element("thead", {}, head), element("tbody", {}, ...body));
}

function drawParts() {
  if (data.parts.length === 0) return;
  at("parts").hidden = false;
  at("parts-note").textContent = "Most of what people do next, they have done before. Repeat: actions already in the customer's history. Explore: actions the customer had never taken. The two are counted apart, since a model can be good at one and blind to the other.";
  const place = new Map(data.systems.map((system) => [system.name, system.metrics["hit@1"]?.value ?? 0]));
  for (const part of data.parts) part.rows.sort((a, b) => (place.get(b.name) ?? 0) - (place.get(a.name) ?? 0));
  drawPanels(at("parts-plot"), data.parts.map((part) => ({
    key: part.metric, title: `${part.title}: ${METRICS.get(part.metric).label}${part.n ? `, ${plural(part.n, "visit")}` : ""}`,
    rows: part.rows,
  })));
}

// ---- reliability and learning ----

function drawReliability() {
  const bins = data.reliability;
  if (bins.length === 0) return;
  at("reliability").hidden = false;
  const ece = data.systems[0]?.metrics.ece;
  at("reliability-note").textContent = `Each point gathers predictions of similar confidence: the chance that was promised for the first action, against how often it came true${ece ? `. Expected calibration error ${figure("ece", ece.value)}` : ""}.`;
  responsive(at("reliability-plot"), (room) => {
    const width = Math.min(room, 500), left = 46, bottom = 46, top = 10, right = 12, side = width - left - right, height = side + top + bottom;
    const most = Math.min(1, Math.ceil(Math.max(...bins.flatMap((bin) => [bin.mean_predicted, bin.observed])) * 10 + 0.3) / 10);
    const x = (value) => left + (value / most) * side, y = (value) => top + (1 - value / most) * side;
    const svg = canvas(width, height, "Observed frequency against predicted chance, in bins");
    for (const mark of ticks(0, most, 5)) {
      svg.append(shape("line", { x1: x(mark), x2: x(mark), y1: top, y2: top + side, stroke: "var(--grid)" }), shape("line", { x1: left, x2: left + side, y1: y(mark), y2: y(mark), stroke: "var(--grid)" }));
      svg.append(shape("text", { x: x(mark), y: top + side + 18, "text-anchor": "middle", class: "soft small" }, percent(mark, 0)));
      svg.append(shape("text", { x: left - 8, y: y(mark) + 4, "text-anchor": "end", class: "soft small" }, percent(mark, 0)));
    }
    svg.append(shape("line", { x1: x(0), y1: y(0), x2: x(most), y2: y(most), stroke: "var(--other)", "stroke-dasharray": "3 4" }));
    const slope = x(most * 0.7), along = y(most * 0.7);
    svg.append(shape("text", { x: slope - 6, y: along - 7, class: "soft small", "text-anchor": "end" }, "as promised"));
    for (const bin of bins) {
      const spread = bin.n ? 1.96 * Math.sqrt((bin.observed * (1 - bin.observed)) / bin.n) : 0;
      const group = shape("g", {}, null, `promised ${percent(bin.mean_predicted)}, came true ${percent(bin.observed)}, ${plural(bin.n, "visit")}`);
      group.append(shape("line", { x1: x(bin.mean_predicted), x2: x(bin.mean_predicted), y1: y(Math.min(most, bin.observed + spread)), y2: y(Math.max(0, bin.observed - spread)), stroke: "var(--model)", "stroke-width": 2.5, "stroke-opacity": 0.4, "stroke-linecap": "round" }));
      group.append(shape("circle", { cx: x(bin.mean_predicted), cy: y(bin.observed), r: 4.5, fill: "var(--model)", stroke: "var(--page)", "stroke-width": 1.5 }));
      svg.append(group);
    }
    svg.append(shape("text", { x: left + side, y: height - 8, "text-anchor": "end", class: "soft" }, "promised chance →"));
    svg.append(shape("text", { x: left + 8, y: top + 14, class: "soft" }, "↑ came true"));
    return svg;
  });
}

function drawCurve() {
  const epochs = data.curve;
  if (epochs.length === 0) return;
  at("curve").hidden = false;
  const kept = data.best_epoch ? epochs.find((row) => row.epoch === data.best_epoch) : epochs.filter((row) => row.valid_loss !== undefined).reduce((low, row) => (!low || row.valid_loss < low.valid_loss ? row : low), null);
  const seconds = epochs.at(-1).seconds;
  // where time is short an epoch of the schedule is less than a pass
  const passes = (row) => row.passes ?? row.epoch, counted = (n) => `${Number(n.toFixed(1))} ${n.toFixed(1) === "1.0" ? "pass" : "passes"}`;
  const note = `${counted(passes(epochs.at(-1)))} over the training visits` + (seconds ? ` in ${Math.round(seconds)} s` : "");
  if (epochs.length === 1 && kept && [kept.valid_loss, kept.valid_hit1, kept.valid_hit3].every(Number.isFinite)) {
    // one point is no curve
    at("curve-note").textContent = `${note}; validated once, after the last: loss ${kept.valid_loss.toFixed(3)} nats, ranked by score hit@1 ${(100 * kept.valid_hit1).toFixed(1)} %, hit@3 ${(100 * kept.valid_hit3).toFixed(1)} %.`;
    return;
  }
  at("curve-note").textContent = note + (kept ? `; the ring marks the lowest validation loss, after ${counted(passes(kept))}.` : ".");
  responsive(at("curve-plot"), (room) => {
    const width = Math.min(room, 540), left = 46, right = 84;
    const holder = document.createDocumentFragment();
    const panel = (title, lines, scale, unit) => {
      const values = lines.flatMap((line) => epochs.map((row) => row[line.key])).filter(Number.isFinite);
      if (values.length === 0) return;
      const height = 226, top = 30, bottom = 40, pad = (Math.max(...values) - Math.min(...values) || 0.1) * 0.08;
      const [low, high] = [Math.min(...values) - pad, Math.max(...values) + pad], first = passes(epochs[0]), last = Math.max(passes(epochs.at(-1)), first + 0.1);
      const x = (epoch) => left + ((epoch - first) / (last - first)) * (width - left - right), y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
      const svg = canvas(width, height, title);
      svg.append(shape("text", { x: 0, y: 14, class: "strong" }, title));
      const marks = ticks(low * scale, high * scale, 4);
      for (const mark of marks) {
        svg.append(shape("line", { x1: left, x2: width - right, y1: y(mark / scale), y2: y(mark / scale), stroke: "var(--grid)" }));
        svg.append(shape("text", { x: left - 8, y: y(mark / scale) + 4, "text-anchor": "end", class: "soft small" }, tickText(mark, marks) + unit));
      }
      const counts = ticks(first, last, last - first < 1 ? 4 : Math.min(8, last - first));
      for (const mark of counts) svg.append(shape("text", { x: x(mark), y: height - 22, "text-anchor": "middle", class: "soft small" }, tickText(mark, counts)));
      svg.append(shape("text", { x: width - right, y: height - 5, "text-anchor": "end", class: "soft small" }, "passes →"));
      const labels = [];
      for (const line of lines) {
        const rows = epochs.filter((row) => Number.isFinite(row[line.key]));
        if (rows.length === 0) continue;
        svg.append(shape("polyline", { points: rows.map((row) => `${x(passes(row)).toFixed(1)},${y(row[line.key]).toFixed(1)}`).join(" "), fill: "none", stroke: line.color, "stroke-width": 2, "stroke-linejoin": "round" }));
        if (rows.length === 1) svg.append(shape("circle", { cx: x(passes(rows[0])), cy: y(rows[0][line.key]), r: 3.5, fill: line.color }));
        if (kept && line.ring && Number.isFinite(kept[line.key])) svg.append(shape("circle", { cx: x(passes(kept)), cy: y(kept[line.key]), r: 5, fill: "var(--page)", stroke: line.color, "stroke-width": 2 }));
        labels.push({ y: y(rows.at(-1)[line.key]), line });
      }
      labels.sort((a, b) => a.y - b.y);
      labels.forEach((label, index) => { if (index > 0) label.y = Math.max(label.y, labels[index - 1].y + 15); });
      labels.forEach((label) => svg.append(shape("text", { x: width - right + 8, y: label.y + 4, class: "small strong", fill: label.line.color }, label.line.name)));
      holder.append(svg);
    };
    panel("Loss, nats", [{ key: "train_loss", name: "training", color: "var(--other)" }, { key: "valid_loss", name: "validation", color: "var(--model)", ring: true }], 1, "");
    panel("Validation accuracy, by score", [{ key: "valid_hit1", name: "hit@1", color: "var(--model)", ring: true }, { key: "valid_hit3", name: "hit@3", color: "var(--model)", ring: true }], 100, " %");
    return holder;
  });
}

// ---- search ----

function drawTrials() {
  const trials = data.trials;
  if (trials.length < 2) return;
  at("trials").hidden = false;
  let lowest = Infinity;
  const steps = trials.map((trial, index) => { lowest = Math.min(lowest, trial.loss); return { index, trial, lowest }; });
  const configurations = new Set(trials.map((trial) => trial.name)).size;
  at("trials-note").textContent = `${plural(configurations, "configuration")} tried in ${plural(trials.length, "training")}; lowest validation loss ${lowest.toFixed(3)}. The line is the best so far.`;
  responsive(at("trials-plot"), (width) => {
    const height = 240, left = 46, right = 12, top = 10, bottom = 34;
    const losses = trials.map((trial) => trial.loss), low = Math.min(...losses), sorted = [...losses].sort((a, b) => a - b);
    const high = Math.max(sorted[Math.floor(sorted.length * 0.9)], low + 1e-3), pad = (high - low) * 0.1;
    const x = (index) => left + (index / Math.max(1, trials.length - 1)) * (width - left - right), y = (value) => top + ((high + pad - Math.min(value, high)) / (high - low + 2 * pad)) * (height - top - bottom);
    const svg = canvas(width, height, "Validation loss of each training");
    const marks = ticks(low - pad, high + pad, 4);
    for (const mark of marks) svg.append(shape("line", { x1: left, x2: width - right, y1: y(mark), y2: y(mark), stroke: "var(--grid)" }), shape("text", { x: left - 8, y: y(mark) + 4, "text-anchor": "end", class: "soft small" }, tickText(mark, marks)));
    svg.append(shape("polyline", { points: steps.map((step, index) => `${index ? `${x(step.index)},${y(steps[index - 1].lowest)} ` : ""}${x(step.index)},${y(step.lowest)}`).join(" "), fill: "none", stroke: "var(--model)", "stroke-width": 2 }));
    for (const { index, trial } of steps) svg.append(shape("circle", { cx: x(index), cy: y(trial.loss), r: 3.5, fill: "var(--other)" }, null, `trial ${trial.name}: ${trial.loss.toFixed(4)}`));
    svg.append(shape("text", { x: width - right, y: height - 6, "text-anchor": "end", class: "soft small" }, "trainings in order →"));
    return svg;
  });
}

// ---- how it was made ----

function drawMaking() {
  const { counts, rejects, split, seen_ahead, settings, calibration, roles, time, path, order_leak } = data.dataset;
  if (!counts && !split && settings.length === 0) return;
  at("making").hidden = false;
  if (split && time) responsive(at("split-plot"), (width) => {
    const height = 78, x = (moment) => ((moment - time.min) / (time.max - time.min || 1)) * width;
    const svg = canvas(width, height, "Time split");
    const parts = [["training", time.min, split.valid_start, "var(--idle)"], ["validation", split.valid_start, split.test_start, "var(--other)"], ["test", split.test_start, time.max, "var(--model)"]];
    // The test's label ends at the right edge; the labels before it give way.
    let room = width;
    parts.reverse().forEach(([name, start, stop, color], index) => {
      svg.append(shape("rect", { x: x(start), y: 28, width: Math.max(1, x(stop) - x(start) - (index ? 2 : 0)), height: 14, fill: color }));
      const span = textWidth(name, { size: 12, strong: true }), place = index === 0 ? Math.min(x(start), width - span) : x(start);
      if (index > 0 && span > room - (index === 2 ? 0 : x(start)) - 14) return;
      svg.append(shape("text", { x: place, y: 18, class: "strong small" }, name));
      room = place;
    });
    const taken = [];
    for (const [moment, anchor] of [[time.min, "start"], [time.max, "end"], [split.test_start, "middle"], [split.valid_start, "middle"]]) {
      const text = when(moment, false), span = textWidth(text, { size: 12 });
      const left = x(moment) - { start: 0, middle: span / 2, end: span }[anchor];
      if (taken.some(([from, to]) => left < to + 10 && left + span > from - 10)) continue;
      taken.push([left, left + span]);
      svg.append(shape("text", { x: x(moment), y: 60, "text-anchor": anchor, class: "soft small" }, text));
    }
    return svg;
  });
  const table = (title, rows, ...after) => {
    const list = element("dl");
    for (const [name, value, strong] of rows.filter((row) => row[1] !== null && row[1] !== undefined && row[1] !== "")) list.append(element("dt", strong ? { class: "total" } : {}, name), element("dd", strong ? { class: "total" } : {}, String(value)));
    if (list.children.length) at("facts").append(element("div", {}, element("h3", {}, title), list, ...after));
  };
  if (counts) {
    table("The log", [["customers", whole(counts.customers)], ["visits", whole(counts.visits)], ["distinct actions", whole(counts.actions)], ["first event", time && when(time.min)], ["last event", time && when(time.max)], ...roles, ["dataset", path]],
      ...(order_leak ? [element("p", {}, "Rows inside visits are visibly sorted in this log. Figures here do not depend on it: a visit is a set.")] : []));
    const lines = [["rows read", whole(counts.rows_read)], ["− rejected", whole(counts.rejected)], ["− filtered by rule", whole(counts.filtered)], ["− duplicates removed", whole(counts.duplicates_removed)], ["= events kept", whole(counts.events), true]];
    for (const [reason, n] of rejects) lines.push([`rejected: ${reason.replaceAll("_", " ")}`, `${whole(n)} (${percent(n / counts.rows_read, 2)})`]);
    const kept = counts.events + counts.rejected + counts.filtered + counts.duplicates_removed === counts.rows_read;
    table("Every row accounted for", lines, ...(kept ? [] : [element("p", {}, "These counts do not add up: the dataset is damaged.")]));
  }
  if (split) table("The split", [["validation from", when(split.valid_start)], ["test from", when(split.test_start)], ["earlier visits needed", split.min_history], ["visits with fewer, counted apart", data.short && whole(data.short.n)], ["hit@1 of those", data.short?.value && `${figure("hit@1", data.short.value.value)} (${range("hit@1", data.short.value).replace(" to ", "–")})`]],
    element("p", {}, `Nothing at or after the start of the test was seen in fitting: neither by the weights nor by ${seen_ahead.length ? "" : "vocabulary, "}popularity or calibration. Histories continue across the split.`),
    ...(seen_ahead.length ? [element("p", {}, `Only ${seen_ahead.join(" and ")} of the ingest looked at the whole log, the test with it, to choose what is in this dataset at all.`)] : []),
    ...(time?.visits_over_days ? [element("p", {}, `${whole(time.visits_over_days)} visits end on a later day than they begin. Such a visit belongs, whole, to the part in which it begins, its rows after the border included.`)] : []));
  table("The model", settings);
  table("Calibration, fitted before the test", calibration);
}

function drawTerms() {
  for (const metric of data.metrics) at("terms").append(element("dt", {}, metric.label), element("dd", {}, metric.meaning));
  for (const [name, meaning] of data.terms) at("terms").append(element("dt", {}, name), element("dd", {}, meaning));
}

drawHeadline();
drawSystems();
drawParts();
drawReliability();
drawCurve();
drawTrials();
drawMaking();
drawTerms();
