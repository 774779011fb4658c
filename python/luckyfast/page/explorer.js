// The customer explorer: history, chances and outcome of one customer on one grid whose rows are actions.
(() => {
  const people = data.explorer.customers;
  if (people.length === 0) return;
  const names = data.explorer.actions;
  at("explorer").hidden = false;
  at("explorer-note").textContent = `${plural(people.length, "customer")} taken in the dataset's own random order, none chosen by result. Every dot is a visit that held the action; the bars are the chances for the next visit, computed before it, the likeliest on top, then the most probable next actions; the last column is what then happened.`;
  // One scale for everybody, so that bars can be compared from customer to customer.
  const most = Math.max(0.05, ...people.flatMap((one) => one.predictions.flatMap((prediction) => prediction.top.map((item) => item[1]))));
  let person = people[0], step = person.predictions.length - 1;

  const outcome = (prediction) => {
    const taken = new Set(prediction.next.map((item) => item[0]));
    return { taken, first: prediction.top.length > 0 && taken.has(prediction.top[0][0]), three: prediction.top.slice(0, 3).some((item) => taken.has(item[0])) };
  };

  function list() {
    const wanted = at("find").value.trim().toLowerCase();
    const found = people.filter((one) => !wanted || one.customer.toLowerCase().includes(wanted) || one.predictions.some((prediction) => prediction.top.slice(0, 3).some((item) => names[item[0]].toLowerCase().includes(wanted))));
    at("people").replaceChildren(...found.map((one) => element("li", {}, element("button", { type: "button", "aria-current": String(one === person), onclick: () => { person = one; step = one.predictions.length - 1; list(); show(); } },
      element("span", {}, one.customer), element("span", { class: "count" }, plural(one.n_visits, "visit"))))));
    if (found.length === 0) at("people").append(element("li", { class: "none" }, "none of these customers"));
  }

  function show() {
    const prediction = person.predictions[step], { taken, first, three } = outcome(prediction);
    at("person").textContent = `Customer ${person.customer}`;
    at("step").textContent = `visit ${step + 1} of ${person.predictions.length}`;
    at("earlier").disabled = step === 0;
    at("later").disabled = step === person.predictions.length - 1;
    const held = prediction.top.filter((item) => taken.has(item[0])).length;
    at("verdict").replaceChildren(
      element("b", { class: first || three ? "hit" : "" }, first ? "Hit at 1." : three ? "Hit at 3." : "Miss at 3."),
      ` ${when(person.visits[prediction.visit][0])}: the visit held ${plural(taken.size, "action")}; ${held} of the ${prediction.top.length} at the top came true.`);
    redraw();
  }

  function draw(width) {
    const prediction = person.predictions[step], { taken } = outcome(prediction);
    const past = person.visits.slice(0, prediction.visit), moment = person.visits[prediction.visit][0];
    const listed = new Set(prediction.top.map((item) => item[0]));
    const outside = prediction.next.filter((item) => !listed.has(item[0])).sort((a, b) => (a[1] ?? 1e9) - (b[1] ?? 1e9));
    const shown = outside.slice(0, 6), rows = [...prediction.top.map((item) => ({ id: item[0], chance: item[1] })), ...shown.map((item) => ({ id: item[0], rank: item[1], chance: item[2] }))];
    const narrow = width < 620, line = narrow ? 40 : 25, top = narrow ? 56 : 50, cut = shown.length ? 30 : 0;
    const height = top + rows.length * line + cut + (outside.length > shown.length ? 24 : 6);
    const nameWidth = narrow ? 0 : Math.min(220, width * 0.27), markWidth = narrow ? 26 : 74, barWidth = Math.round(width * (narrow ? 0.3 : 0.23)), label = 46;
    const history = { left: nameWidth, right: width - markWidth - barWidth - label - 22 }, bars = { left: width - markWidth - barWidth - label, right: width - markWidth - label };
    const start = past.length ? past[0][0] : moment - 1, x = (time) => history.left + 4 + ((time - start) / (moment - start || 1)) * (history.right - history.left - 8);
    const svg = canvas(width, height, `History and next visit of customer ${person.customer}`);
    svg.append(shape("text", { x: history.left, y: 14, class: "strong small" }, past.length < prediction.n_before && !narrow ? `last ${past.length} visits` : plural(past.length, "visit")));
    svg.append(shape("text", { x: bars.left, y: 14, class: "strong small" }, narrow ? "chance" : "chance in next visit"));
    svg.append(shape("text", { x: width, y: 14, class: "strong small", "text-anchor": "end" }, narrow ? "next" : "next visit"));
    svg.append(shape("text", { x: history.left, y: 32, class: "soft small" }, when(start, false)));
    if (history.right - history.left > 170) svg.append(shape("text", { x: history.right, y: 32, class: "soft small", "text-anchor": "end" }, when(moment, false)));
    svg.append(shape("line", { x1: bars.left, x2: bars.left, y1: top - 6, y2: top + prediction.top.length * line, stroke: "var(--rule)" }));
    for (const [time] of past) svg.append(shape("line", { x1: x(time), x2: x(time), y1: 38, y2: 43, stroke: "var(--other)" }));
    rows.forEach((row, index) => {
      const extra = index >= prediction.top.length;
      const base = top + index * line + (extra ? cut : 0), y = base + (narrow ? 27 : line / 2), hit = taken.has(row.id), color = hit ? "var(--hit)" : "var(--idle)";
      if (extra && index === prediction.top.length) svg.append(shape("text", { x: 0, y: base - 9, class: "soft small" }, "also in the visit, outside the ten"));
      const name = names[row.id];
      svg.append(shape("text", { x: 0, y: narrow ? base + 12 : y + 4.5, class: hit ? "strong" : "" }, shorten(name, narrow ? width : nameWidth - 14, { strong: hit }), name));
      svg.append(shape("line", { x1: history.left, x2: history.right, y1: y, y2: y, stroke: "var(--grid)" }));
      for (const [time, actions] of past) if (actions.includes(row.id)) svg.append(shape("circle", { cx: x(time), cy: y, r: 3.2, fill: "var(--ink)", "fill-opacity": 0.62 }, null, `${name}: ${when(time)}`));
      if (row.chance !== undefined && row.chance !== null) {
        svg.append(shape("rect", { x: bars.left, y: y - 6, width: Math.max(1, (row.chance / most) * (bars.right - bars.left)), height: 12, fill: extra ? "var(--miss)" : color }));
        svg.append(shape("text", { x: bars.left + (row.chance / most) * (bars.right - bars.left) + 6, y: y + 4.5, class: "small" + (hit ? " strong" : " soft") }, chance(row.chance)));
      }
      if (extra) svg.append(shape("text", { x: width, y: y + 4.5, "text-anchor": "end", class: "small", fill: "var(--miss)" }, narrow ? (row.rank ? `#${row.rank}` : "new") : row.rank ? `rank ${row.rank}` : "new action"));
      else if (hit) svg.append(shape("text", { x: width, y: y + 4.5, "text-anchor": "end", class: "small strong", fill: "var(--hit)" }, narrow ? "✓" : "✓ taken"));
      else svg.append(shape("circle", { cx: width - 5, cy: y, r: 2, fill: "var(--idle)" }));
    });
    if (outside.length > shown.length) svg.append(shape("text", { x: 0, y: height - 6, class: "soft small" }, `and ${outside.length - shown.length} more`));
    return svg;
  }

  let redraw = () => {};
  at("find").addEventListener("input", list);
  at("earlier").addEventListener("click", () => { step -= 1; show(); });
  at("later").addEventListener("click", () => { step += 1; show(); });
  list();
  redraw = responsive(at("person-plot"), draw);
  show();
})();
