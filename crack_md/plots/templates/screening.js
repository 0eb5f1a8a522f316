"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  document.documentElement.classList.add("has-script");
  const details = JSON.parse(one("#details").textContent);
  const table = one("#slab-table tbody"), svg = one("#volcano-chart"), tip = one("#tip");
  const rows = new Map(all("#slab-table tbody tr").map((row) => [row.dataset.slab, row]));
  const points = new Map(all(".point").map((point) => [point.dataset.slab, point]));
  const intervals = new Map(all(".interval").map((line) => [line.dataset.slab, line]));
  const labels = all("#volcano-chart .label, #volcano-chart .leader");

  // ---- sorting: empty cells stay at the end, equal ones keep the order of ranks
  const original = [...rows.values()];
  const headings = all("#slab-table th");
  const valueOf = (row, place) => {
    const cell = row.cells[place];
    if (headings[place].classList.contains("number")) {
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    }
    const text = cell.textContent.trim();
    return text === "–" ? null : text.toLowerCase();
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true}));
  const sortBy = (heading) => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const place = headings.indexOf(heading);
    const keyed = original.map((row) => [valueOf(row, place), row]);
    const filled = keyed.filter(([value]) => value !== null);
    filled.sort(([a], [b]) => (ascending ? compare(a, b) : compare(b, a)));
    const empty = keyed.filter(([value]) => value === null);
    close();
    table.append(...[...filled, ...empty].map(([, row]) => row));
  };
  headings.forEach((heading) => one("button", heading).addEventListener("click", () => sortBy(heading)));

  // ---- filtering: all words must occur, those behind a minus must not
  const controls = one("#controls"), find = one("#find"), least = one("#least"), status = one("#status");
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = words.filter((word) => !/^[-−]/.test(word));
    const unwanted = words.filter((word) => /^[-−]./.test(word)).map((word) => word.slice(1));
    const limit = least.value === "" ? -Infinity : Number(least.value);
    let shown = 0;
    close();
    for (const [slab, row] of rows) {
      const {words: text, potential, status: state} = row.dataset;
      const fits = wanted.every((word) => text.includes(word))
        && !unwanted.some((word) => text.includes(word))
        && (limit === -Infinity || Number(potential ?? -Infinity) >= limit)
        && (!status || status.value === "" || status.value === state);
      row.hidden = !fits;
      [points, intervals].forEach((marks) => marks.get(slab)?.classList.toggle("out", !fits));
      shown += fits;
    }
    labels.forEach((label) => label.classList.toggle("out", rows.get(label.dataset.slab).hidden));
    one("#count").textContent = `${shown} of ${rows.size}`;
    one("#show-all").hidden = shown === rows.size;
  };
  controls.addEventListener("input", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("reset", () => setTimeout(filter));

  // ---- details below a row: every column of the tables, every site
  const number = (text) => (/^-?\d+\.\d+$/.test(text) ? Number(text).toFixed(3) : text).replace(/^-/, "−");
  const close = () => {
    all("tr.details", table).forEach((row) => row.remove());
    all(".chosen").forEach((element) => element.classList.remove("chosen"));
  };
  const factsOf = (slab) => {
    const facts = make("div", undefined, "facts");
    details.columns.forEach((name, place) => {
      const value = details.slabs[slab][place];
      if (value === "") return;
      const fact = make("span", `${name} `);
      fact.append(make("b", number(value)));
      facts.append(fact);
    });
    return facts;
  };
  const sitesOf = (slab) => {
    const sites = make("table"), head = sites.createTHead().insertRow(), body = sites.createTBody();
    const found = details.sites[slab] ?? [];
    const isNumber = (place) => found.every((site) => site[place] === "" || !Number.isNaN(Number(site[place])));
    const used = details.siteColumns.map((_, place) => place)
      .filter((place) => found.some((site) => site[place] !== ""));
    used.forEach((place) => head.append(make("th", details.siteColumns[place], isNumber(place) ? "number" : "")));
    found.forEach((site) => {
      const row = body.insertRow();
      used.forEach((place) => row.append(make("td", number(site[place]), isNumber(place) ? "number" : "")));
    });
    const scroll = make("div", undefined, "scroll");
    scroll.append(sites);
    return found.length ? scroll : make("p", "No sites were tried.", "note");
  };
  const open = (slab, scrolls) => {
    const row = rows.get(slab), wasOpen = row.classList.contains("chosen");
    close();
    if (wasOpen && !scrolls) return;
    row.classList.add("chosen");
    [points, intervals].forEach((marks) => marks.get(slab)?.classList.add("chosen"));
    const below = make("tr", undefined, "details"), cell = make("td");
    cell.colSpan = headings.length;
    cell.append(make("h4", "As screened"), factsOf(slab), sitesOf(slab));
    below.append(cell);
    row.after(below);
    if (scrolls) row.scrollIntoView({block: "center"});
  };
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-slab]");
    if (row && !String(getSelection())) open(row.dataset.slab, false);
  });
  const near = (slab, is) => {
    [points, intervals].forEach((marks) => marks.get(slab)?.classList.toggle("near", is));
    rows.get(slab)?.classList.toggle("near", is);
  };
  for (const [slab, row] of rows) {
    row.addEventListener("mouseenter", () => near(slab, true));
    row.addEventListener("mouseleave", () => near(slab, false));
  }
  if (!svg) return;

  // ---- the pointer tells about a point
  const signed = (text) => text.replace(/-/g, "−");
  const tell = (slab, event) => {
    const point = points.get(slab).dataset, row = rows.get(slab);
    const fixed = (value) => signed(Number(value).toFixed(2));
    const lines = headings.map((heading, place) => [heading.dataset.title, row.cells[place].textContent]);
    const value = new Map(lines);
    const width = (point.high - point.low) / 2;
    tip.replaceChildren(make("b", `${value.get("#")}. ${one(".name", row).firstChild.textContent.trim()}`));
    const say = (text) => tip.append(make("span", text));
    say(`site ${value.get("site") ?? "–"}`);
    say(`ΔG ${fixed(point.x)} eV` + (width > 0 ? `  [${fixed(point.low)} to ${fixed(point.high)}]` : ""));
    const range = lines.find(([title]) => /^[\d.]+%$/.test(title));
    say(`U_L ${fixed(point.y)} V` + (range ? `  [${range[1]}]` : ""));
    lines.filter(([title]) => title.startsWith("P(")).forEach(([title, text]) => say(`${title} ${text}`));
    tip.hidden = false;
    const beside = event.pageX + 16 + tip.offsetWidth > scrollX + innerWidth ? -16 - tip.offsetWidth : 16;
    tip.style.left = `${event.pageX + beside}px`;
    tip.style.top = `${event.pageY + 14}px`;
  };
  for (const [slab, point] of points) {
    one("title", point)?.remove(); // or the browser's own tip would cover ours
    point.addEventListener("mouseenter", (event) => (near(slab, true), tell(slab, event)));
    point.addEventListener("mouseleave", () => {
      near(slab, false);
      tip.hidden = true;
    });
    point.addEventListener("click", () => {
      if (rows.get(slab).hidden) controls.reset();
      setTimeout(() => open(slab, true));
    });
  }

  // ---- zoom: marks, lines and ticks are put where the new range wants them
  const [left, top, width, height] = JSON.parse(svg.dataset.plot);
  const whole = JSON.parse(svg.dataset.range), zero = Number(svg.dataset.equilibrium);
  const selection = one(".selection", svg), zoomOut = one("#zoom-out");
  let range = whole;
  const xIn = (value, [low, high]) => left + (width * (value - low)) / (high - low);
  const yIn = (value, [, , low, high]) => top + (height * (high - value)) / (high - low);
  const toX = (value) => xIn(value, range), toY = (value) => yIn(value, range);
  const fromX = (pixel, [low, high]) => low + ((pixel - left) / width) * (high - low);
  const fromY = (pixel, [, , low, high]) => high - ((pixel - top) / height) * (high - low);
  const draw = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const ticks = (low, high, about) => {
    const rough = (high - low) / Math.max(about, 1), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough * 0.999);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), found = [];
    for (let n = Math.ceil(low / step - 1e-9); n <= high / step + 1e-9; n += 1) {
      found.push([n * step, signed((n * step + 0).toFixed(digits))]);
    }
    return found;
  };
  const axes = draw("g", {class: "ticks"}), own = all("[id*=tick_]", svg);
  const drawAxes = () => {
    own.forEach((tick) => (tick.style.display = range === whole ? "" : "none"));
    const parts = [];
    for (const [value, text] of ticks(range[0], range[1], width / 90)) {
      const x = toX(value);
      parts.push(draw("line", {x1: x, x2: x, y1: top, y2: top + height, class: "grid"}));
      parts.push(draw("text", {x, y: top + height + 14, class: "tick", "text-anchor": "middle"}, text));
    }
    for (const [value, text] of ticks(range[2], range[3], height / 55)) {
      const y = toY(value);
      parts.push(draw("line", {x1: left, x2: left + width, y1: y, y2: y, class: "grid"}));
      parts.push(draw("text", {x: left - 6, y: y + 4, class: "tick", "text-anchor": "end"}, text));
    }
    for (const [value, text] of ticks(zero - range[3], zero - range[2], height / 55)) {
      parts.push(draw("text", {x: left + width + 6, y: toY(zero - value) + 4, class: "tick"}, text));
    }
    axes.replaceChildren(...(range === whole ? [] : parts));
    svg.append(axes);
  };
  const lines = all("[id^=volcano-chart-other] path, #volcano-chart-curve path, #volcano-chart-area path", svg)
    .map((path) => [path, path.getAttribute("d")]);
  const show = (next) => {
    range = next;
    drawAxes();
    for (const point of points.values()) {
      point.setAttribute("x", toX(point.dataset.x));
      point.setAttribute("y", toY(point.dataset.y));
    }
    for (const line of intervals.values()) {
      const {low, high, y} = line.dataset;
      line.setAttribute("d", `M ${toX(low)} ${toY(y)} L ${toX(high)} ${toY(y)}`);
    }
    labels.forEach((label) => {
      const x = toX(label.dataset.x), y = toY(label.dataset.y);
      const inside = x >= left && x <= left + width && y >= top && y <= top + height;
      const moved = [x - xIn(label.dataset.x, whole), y - yIn(label.dataset.y, whole)];
      label.setAttribute("transform", `translate(${moved.join(" ")})`);
      label.style.display = inside ? "" : "none";
    });
    lines.forEach(([path, d]) => path.setAttribute("d", d.replace(/(-?[\d.]+) (-?[\d.]+)/g,
      (_, x, y) => `${toX(fromX(Number(x), whole))} ${toY(fromY(Number(y), whole))}`)));
    zoomOut.hidden = range === whole;
  };
  const inPlot = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [Math.min(Math.max(place.x, left), left + width), Math.min(Math.max(place.y, top), top + height)];
  };
  let start = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && !event.target.closest(".point")) start = inPlot(event);
  });
  addEventListener("pointermove", (event) => {
    if (!start) return;
    const end = inPlot(event);
    tip.hidden = true;
    selection.removeAttribute("hidden");
    ["x", "y"].forEach((axis, i) => selection.setAttribute(axis, Math.min(start[i], end[i])));
    ["width", "height"].forEach((size, i) => selection.setAttribute(size, Math.abs(end[i] - start[i])));
  });
  addEventListener("pointerup", (event) => {
    if (!start) return;
    const [a, b] = [start, inPlot(event)];
    start = null;
    selection.setAttribute("hidden", "");
    if (Math.abs(a[0] - b[0]) < 8 || Math.abs(a[1] - b[1]) < 8) return;
    const x = [a[0], b[0]].map((pixel) => fromX(pixel, range)).sort((c, d) => c - d);
    const y = [a[1], b[1]].map((pixel) => fromY(pixel, range)).sort((c, d) => c - d);
    show([...x, ...y]);
  });
  svg.addEventListener("dblclick", () => show(whole));
  zoomOut.addEventListener("click", () => show(whole));
})();
