// The district as a map: drawn from coordinates alone, north up. Metres east and south of its middle, on the sphere.

import { t } from './strings.js';

const SVG = 'http://www.w3.org/2000/svg';
const EARTH = 6371008.8;
// Sizes here are those of a page whose text is 14 px high.
const scale = () => parseFloat(getComputedStyle(document.documentElement).fontSize) / 14;
const rad = (deg) => deg * Math.PI / 180;

/** An SVG element with attributes and children. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Shapes carry the state, so that colour is not needed to tell it.
const CAMERA_BODY = 'M-6 -4.500h8v9h-8zM2 -1.500l5 -3v9l-5 -3z';
const MARKS = {
  stalled: 'M-3.500 -3v6M0 -3v6', connecting: 'M-4.500 0h1M-2.500 0h1M-.5 0h1', unreachable: 'M-5 -3.500l6 7M1 -3.500l-6 7',
  'wrong-password': 'M-2 -3v3.500M-2 2.500v.5', unusable: 'M-5 -3.500l6 7M1 -3.500l-6 7', live: '',
};

export class DistrictMap {
  #root;
  #items = new Map();
  #view = { x: 0, y: 0, k: 2 };
  #size = { w: 800, h: 600 };
  #middle = [0, 0];
  #fitted = false;
  #box = [-200, -200, 200, 200];
  #incidents = [];
  #chosen = null;
  #onChoose;
  #pending = false;
  #scaled = 1;

  constructor(root, onChoose) {
    this.#root = root;
    this.#onChoose = onChoose;
    this.svg = svg('svg', { tabindex: 0, role: 'group', direction: 'ltr' });
    this.layers = {};
    for (const name of ['grid', 'bounds', 'views', 'lines', 'cameras', 'buttons', 'labels']) {
      this.layers[name] = svg('g', { class: name });
      this.svg.append(this.layers[name]);
    }
    this.translate();
    this.#listen();
    new ResizeObserver(() => this.#resized()).observe(root);
  }

  /** Builds what has words around it anew, in the language of now; what stands in the district is placed anew by `place`. */
  translate() {
    this.svg.setAttribute('aria-label', t('map'));
    this.#root.replaceChildren(this.svg, this.#tools(), this.#rose(), this.#scale(), legend());
  }

  /** Sets what stands in the district; fits the view to it the first time. */
  place(district, buttons, cameras) {
    const places = [...buttons, ...cameras].map((one) => one.at);
    const corners = district.bounds ?? [];
    const all = places.length ? places : corners;
    if (!all.length) return;
    const [lats, lons] = [all.map((p) => p[0]), all.map((p) => p[1])];
    this.#middle = [(Math.min(...lats) + Math.max(...lats)) / 2, (Math.min(...lons) + Math.max(...lons)) / 2];
    const points = all.map((p) => this.#metres(p));
    const reach = 40 + Math.max(0, ...cameras.map((one) => Math.min(one.range ?? 0, 60)));
    this.#box = [Math.min(...points.map((p) => p[0])) - reach, Math.min(...points.map((p) => p[1])) - reach, Math.max(...points.map((p) => p[0])) + reach, Math.max(...points.map((p) => p[1])) + reach];
    this.#bounds(corners);
    for (const item of this.#items.values()) item.remove();
    this.#items.clear();
    cameras.forEach((one) => this.#items.set(`camera ${one.id}`, this.#camera(one)));
    buttons.forEach((one) => this.#items.set(`button ${one.id}`, this.#button(one)));
    if (!this.#fitted) this.fit();
    else this.#draw();
  }

  /** Shows a camera's state. */
  camera(id, state, detail) {
    this.#items.get(`camera ${id}`)?.state(state, detail);
  }

  /** Shows a button's condition. */
  button(id, condition) {
    this.#items.get(`button ${id}`)?.state(condition);
  }

  /** Shows the open incidents, and the chosen one with lines to its linked cameras. */
  incidents(open, chosen) {
    this.#incidents = open;
    this.#chosen = chosen;
    this.#draw();
  }

  /** Brings a place into the middle, near enough to see what stands around it. */
  show(at, metres = 160) {
    const [x, y] = this.#metres(at);
    // The panel beside may just have opened: measure when it has.
    requestAnimationFrame(() => requestAnimationFrame(() => {
      this.#resized();
      this.#view = { x, y, k: Math.min(this.#size.w, this.#size.h) / (metres * 2) };
      this.#draw();
    }));
  }

  fit() {
    const [left, top, right, bottom] = this.#box;
    const k = Math.min(this.#size.w / (right - left), (this.#size.h - 40) / (bottom - top));
    this.#view = { x: (left + right) / 2, y: (top + bottom) / 2, k: Math.min(k, 8) };
    this.#fitted = true;
    this.#draw();
  }

  zoom(factor, [px, py] = [this.#size.w / 2, this.#size.h / 2]) {
    const { x, y, k } = this.#view;
    const next = Math.min(Math.max(k * factor, 0.02), 40);
    const [wx, wy] = [x + (px - this.#size.w / 2) / k, y + (py - this.#size.h / 2) / k];
    this.#view = { x: wx - (px - this.#size.w / 2) / next, y: wy - (py - this.#size.h / 2) / next, k: next };
    this.#draw();
  }

  pan(dx, dy) {
    this.#view.x -= dx / this.#view.k;
    this.#view.y -= dy / this.#view.k;
    this.#draw();
  }

  #metres([lat, lon]) {
    return [rad(lon - this.#middle[1]) * EARTH * Math.cos(rad(this.#middle[0])), -rad(lat - this.#middle[0]) * EARTH];
  }

  #screen([x, y]) {
    const { x: cx, y: cy, k } = this.#view;
    return [(x - cx) * k + this.#size.w / 2, (y - cy) * k + this.#size.h / 2];
  }

  #bounds(corners) {
    this.layers.bounds.replaceChildren();
    if (corners.length !== 2) return;
    const [[x1, y1], [x2, y2]] = corners.map((p) => this.#metres(p));
    this.layers.bounds.append(svg('rect', { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1), 'vector-effect': 'non-scaling-stroke' }));
  }

  #camera(one) {
    const at = this.#metres(one.at);
    const sector = Number.isFinite(one.facing) && Number.isFinite(one.field_of_view) && one.field_of_view < 360;
    const view = svg('path', { d: sector ? sectorPath(at, one) : circlePath(at, one.range ?? 0), 'vector-effect': 'non-scaling-stroke' });
    const mark = svg('path', { class: 'mark' });
    const body = sector ? svg('path', { class: 'body', d: CAMERA_BODY }) : svg('circle', { class: 'body', r: 6 });
    const turned = svg('g', sector ? { transform: `rotate(${one.facing - 90})` } : {}, body);
    const title = svg('title');
    const marker = svg('g', { class: 'camera', 'data-id': one.id }, svg('circle', { class: 'touch', r: 13 }), turned, mark, title);
    marker.addEventListener('click', () => this.#onChoose('camera', one.id));
    this.layers.views.append(view);
    this.layers.cameras.append(marker);
    const item = {
      at, marker, text: one.name, kind: 'camera', id: one.id,
      state(state, detail) {
        marker.dataset.state = state;
        view.dataset.state = state;
        mark.setAttribute('d', MARKS[state] ?? '');
        title.textContent = `${one.name} · ${t(`camera.${state}`)}${detail ? ` · ${detail}` : ''}`;
      },
      view,
      remove() {
        view.remove();
        marker.remove();
      },
    };
    item.state(one.state, one.detail);
    return item;
  }

  #button(one) {
    const title = svg('title');
    const badge = svg('path', { class: 'badge' });
    const marker = svg('g', { class: 'button', 'data-id': one.id }, svg('circle', { class: 'pulse', r: 10 }), svg('circle', { class: 'touch', r: 13 }), svg('circle', { class: 'ring', r: 8 }), svg('circle', { class: 'core', r: 3.5 }), badge, title);
    marker.addEventListener('click', () => this.#onChoose('button', one.id));
    this.layers.buttons.append(marker);
    const item = {
      at: this.#metres(one.at), marker, text: one.name, kind: 'button', id: one.id,
      state(condition) {
        const presence = condition?.presence ?? 'unknown';
        marker.dataset.state = presence;
        marker.classList.toggle('low', Boolean(condition?.low_battery));
        marker.classList.toggle('tamper', Boolean(condition?.tamper));
        const slash = presence === 'silent' || presence === 'offline' ? 'M-6 6L6 -6' : '';
        badge.setAttribute('d', slash + (condition?.tamper ? 'M13 -13v6M13 -4.500v1' : condition?.low_battery ? 'M9 -14h8v5h-8zM17 -12.500h1.500v2h-1.500M10 -13h2v3h-2z' : ''));
        const words = [t(`presence.${presence}`), condition?.low_battery && t('lowBattery'), condition?.tamper && t('tampered')].filter(Boolean);
        title.textContent = `${one.name} · ${words.join(' · ')}`;
      },
      remove() {
        marker.remove();
      },
    };
    item.state(one.condition);
    return item;
  }

  #draw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      this.#drawNow();
    });
  }

  #drawNow() {
    this.#scaled = scale();
    const { k } = this.#view;
    const [ox, oy] = this.#screen([0, 0]);
    const world = `translate(${ox} ${oy}) scale(${k})`;
    this.layers.views.setAttribute('transform', world);
    this.layers.bounds.setAttribute('transform', world);
    for (const item of this.#items.values()) {
      const [x, y] = this.#screen(item.at);
      item.marker.setAttribute('transform', `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${this.#scaled})`);
    }
    this.#drawIncidents();
    this.#drawGrid();
    this.#drawScale();
    this.#drawLabels();
  }

  #drawIncidents() {
    const pressed = new Map(this.#incidents.map((one) => [one.button.id, one]));
    const linked = new Map((this.#chosen?.cameras ?? []).filter((one) => one.role !== 'unit').map((one, i) => [one.id, { ...one, rank: i + 1 }]));
    this.layers.lines.replaceChildren();
    const from = this.#chosen && this.#items.get(`button ${this.#chosen.button.id}`);
    for (const item of this.#items.values()) {
      if (item.kind === 'button') {
        item.marker.classList.toggle('pressed', pressed.has(item.id));
        item.marker.classList.toggle('test', pressed.get(item.id)?.test ?? false);
        item.marker.classList.toggle('chosen', item.id === this.#chosen?.button.id);
        continue;
      }
      const link = linked.get(item.id);
      item.marker.classList.toggle('linked', Boolean(link));
      item.view.classList.toggle('linked', Boolean(link));
      if (!link || !from) continue;
      const [[x1, y1], [x2, y2]] = [this.#screen(from.at), this.#screen(item.at)];
      this.layers.lines.append(
        svg('line', { x1, y1, x2, y2, class: link.sees_button ? 'sees' : '' }),
        svg('g', { class: 'rank', transform: `translate(${x2 + 12 * this.#scaled} ${y2 - 12 * this.#scaled}) scale(${this.#scaled})` }, svg('circle', { r: 8 }), Object.assign(svg('text', { y: 3.5 }), { textContent: link.rank })),
      );
    }
  }

  #drawGrid() {
    const step = nice(90 / this.#view.k);
    const { w, h } = this.#size;
    const [left, top] = [this.#view.x - w / 2 / this.#view.k, this.#view.y - h / 2 / this.#view.k];
    let d = '';
    for (let x = Math.ceil(left / step) * step; x < left + w / this.#view.k; x += step) d += `M${this.#screen([x, 0])[0].toFixed(1)} 0v${h}`;
    for (let y = Math.ceil(top / step) * step; y < top + h / this.#view.k; y += step) d += `M0 ${this.#screen([0, y])[1].toFixed(1)}h${w}`;
    this.layers.grid.replaceChildren(svg('path', { d }));
  }

  #drawScale() {
    const metres = nice(110 / this.#view.k);
    this.bar.setAttribute('d', `M1 4v6h${(metres * this.#view.k).toFixed(1)}v-6`);
    this.barText.textContent = metres >= 1000 ? `${metres / 1000} km` : `${metres} m`;
    this.barText.setAttribute('x', (metres * this.#view.k) / 2);
  }

  /** Labels, the most important first; one that would cover another stays away. */
  #drawLabels() {
    const weight = (item) => (item.marker.classList.contains('chosen') ? 0 : item.marker.classList.contains('pressed') ? 1 : item.marker.classList.contains('linked') ? 2 : item.kind === 'button' ? 3 : 4);
    const taken = [];
    const labels = [];
    const inView = [...this.#items.values()].map((item) => ({ item, at: this.#screen(item.at), weight: weight(item) }))
      .filter(({ at: [x, y], weight: w }) => x > -20 && y > -20 && x < this.#size.w + 20 && y < this.#size.h + 20 && (w < 3 || this.#view.k > (w === 3 ? 0.25 : 1.2)));
    const z = this.#scaled;
    inView.forEach(({ at: [x, y] }) => taken.push([x - 9 * z, y - 9 * z, x + 9 * z, y + 9 * z]));
    inView.sort((a, b) => a.weight - b.weight);
    for (const { item, at: [x, y], weight: w } of inView) {
      const half = (item.text.length * 3.1 + 5) * z;
      const spots = [[x - half, y + 12 * z], [x - half, y - 27 * z], [x + 13 * z, y - 8 * z], [x - 2 * half - 13 * z, y - 8 * z]];
      const box = spots.map(([l, top]) => [l, top, l + 2 * half, top + 15 * z]).find((b) => !taken.some((o) => b[0] < o[2] && b[2] > o[0] && b[1] < o[3] && b[3] > o[1]));
      if (!box) continue;
      taken.push(box);
      labels.push(Object.assign(svg('text', { x: (box[0] + box[2]) / 2, y: box[1] + 11 * z, class: w < 2 ? 'label alarm' : `label ${item.kind}` }), { textContent: item.text }));
    }
    this.layers.labels.replaceChildren(...labels);
  }

  #resized() {
    const { clientWidth: w, clientHeight: h } = this.#root;
    if (!w || !h) return;
    this.#size = { w, h };
    this.svg.setAttribute('viewBox', `0 0 ${w} ${h}`);
    this.#draw();
  }

  #listen() {
    let last = null;
    this.svg.addEventListener('wheel', (event) => {
      event.preventDefault();
      const { left, top } = this.svg.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY / 400), [event.clientX - left, event.clientY - top]);
    }, { passive: false });
    this.svg.addEventListener('pointerdown', (event) => { last = { at: [event.clientX, event.clientY], moved: false }; });
    this.svg.addEventListener('pointermove', (event) => {
      if (!last || !event.buttons) return;
      const [dx, dy] = [event.clientX - last.at[0], event.clientY - last.at[1]];
      if (!last.moved && Math.hypot(dx, dy) < 4) return;
      if (!last.moved) this.svg.setPointerCapture(event.pointerId);
      last = { at: [event.clientX, event.clientY], moved: true };
      this.pan(dx, dy);
    });
    this.svg.addEventListener('pointerup', () => { last = null; });
    this.svg.addEventListener('keydown', (event) => {
      const step = 60;
      const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (!moves[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      this.pan(...moves[event.key]);
    });
  }

  #tools() {
    const box = document.createElement('div');
    box.className = 'map-tools';
    for (const [text, key, act] of [['+', 'zoomIn', () => this.zoom(1.5)], ['−', 'zoomOut', () => this.zoom(1 / 1.5)], ['⤢', 'fit', () => this.fit()]]) {
      const button = Object.assign(document.createElement('button'), { type: 'button', textContent: text, title: t(key) });
      button.setAttribute('aria-label', t(key));
      button.addEventListener('click', act);
      box.append(button);
    }
    return box;
  }

  #rose() {
    return svg('svg', { class: 'rose', viewBox: '-16 -22 32 40', 'aria-hidden': 'true' }, svg('path', { d: 'M0 -8L7 14L0 9L-7 14Z' }), Object.assign(svg('text', { y: -11 }), { textContent: t('north') }));
  }

  #scale() {
    this.bar = svg('path', { fill: 'none' });
    this.barText = svg('text', { y: 2 });
    return svg('svg', { class: 'scale', viewBox: '0 -10 200 24', 'aria-hidden': 'true' }, this.bar, this.barText);
  }
}

function legend() {
  const box = Object.assign(document.createElement('div'), { className: 'legend' });
  box.setAttribute('aria-label', t('legend'));
  const entry = (drawing, text) => {
    const line = document.createElement('span');
    line.append(svg('svg', { viewBox: '-11 -11 22 22', 'aria-hidden': 'true' }, drawing), text);
    box.append(line);
  };
  const camera = (state) => svg('g', { class: 'camera', 'data-state': state }, svg('path', { class: 'body', d: CAMERA_BODY }), svg('path', { class: 'mark', d: MARKS[state] }));
  const button = (state, extra = '', d = '') => svg('g', { class: `button ${extra}`, 'data-state': state }, svg('circle', { class: 'ring', r: 8 }), svg('circle', { class: 'core', r: 3.5 }), svg('path', { class: 'badge', d }));
  entry(button('online'), t('presence.online'));
  entry(button('silent', '', 'M-6 6L6 -6'), t('presence.silent'));
  entry(camera('live'), t('camera.live'));
  entry(camera('stalled'), t('camera.stalled'));
  entry(camera('unreachable'), t('camera.unreachable'));
  return box;
}

function sectorPath([x, y], { facing, field_of_view: width, range = 0 }) {
  const end = (deg) => `${(x + range * Math.sin(rad(deg))).toFixed(2)} ${(y - range * Math.cos(rad(deg))).toFixed(2)}`;
  return `M${x} ${y}L${end(facing - width / 2)}A${range} ${range} 0 ${width > 180 ? 1 : 0} 1 ${end(facing + width / 2)}Z`;
}

const circlePath = ([x, y], r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;

/** The largest of 1, 2, 5 times a power of ten that is not above `metres`. */
function nice(metres) {
  const power = 10 ** Math.floor(Math.log10(metres));
  return power * ([5, 2, 1].find((one) => one * power <= metres) ?? 1);
}
