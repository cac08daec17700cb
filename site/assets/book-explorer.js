/* Explorers of the book: sliders over numbers that were computed when the book was built.
 *
 * <book-explorer> holds a picture of its start and a JSON payload, both written by
 * lib/book/explore. This script turns them into controls and drawings; it needs no kernel and no
 * network, and runs as a classic deferred script, so that it also works from file://.
 *
 * Between grid points everything is interpolated multilinearly, in the coordinate of each slider
 * (logarithmic ones in the logarithm) and in the space in which each axis is linear.
 */
(() => {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const LEVELS = 65534;
  const GAP = 65535;
  const TRACK = 1000; // steps of a slider's thumb
  const ANNOUNCE_AFTER = 450; // milliseconds of rest before a change is read out
  const PLAY_SECONDS = 7;
  const FRAME_SCALE = 105; // CSS pixels per inch of a frame: 10 pt become 14.6 px
  let counter = 0;

  // --- text: the same rules as lib/book/explore/text.py ---------------------------------------

  const MARKUP = /\*([^*]+)\*|_\{([^}]*)\}|\^\{([^}]*)\}/g;

  function segments(text) {
    const parts = [];
    let end = 0;
    for (const match of text.matchAll(MARKUP)) {
      if (match.index > end) parts.push(["plain", text.slice(end, match.index)]);
      if (match[1] !== undefined) parts.push(["italic", match[1]]);
      else if (match[2] !== undefined) parts.push(["sub", match[2]]);
      else parts.push(["sup", match[3]]);
      end = match.index + match[0].length;
    }
    if (end < text.length) parts.push(["plain", text.slice(end)]);
    return parts;
  }

  const plain = (text) => segments(text).map((part) => part[1]).join("");

  function number(value, spec) {
    if (value === null || Number.isNaN(value)) return "–";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    const [, comma, digits, kind] = /^(,?)(?:\.(\d+))?([defg%])$/.exec(spec);
    const places = digits === undefined ? 6 : Number(digits);
    let text;
    if (kind === "d") text = roundHalfEven(value).toFixed(0);
    else if (kind === "f") text = value.toFixed(places);
    else if (kind === "%") text = (100 * value).toFixed(places) + "%";
    else if (kind === "e") text = value.toExponential(places);
    else text = general(value, places || 1);
    let [mantissa, exponent] = text.split("e");
    if (comma) mantissa = mantissa.replace(/^-?\d+/, (n) => n.replace(/\B(?=(\d{3})+$)/g, ","));
    if (!/[1-9]/.test(mantissa)) mantissa = mantissa.replace("-", "");
    if (exponent !== undefined) mantissa += `×10^{${Number(exponent)}}`;
    return mantissa.replaceAll("-", "−");
  }

  function general(value, places) {
    const text = value.toExponential(places - 1);
    const exponent = Number(text.split("e")[1]);
    const trim = (s) => (s.includes(".") ? s.replace(/\.?0+$/, "") : s);
    if (exponent < -4 || exponent >= places) return `${trim(text.split("e")[0])}e${exponent}`;
    return trim(value.toFixed(Math.max(0, places - 1 - exponent)));
  }

  function roundHalfEven(value) {
    const near = Math.round(value);
    return Math.abs(value % 1) === 0.5 && near % 2 !== 0 ? near - 1 : near;
  }

  // --- elements -------------------------------------------------------------------------------

  function html(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function rich(node, text) {
    const tags = { italic: "i", sub: "sub", sup: "sup" };
    node.replaceChildren(
      ...segments(text).map(([style, part]) =>
        style === "plain" ? part : html(tags[style], {}, part)),
    );
    return node;
  }

  function svg(tag, attributes = {}, parent = null) {
    const node = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.append(node);
    return node;
  }

  function svgText(parent, text, x, y, kind, anchor = "start") {
    const node = svg("text", { x, y, class: kind, "text-anchor": anchor }, parent);
    let lowered = 0;
    for (const [style, part] of segments(text)) {
      const shift = style === "sub" ? 0.22 : style === "sup" ? -0.38 : 0;
      const span = svg("tspan", {}, node);
      if (style === "italic") span.setAttribute("font-style", "italic");
      if (shift) span.setAttribute("font-size", "78%");
      if (shift !== lowered) span.setAttribute("dy", `${(shift - lowered).toFixed(2)}em`);
      lowered = shift;
      span.textContent = part;
    }
    return node;
  }

  const ruler = document.createElement("canvas").getContext("2d");

  function widthOf(text, size, family, weight = 400) {
    let width = 0;
    for (const [style, part] of segments(text)) {
      const scale = style === "sub" || style === "sup" ? 0.78 : 1;
      ruler.font = `${style === "italic" ? "italic " : ""}${weight} ${size * scale}px ${family}`;
      width += ruler.measureText(part).width;
    }
    return width;
  }

  // --- numbers on the grid --------------------------------------------------------------------

  function decode(stored) {
    const size = stored.shape.reduce((a, b) => a * b, 1);
    const values = new Float64Array(size);
    const step = (stored.high - stored.low) / LEVELS;
    if (stored.data === "") {
      values.fill(stored.low);
    } else {
      const bytes = atob(stored.data);
      for (let i = 0; i < size; i++) {
        const code = bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8);
        values[i] = code === GAP ? NaN : stored.low + code * step;
      }
    }
    return { shape: stored.shape, values, length: stored.shape.at(-1) };
  }

  /* Start of the row of an array that belongs to a grid point; 1 means: doesn't depend on it. */
  function offset(array, index) {
    let at = 0;
    for (let k = 0; k < index.length; k++) {
      at = at * array.shape[k] + Math.min(index[k], array.shape[k] - 1);
    }
    return at * array.length;
  }

  /* Weighted mean over corners, into a reused buffer; a gap where the heaviest corner has one. */
  function interpolate(array, corners) {
    array.buffer ??= new Float64Array(array.length);
    const rows = corners.map(([index, weight]) => [offset(array, index), weight]);
    const heaviest = rows.reduce((a, b) => (b[1] > a[1] ? b : a))[0];
    const { values, buffer } = array;
    for (let i = 0; i < array.length; i++) {
      let sum = 0;
      let total = 0;
      if (!Number.isNaN(values[heaviest + i])) {
        for (const [row, weight] of rows) {
          const value = values[row + i];
          if (!Number.isNaN(value)) {
            sum += weight * value;
            total += weight;
          }
        }
      }
      buffer[i] = total > 0 ? sum / total : NaN;
    }
    return buffer;
  }

  // --- parameters -----------------------------------------------------------------------------

  class SliderControl {
    constructor(spec, changed) {
      this.spec = spec;
      this.values = spec.values;
      this.coordinate = spec.log ? Math.log : (v) => v;
      this.axis = this.values.map(this.coordinate);
      const id = `book-explorer-${++counter}`;
      this.input = html("input", {
        type: "range", id, min: 0, max: TRACK, step: 1, autocomplete: "off",
      });
      this.shown = html("span", { class: "bx-value", "aria-hidden": "true" });
      const label = rich(html("label", { for: id, class: "bx-label" }), spec.label);
      this.node = html("div", { class: "bx-control" },
        html("div", { class: "bx-control-head" }, label, this.shown), this.input);
      this.input.addEventListener("input", () => changed(this, this.fromTrack(this.input.value)));
      this.input.addEventListener("keydown", (event) => this.onKey(event, changed));
      this.reset();
    }

    get low() { return this.axis[0]; }
    get high() { return this.axis.at(-1); }

    fromTrack(position) {
      if (Number(position) === 0) return this.values[0];
      if (Number(position) === TRACK) return this.values.at(-1);
      const at = this.low + ((this.high - this.low) * position) / TRACK;
      const value = this.spec.log ? Math.exp(at) : at;
      return this.spec.integer ? Math.round(value) : value;
    }

    /* Arrows go to the next grid point, where nothing is interpolated; with Shift a fine step. */
    onKey(event, changed) {
      const direction = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (!direction || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      changed(this, event.shiftKey ? this.fine(direction) : this.neighbour(direction));
    }

    neighbour(direction) {
      const near = 1e-9 * (this.high - this.low);
      const at = this.coordinate(this.value);
      const values = direction > 0 ? this.values : [...this.values].reverse();
      const next = values.find((v) => direction * (this.coordinate(v) - at) > near);
      return next ?? values.at(-1);
    }

    fine(direction) {
      if (this.spec.integer) {
        return Math.min(Math.max(this.value + direction, this.values[0]), this.values.at(-1));
      }
      return this.fromTrack(Math.min(Math.max(this.position + 5 * direction, 0), TRACK));
    }

    get position() {
      return (TRACK * (this.coordinate(this.value) - this.low)) / (this.high - this.low);
    }

    set(value) {
      this.value = value;
      if (this.fromTrack(this.input.value) !== value) this.input.value = Math.round(this.position);
      const text = `${number(value, this.spec.format)} ${this.spec.unit}`.trim();
      rich(this.shown, text);
      this.input.setAttribute("aria-valuetext", plain(text));
      this.input.style.setProperty("--bx-fill", `${(this.position / TRACK) * 100}%`);
    }

    /* Neighbouring grid points with their weights; zero weights are left out. */
    sides() {
      const at = this.coordinate(this.value);
      let i = 0;
      while (i < this.axis.length - 2 && at >= this.axis[i + 1]) i++;
      const raw = (at - this.axis[i]) / (this.axis[i + 1] - this.axis[i]);
      const t = Math.min(Math.max(raw, 0), 1);
      return [[i, 1 - t], [i + 1, t]].filter((side) => side[1] > 0);
    }

    /* Exactly at the start: `set` leaves the thumb where it already means the value. */
    reset() {
      this.set(this.spec.start);
      this.input.value = Math.round(this.position);
    }
  }

  class ChoiceControl {
    constructor(spec, changed) {
      this.spec = spec;
      const id = `book-explorer-${++counter}`;
      this.input = html("select", { id, autocomplete: "off" },
        ...spec.options.map((text, i) => html("option", { value: i }, plain(text))));
      const label = rich(html("label", { for: id, class: "bx-label" }), spec.label);
      this.node = html("div", { class: "bx-control bx-choice" }, label, this.input);
      this.input.addEventListener("change", () => changed(this, Number(this.input.value)));
      this.set(spec.start);
    }

    set(value) {
      this.value = value;
      this.input.value = value;
    }

    sides() { return [[this.value, 1]]; }
    reset() { this.set(this.spec.start); }
  }

  function cornersOf(controls) {
    let found = [[[], 1]];
    for (const control of controls) {
      const sides = control.sides();
      found = found.flatMap(([index, weight]) =>
        sides.map(([i, w]) => [[...index, i], weight * w]));
    }
    return found;
  }

  // --- axes -----------------------------------------------------------------------------------

  /* Ticks in axis space: [position, text]. Round numbers, few enough to be read. */
  function ticks(low, high, scale, room, own) {
    if (own) return own.filter(([at]) => at >= low - 1e-9 && at <= high + 1e-9);
    const most = Math.max(2, Math.floor(room));
    if (scale === "log2") return powerTicks(low, high, Math.log10(2), 2, most);
    if (scale === "log") {
      if (high - low < 1.4) return mantissaTicks(low, high, most);
      return powerTicks(low, high, 1, 10, most);
    }
    return linearTicks(low, high, most);
  }

  function linearTicks(low, high, most) {
    const rough = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.75);
    const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const large = Math.max(Math.abs(low), Math.abs(high)) >= 1e5 || step < 1e-4;
    const list = [];
    for (let k = Math.ceil(low / step - 1e-9); k <= high / step + 1e-9; k++) {
      const at = k * step;
      list.push([at, large && k !== 0 ? number(at, ".2g") : number(at, `.${large ? 0 : places}f`)]);
    }
    return list;
  }

  function powerTicks(low, high, unit, base, most) {
    const first = Math.ceil(low / unit - 1e-9);
    const last = Math.floor(high / unit + 1e-9);
    const stride = Math.max(1, Math.ceil((last - first + 1) / most));
    const plainly = base === 2 ? first >= -4 && last <= 17 : first >= -2 && last <= 4;
    const list = [];
    const start = base === 2 ? first : Math.ceil(first / stride) * stride;
    for (let k = start; k <= last; k += stride) {
      const text = plainly ? number(base ** k, ".6g") : `${base}^{${String(k).replace("-", "−")}}`;
      list.push([k * unit, text]);
    }
    return list;
  }

  function mantissaTicks(low, high, most) {
    const list = [];
    for (const set of [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]]) {
      list.length = 0;
      for (let k = Math.floor(low); k <= high; k++) {
        for (const m of set) {
          const at = k + Math.log10(m);
          if (at >= low - 1e-9 && at <= high + 1e-9) list.push([at, number(m * 10 ** k, ".3g")]);
        }
      }
      if (list.length <= most) break;
    }
    return list;
  }

  /* Least-squares spacing of labels: neighbours `gap` apart, inside [low, high]. */
  function spread(wanted, gap, low, high) {
    const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b] || a - b);
    const step = Math.min(gap, (high - low) / Math.max(order.length - 1, 1));
    const clusters = [];
    order.forEach((i, rank) => {
      clusters.push([Math.min(Math.max(wanted[i], low), high) - rank * step, 1]);
      while (clusters.length > 1 && clusters.at(-2)[0] > clusters.at(-1)[0]) {
        const [b, n] = clusters.pop();
        const [a, m] = clusters.pop();
        clusters.push([(a * m + b * n) / (m + n), m + n]);
      }
    });
    const top = high - (order.length - 1) * step;
    const moved = [];
    let rank = 0;
    for (const [mean, size] of clusters) {
      for (let k = 0; k < size; k++, rank++) {
        moved[order[rank]] = Math.min(Math.max(mean, low), top) + rank * step;
      }
    }
    return moved;
  }

  // --- one panel ------------------------------------------------------------------------------

  const TICK = 12;
  const LABEL = 13;
  const TITLE = 14;
  const LAYERS = ["band", "area", "bars", "hline", "vline", "dashed", "line", "points"];
  const OUTLINED = new Set(["line", "dashed", "area", "hline", "vline"]);

  class PanelView {
    constructor(spec) {
      this.spec = spec;
      this.series = spec.series.map((s) => ({
        ...s,
        x: s.x && decode(s.x),
        y: s.y && decode(s.y),
        y2: s.y2 && decode(s.y2),
      }));
      this.node = html("div", { class: "bx-panel", style: `--bx-share:${spec.width}` });
      this.root = svg("svg", { "aria-hidden": "true", focusable: "false" }, this.node);
      this.clip = `book-explorer-clip-${++counter}`;
      this.width = 0;
    }

    /* What this panel needs over its plot; panels of one row then share the largest. */
    measure(width, family, plot) {
      this.width = width;
      this.family = family;
      const { spec } = this;
      const size = (text, pixels) => widthOf(text, pixels, family);
      this.plot = plot;
      this.yTicks = ticks(...spec.ylim, spec.yscale, this.plot / 42, spec.yticks);
      this.left = Math.ceil(8 + Math.max(14, ...this.yTicks.map(([, t]) => size(t, TICK))));
      this.placeLabels(width, size);
      this.right = width - this.margin;
      this.keys = this.keyRows(size);
      this.needs = {
        title: spec.title ? 24 : 0, ylabel: spec.ylabel ? 20 : 0, keys: 19 * this.keys.length,
      };
    }

    /* Everything that doesn't depend on the parameters. `heads` aligns panels of one row. */
    layout(heads) {
      const { spec, root, width } = this;
      const measure = (text, size) => widthOf(text, size, this.family);
      this.top = heads.title + heads.ylabel + heads.keys + 8;
      this.bottom = this.top + this.plot;
      this.height = this.bottom + (spec.xlabel ? 44 : 26);
      const xTicks = this.xTicks((text) => measure(text, TICK));
      root.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
      root.setAttribute("width", width);
      root.setAttribute("height", this.height);
      root.replaceChildren();
      this.frame(xTicks, heads, measure);
      this.marks();
    }

    /* As many ticks as stand apart. */
    xTicks(measure) {
      const { xlim, xscale, xticks } = this.spec;
      const apart = (list) => list.every(([at, text], i) => i === 0 ||
        this.x(at) - this.x(list[i - 1][0]) > (measure(text) + measure(list[i - 1][1])) / 2 + 12);
      let list = [];
      for (let most = Math.ceil((this.right - this.left) / 50); most >= 2; most--) {
        list = ticks(...xlim, xscale, most, xticks);
        if (apart(list) || xticks) break;
      }
      return list;
    }

    /* Labels at line ends need room on the right; where that is too dear, they move to the key. */
    placeLabels(width, measure) {
      const ends = this.series.filter((s) => s.label && s.labelAt === "end" && s.kind !== "vline");
      const needed = Math.max(0, ...ends.map((s) => measure(s.label, LABEL)));
      const fits = needed <= 0.36 * width;
      this.ends = fits ? ends : [];
      this.keyed = this.series.filter((s) => s.label && (s.labelAt === "key" ||
        (!fits && ends.includes(s))));
      this.margin = Math.ceil(this.ends.length ? 1.04 * needed + 14 : 12);
    }

    keyRows(measure) {
      const rows = [];
      let used = Infinity;
      for (const s of this.keyed) {
        const wide = 22 + measure(s.label, LABEL) + 14;
        if (used + wide > this.width - this.left) {
          rows.push([]);
          used = 0;
        }
        rows.at(-1).push([s, used]);
        used += wide;
      }
      return rows;
    }

    x(at) {
      const [low, high] = this.spec.xlim;
      return this.left + ((at - low) / (high - low)) * (this.right - this.left);
    }

    y(at) {
      const [low, high] = this.spec.ylim;
      return this.bottom - ((at - low) / (high - low)) * (this.bottom - this.top);
    }

    frame(xTicks, heads, measure) {
      const { spec, root } = this;
      const clip = svg("clipPath", { id: this.clip }, svg("defs", {}, root));
      svg("rect", {
        x: this.left - 1, y: this.top - 5, width: this.right - this.left + 5,
        height: this.bottom - this.top + 7,
      }, clip);
      if (spec.title) svgText(root, spec.title, 0, 15, "bx-panel-title");
      if (spec.ylabel) svgText(root, spec.ylabel, 0, heads.title + 13, "bx-axis-label");
      this.keys.forEach((row, r) => {
        for (const [s, at] of row) this.keyEntry(s, at, heads.title + heads.ylabel + 14 + 19 * r);
      });
      for (const [at, text] of this.yTicks) {
        const y = this.y(at);
        svg("line", { x1: this.left, x2: this.right, y1: y, y2: y, class: "bx-grid" }, root);
        svgText(root, text, this.left - 7, y + 4, "bx-tick", "end");
      }
      let free = -Infinity;
      for (const [at, text] of xTicks) {
        const x = this.x(at);
        svg("line", { x1: x, x2: x, y1: this.bottom, y2: this.bottom + 4, class: "bx-rule" }, root);
        const half = measure(text, TICK) / 2;
        const middle = Math.min(x, this.width - half);
        if (middle - half < free + 4) continue;
        free = middle + half;
        svgText(root, text, middle, this.bottom + 18, "bx-tick", "middle");
      }
      svg("line", {
        x1: this.left, x2: this.right, y1: this.bottom, y2: this.bottom, class: "bx-rule",
      }, root);
      if (spec.xlabel) {
        const middle = (this.left + this.right) / 2;
        const half = measure(spec.xlabel, LABEL) / 2;
        const x = Math.max(half, Math.min(middle, this.width - half));
        svgText(root, spec.xlabel, x, this.bottom + 38, "bx-axis-label", "middle");
      }
    }

    keyEntry(s, at, y) {
      const filled = s.kind === "bars" || s.kind === "band" || s.kind === "area";
      const look = { class: `bx-key bx-${s.kind} bx-role-${s.role}` };
      if (filled) {
        svg("rect", { ...look, x: at, y: y - 10, width: 16, height: 11, rx: 2 }, this.root);
      } else if (s.kind === "points") {
        svg("path", { ...look, d: `M${at + 8} ${y - 4.5}h0` }, this.root);
      } else {
        svg("path", { ...look, d: `M${at} ${y - 4.5}h16` }, this.root);
      }
      svgText(this.root, s.label, at + 22, y, `bx-label-text bx-role-${s.role}`);
    }

    marks() {
      const { root } = this;
      const group = svg("g", { "clip-path": `url(#${this.clip})` }, root);
      const order = [...this.series].sort(
        (a, b) => LAYERS.indexOf(a.kind) - LAYERS.indexOf(b.kind));
      for (const s of order) {
        const look = `bx-${s.kind} bx-role-${s.role}`;
        s.fill = s.kind === "band" || s.kind === "bars" || s.kind === "area"
          ? svg("path", { class: `bx-fill ${look}` }, group) : null;
        s.halo = s.kind === "points" ? svg("path", { class: "bx-halo" }, group) : null;
        s.stroke = OUTLINED.has(s.kind) || s.kind === "points"
          ? svg("path", { class: `bx-stroke ${look}` }, group) : null;
        if (s.stroke) s.stroke.setAttribute("data-series", s.name);
        if (s.fill && !s.stroke) s.fill.setAttribute("data-series", s.name);
      }
      for (const s of this.series) {
        const kind = `bx-label-text bx-role-${s.role}`;
        s.leader = null;
        s.text = null;
        if (this.ends.includes(s)) {
          s.leader = svg("path", { class: `bx-leader bx-role-${s.role}` }, root);
          s.text = svgText(root, s.label, this.right + 10, 0, kind);
        } else if (s.label && (s.labelAt === "peak" || s.kind === "vline")
            && !this.keyed.includes(s)) {
          s.text = svgText(root, s.label, 0, 0, `${kind} bx-inside`, "middle");
          s.textWidth = widthOf(s.label, LABEL, this.family);
        }
      }
    }

    /* Everything that does: called for each movement of a slider. */
    draw(corners) {
      if (!this.width) return;
      for (const s of this.series) {
        s.at = {};
        for (const key of ["x", "y", "y2"]) if (s[key]) s.at[key] = interpolate(s[key], corners);
        if (s.kind === "points") {
          const d = this.dots(s.at);
          s.halo.setAttribute("d", d);
          s.stroke.setAttribute("d", d);
        } else if (s.kind === "bars") {
          s.fill.setAttribute("d", this.bars(s.at));
        } else if (s.kind === "band") {
          s.fill.setAttribute("d", this.band(s.at));
        } else if (s.kind === "hline") {
          s.stroke.setAttribute("d", this.rule(this.left, this.y(s.at.y[0]), true));
        } else if (s.kind === "vline") {
          s.stroke.setAttribute("d", this.rule(this.x(s.at.x[0]), this.top, false));
        } else {
          s.stroke.setAttribute("d", this.line(s.at));
          if (s.fill) s.fill.setAttribute("d", this.area(s.at));
        }
      }
      this.labels();
    }

    rule(x, y, across) {
      if (Number.isNaN(x) || Number.isNaN(y)) return "";
      return across ? `M${f1(x)} ${f1(y)}H${this.right}` : `M${f1(x)} ${this.bottom}V${this.top}`;
    }

    line({ x, y }) {
      let d = "";
      let pen = "M";
      for (let i = 0; i < y.length; i++) {
        if (Number.isNaN(x[i]) || Number.isNaN(y[i])) {
          pen = "M";
        } else {
          d += `${pen}${f1(this.x(x[i]))} ${f1(this.y(y[i]))}`;
          pen = "L";
        }
      }
      return d;
    }

    /* Stretches without a gap, as [first, last] indices. */
    runs(...arrays) {
      const found = [];
      let start = -1;
      for (let i = 0; i <= arrays[0].length; i++) {
        const ok = i < arrays[0].length && arrays.every((a) => !Number.isNaN(a[i]));
        if (ok && start < 0) start = i;
        if (!ok && start >= 0) {
          found.push([start, i - 1]);
          start = -1;
        }
      }
      return found;
    }

    area({ x, y }) {
      const zero = this.spec.yscale === "linear" ? this.y(0) : this.bottom;
      const floor = f1(Math.min(Math.max(zero, this.top), this.bottom));
      return this.runs(x, y).map(([a, b]) => {
        let d = `M${f1(this.x(x[a]))} ${floor}`;
        for (let i = a; i <= b; i++) d += `L${f1(this.x(x[i]))} ${f1(this.y(y[i]))}`;
        return `${d}L${f1(this.x(x[b]))} ${floor}Z`;
      }).join("");
    }

    band({ x, y, y2 }) {
      return this.runs(x, y, y2).map(([a, b]) => {
        let d = "";
        for (let i = a; i <= b; i++) {
          d += `${i === a ? "M" : "L"}${f1(this.x(x[i]))} ${f1(this.y(y[i]))}`;
        }
        for (let i = b; i >= a; i--) d += `L${f1(this.x(x[i]))} ${f1(this.y(y2[i]))}`;
        return `${d}Z`;
      }).join("");
    }

    bars({ x, y }) {
      const sorted = [...x].filter((v) => !Number.isNaN(v)).sort((a, b) => a - b);
      let gap = Infinity;
      for (let i = 1; i < sorted.length; i++) {
        const step = sorted[i] - sorted[i - 1];
        if (step > 1e-12) gap = Math.min(gap, step);
      }
      if (!Number.isFinite(gap)) gap = 1;
      const wide = Math.max(1, 0.82 * (this.x(gap) - this.x(0)));
      const zero = this.spec.yscale === "linear" ? this.y(0) : this.bottom;
      const floor = f1(Math.min(Math.max(zero, this.top), this.bottom));
      let d = "";
      for (let i = 0; i < x.length; i++) {
        if (Number.isNaN(x[i]) || Number.isNaN(y[i])) continue;
        const left = f1(this.x(x[i]) - wide / 2);
        const top = f1(Math.min(Math.max(this.y(y[i]), this.top - 6), this.bottom + 6));
        d += `M${left} ${floor}V${top}h${f1(wide)}V${floor}Z`;
      }
      return d;
    }

    dots({ x, y }) {
      let d = "";
      for (let i = 0; i < x.length; i++) {
        if (!Number.isNaN(x[i]) && !Number.isNaN(y[i])) {
          d += `M${f1(this.x(x[i]))} ${f1(this.y(y[i]))}h0`;
        }
      }
      return d;
    }

    labels() {
      const outside = [];
      for (const s of this.ends) {
        const end = this.endOf(s);
        s.text.style.display = s.leader.style.display = end === null ? "none" : "";
        if (end === null) continue;
        const inside = end[0] < this.right - 30;
        s.text.classList.toggle("bx-inside", inside);
        if (inside) this.labelInside(s, end);
        else outside.push([s, end]);
      }
      const placed = spread(outside.map(([, end]) => end[1]), 16, this.top + 2, this.bottom - 2);
      outside.forEach(([s, [x, y]], i) => {
        s.text.setAttribute("x", this.right + 10);
        s.text.setAttribute("y", f1(placed[i] + 4.5));
        const far = Math.abs(placed[i] - y) > 5;
        s.leader.setAttribute("d",
          far ? `M${f1(x + 2)} ${f1(y)}L${this.right + 7} ${f1(placed[i])}` : "");
      });
      for (const s of this.series) {
        if (!s.text || this.ends.includes(s)) continue;
        if (s.kind === "vline") this.labelVline(s);
        else this.labelPeak(s);
      }
    }

    /* A line that stops, or leaves the panel, well before its right edge is labelled there. */
    labelInside(s, [x, y]) {
      s.leader.setAttribute("d", "");
      s.text.setAttribute("x", f1(x + 8));
      s.text.setAttribute("y", f1(Math.min(Math.max(y + 4.5, this.top + 8), this.bottom - 8)));
    }

    /* Where a line leaves the panel on the right: its last point inside the limits. */
    endOf(s) {
      if (s.kind === "hline") {
        const y = this.y(s.at.y[0]);
        return y >= this.top - 4 && y <= this.bottom + 4 ? [this.right, y] : null;
      }
      const { x, y, y2 } = s.at;
      for (let i = x.length - 1; i >= 0; i--) {
        const height = y2 ? (y[i] + y2[i]) / 2 : y[i];
        const px = this.x(x[i]);
        const py = this.y(height);
        if (Number.isNaN(py) || !(px >= this.left - 2 && px <= this.right + 2)) continue;
        if (py >= this.top - 4 && py <= this.bottom + 4) return [px, py];
      }
      return null;
    }

    labelVline(s) {
      const x = this.x(s.at.x[0]);
      const inside = x >= this.left - 1 && x <= this.right + 1;
      s.text.style.display = inside ? "" : "none";
      if (!inside) return;
      const flip = x + 6 + s.textWidth > this.right;
      s.text.setAttribute("text-anchor", flip ? "end" : "start");
      s.text.setAttribute("x", f1(flip ? x - 6 : x + 6));
      s.text.setAttribute("y", this.top + 10);
    }

    labelPeak(s) {
      const { x, y } = s.at;
      let best = -1;
      for (let i = 0; i < y.length; i++) {
        const px = this.x(x[i]);
        if (Number.isNaN(y[i]) || !(px >= this.left && px <= this.right)) continue;
        if (best < 0 || y[i] > y[best]) best = i;
      }
      s.text.style.display = best < 0 ? "none" : "";
      if (best < 0) return;
      const half = s.textWidth / 2;
      const middle = Math.min(Math.max(this.x(x[best]), this.left + half + 4), this.right - half);
      const above = this.y(y[best]) - 8;
      s.text.setAttribute("x", f1(middle));
      s.text.setAttribute("y", f1(Math.min(Math.max(above, this.top + 10), this.bottom - 6)));
    }
  }

  function f1(value) {
    return Math.round(value * 10) / 10;
  }

  // --- pictures -------------------------------------------------------------------------------

  class CurvesView {
    constructor(payload) {
      this.panels = payload.panels.map((spec) => new PanelView(spec));
      this.node = html("div", { class: "bx-panels" }, ...this.panels.map((p) => p.node));
    }

    resize() {
      const widths = this.panels.map((panel) => Math.floor(panel.node.clientWidth));
      if (widths.some((w) => w < 40)) return false; // hidden, as in a closed <details>
      if (widths.every((w, i) => w === this.panels[i].width)) return false;
      const family = getComputedStyle(this.node).fontFamily;
      const tops = this.panels.map((panel) => panel.node.offsetTop);
      const rowOf = (i) => this.panels.map((_, k) => k).filter((k) => tops[k] === tops[i]);
      this.panels.forEach((panel, i) => {
        const widest = Math.max(...rowOf(i).map((k) => widths[k]));
        panel.measure(widths[i], family, Math.min(Math.max(0.62 * widest, 190), 270));
      });
      this.panels.forEach((panel, i) => {
        const most = (key) => Math.max(...rowOf(i).map((k) => this.panels[k].needs[key]));
        panel.layout({ title: most("title"), ylabel: most("ylabel"), keys: most("keys") });
      });
      return true;
    }

    relayout() {
      for (const panel of this.panels) panel.width = 0;
      return this.resize();
    }

    draw(corners) {
      for (const panel of this.panels) panel.draw(corners);
    }
  }

  class FramesView {
    constructor(payload) {
      this.payload = payload;
      this.shape = payload.parameters.map((p) => (p.values ?? p.options).length);
      this.image = html("img", { alt: "", class: "bx-frame", decoding: "sync" });
      this.image.width = Math.round(payload.width * FRAME_SCALE);
      this.image.height = Math.round(payload.height * FRAME_SCALE);
      this.node = html("div", { class: "bx-panels" }, this.image);
    }

    resize() { return false; }
    relayout() { return true; }

    draw(corners) {
      const index = nearest(corners);
      const at = index.reduce((sum, i, k) => sum * this.shape[k] + i, 0);
      const frames = isDark(this.node) && this.payload.dark ? this.payload.dark : this.payload.light;
      const source = `data:image/webp;base64,${frames[at]}`;
      if (this.shown !== source) this.image.src = source;
      this.shown = source;
      this.image.dataset.frame = at;
    }
  }

  function nearest(corners) {
    return corners.reduce((a, b) => (b[1] > a[1] ? b : a))[0];
  }

  /* The colours in force decide, whoever set them: a light ink means a dark page. */
  function isDark(node) {
    const ink = getComputedStyle(node).color.match(/[\d.]+/g).slice(0, 3).map(Number);
    return ink[0] + ink[1] + ink[2] > 384;
  }

  // --- the element ----------------------------------------------------------------------------

  class BookExplorer extends HTMLElement {
    connectedCallback() {
      if (this.app) return;
      const script = this.querySelector('script[type="application/json"]');
      if (!script) {
        // Parsed only in part: the children come later.
        if (document.readyState === "loading") {
          document.addEventListener("DOMContentLoaded", () => this.connectedCallback(),
            { once: true });
        }
        return;
      }
      this.payload = JSON.parse(script.textContent);
      this.build();
    }

    build() {
      const { payload } = this;
      const id = `book-explorer-${++counter}`;
      const changed = (control, value) => {
        this.pause();
        control.set(value);
        this.request();
      };
      this.controls = payload.parameters.map((spec) =>
        new (spec.kind === "slider" ? SliderControl : ChoiceControl)(spec, changed));
      this.view = new (payload.kind === "curves" ? CurvesView : FramesView)(payload);
      this.picture = html("div", { role: "img", class: "bx-picture" }, this.view.node);
      this.live = html("div", { class: "bx-live", role: "status", "aria-live": "polite" });
      this.app = html("div", { class: "bx-app", role: "group", "aria-labelledby": id },
        rich(html("p", { class: "bx-title", id }), payload.title));
      if (payload.hint) this.app.append(rich(html("p", { class: "bx-hint" }), payload.hint));
      this.app.append(this.buildReadouts(), this.picture, this.buildControls(), this.live);
      this.append(this.app);
      this.classList.add("bx-ready");
      this.view.resize();
      this.refresh();
      this.describe();
      this.observe();
    }

    buildReadouts() {
      const list = html("dl", { class: "bx-readouts" });
      this.readouts = this.payload.readouts.map((spec) => {
        const value = html("dd", { class: `bx-role-${spec.role}` });
        list.append(html("div", {}, rich(html("dt"), spec.name), value));
        const transform = spec.log ? Math.log : (v) => v;
        const values = Float64Array.from(spec.values, (v) => (v === null ? NaN : transform(v)));
        return { spec, node: value, array: { shape: spec.shape, values, length: 1 } };
      });
      if (!this.readouts.length) list.hidden = true;
      return list;
    }

    buildControls() {
      const actions = html("div", { class: "bx-actions" });
      const playing = this.controls.find((c) => c.spec.name === this.payload.play);
      if (playing) {
        this.playButton = html("button",
          { type: "button", class: "bx-button bx-play" }, "Play");
        this.playButton.addEventListener("click", () =>
          this.timer ? this.pause() : this.play(playing));
        actions.append(this.playButton);
      }
      this.resetButton = html("button", { type: "button", class: "bx-button bx-reset" }, "Reset");
      this.resetButton.addEventListener("click", () => {
        this.pause();
        for (const control of this.controls) control.reset();
        this.request();
      });
      actions.append(this.resetButton);
      return html("div", { class: "bx-controls" },
        ...this.controls.map((control) => control.node), actions);
    }

    observe() {
      new ResizeObserver(() => {
        if (this.view.resize()) this.refresh();
      }).observe(this.picture);
      const retheme = () => {
        if (this.payload.kind === "frames") this.refresh();
      };
      new MutationObserver(retheme).observe(document.documentElement,
        { attributes: true, attributeFilter: ["data-theme", "class"] });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", retheme);
      this.calm = matchMedia("(prefers-reduced-motion: reduce)");
      this.calm.addEventListener("change", () => this.pause());
      // The room for labels was measured in whatever font was there at first.
      document.fonts?.addEventListener("loadingdone", () => {
        if (this.view.relayout()) this.refresh();
      });
    }

    request() {
      clearTimeout(this.announcement);
      this.announcement = setTimeout(() => this.describe(true), ANNOUNCE_AFTER);
      this.pending ??= requestAnimationFrame(() => {
        this.pending = undefined;
        this.refresh();
      });
    }

    refresh() {
      const corners = cornersOf(this.controls);
      this.view.draw(corners);
      for (const { spec, node, array } of this.readouts) {
        const mean = interpolate(array, corners)[0];
        const text = number(spec.log ? Math.exp(mean) : mean, spec.format);
        if (node.dataset.shown === text) continue;
        node.dataset.shown = text;
        rich(node, text);
        if (spec.unit) node.append(" ", rich(html("span", { class: "bx-unit" }), spec.unit));
      }
    }

    /* The sentence of the nearest grid point: on the picture, and aloud after a change. */
    describe(aloud = false) {
      const index = nearest(cornersOf(this.controls));
      const sizes = this.controls.map((c) => (c.spec.values ?? c.spec.options).length);
      const sentence = this.payload.alt[index.reduce((sum, i, k) => sum * sizes[k] + i, 0)];
      this.picture.setAttribute("aria-label", sentence);
      if (aloud && this.live.textContent !== sentence) this.live.textContent = sentence;
    }

    play(control) {
      if (this.calm.matches) return;
      if (control.value === control.values.at(-1)) control.set(control.values[0]);
      const from = control.position / TRACK;
      const begun = performance.now();
      this.playButton.textContent = "Pause";
      this.playButton.classList.add("bx-playing");
      const step = (now) => {
        const t = Math.min(from + (now - begun) / (1000 * PLAY_SECONDS), 1);
        control.set(control.fromTrack(TRACK * Math.max(t, from)));
        this.request();
        if (t < 1) this.timer = requestAnimationFrame(step);
        else this.pause();
      };
      this.timer = requestAnimationFrame(step);
    }

    pause() {
      if (!this.timer) return;
      cancelAnimationFrame(this.timer);
      this.timer = undefined;
      this.playButton.textContent = "Play";
      this.playButton.classList.remove("bx-playing");
    }

    disconnectedCallback() {
      this.pause();
    }
  }

  customElements.define("book-explorer", BookExplorer);
})();
