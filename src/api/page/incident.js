// The chosen incident: its steps, the evidence of all its cameras at one moment, the operator's actions, its history.

import { LiveView } from './live.js';
import { EvidencePlayer } from './player.js';
import { clock, span, t } from './strings.js';

const STEPS = ['recorded', 'delivered', 'seen', 'answered', 'dispatched', 'closed'];
const BEFORE_PRESS_MS = 5000;
const TICK_MS = 250;
// Pictures further apart than this are brought together again.
const DRIFT_MS = 350;

/** An element with properties (`class`, `on...`, `data-...`, `aria-...`, or the DOM's own) and children. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.className = value;
    else if (key.includes('-') || key === 'role' || key === 'for') element.setAttribute(key, value === true ? 'true' : value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';
const ICONS = {
  speaker: 'M3 6h3l4-3.500v11L6 10H3zM12 5.500a4 4 0 0 1 0 5M13.500 3.500a7 7 0 0 1 0 9', speakerOff: 'M3 6h3l4-3.500v11L6 10H3zM12 6l4 4M16 6l-4 4',
  bell: 'M3.500 11.500h9l-1.200-2V7a3.300 3.300 0 0 0-6.600 0v2.500zM6.800 13.500a1.300 1.300 0 0 0 2.400 0', bellOff: 'M3.500 11.500h9l-1.200-2V7a3.300 3.300 0 0 0-6.600 0v2.500zM2.500 2.500l11 11.500',
  play: 'M4.500 2.500v11l9-5.500z', pause: 'M4 3h2.500v10H4zM9.500 3H12v10H9.500z', flag: 'M4 14V2.500M4 3h8l-2.500 2.700L12 8.500H4z', latest: 'M3 3v10l6-5zM12 3v10',
};

/** A drawn icon; every font has not every picture. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, 'svg');
  drawing.setAttribute('viewBox', '0 0 17 16');
  drawing.setAttribute('class', 'icon');
  drawing.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  drawing.append(path);
  return drawing;
}

/** Puts an icon on a button, unless it is there. */
export function setIcon(button, name) {
  if (button.dataset.icon === name) return;
  button.dataset.icon = name;
  button.replaceChildren(icon(name));
}

/** Whether the gateway's disk has it: headquarters hears of a press even while the disk refuses it. */
const onDisk = (incident) => incident.state !== 'received';

/** When a step was proven, by the incident's own history. */
export function stepTime(incident, step) {
  if (step === 'recorded' && !onDisk(incident)) return null;
  const entry = incident.timeline.find((one) => new RegExp(`\\b${step}\\b`, 'i').test(one.what));
  if (entry) return entry.at;
  return step === 'recorded' ? incident.pressed_at.at : null;
}

/** The badge of an incident's kind, with its test mark. */
export const badge = (incident) => [
  h('span', { class: `kind ${incident.kind}` }, t(`kind.${incident.kind}`)),
  incident.test && h('span', { class: 'test-mark' }, t('test')),
  !onDisk(incident) && h('span', { class: 'unrecorded' }, t('notRecorded')),
];

/** The panel of one incident at a time. */
export class IncidentPanel {
  #root;
  #act;
  #onClose;
  #tiles = new Map();
  #main = null;
  #playing = true;
  #moment = null;
  #timer = null;
  // The pictures of now, over those of the evidence; any step back in time ends it.
  #live = false;
  #muted = true;

  /** `act(step)` does an operator's step on the shown incident. */
  constructor(root, { act, onClose }) {
    this.#root = root;
    this.#act = act;
    this.#onClose = onClose;
    this.incident = null;
  }

  /** Shows an incident, or its newer revision; `null` closes the panel. */
  show(incident) {
    if (incident?.id !== this.incident?.id) {
      this.#end();
      this.incident = incident;
      this.#root.hidden = !incident;
      if (!incident) return;
      this.#build();
      this.#live = incident.state !== 'closed';
      this.#timer = setInterval(() => this.#tick(), TICK_MS);
    }
    this.incident = incident;
    if (incident?.state === 'closed') this.#goLive(false);
    if (incident) this.#update();
  }

  toggle() {
    if (this.#live) this.#leaveLive();
    this.#playing = !this.#playing;
    this.#tick();
  }

  skip(ms) {
    if (this.#moment !== null) this.seek(this.#moment + ms);
  }

  toPress() {
    this.seek(this.#pressed);
  }

  /** To now: live where that can be had, else the latest evidence. */
  toLatest() {
    this.#playing = true;
    if (this.incident.state !== 'closed') this.#goLive(true);
    const ends = [...this.#tiles.values()].map(({ player }) => player?.range?.[1]).filter(Boolean);
    if (ends.length) this.#moveTo(Math.max(...ends) - 2000);
  }

  mute() {
    this.#muted = !this.#muted;
    this.#sound();
    this.#controls();
  }

  nextCamera() {
    const ids = [...this.#tiles.keys()];
    if (ids.length) this.#enlarge(ids[(ids.indexOf(this.#main) + 1) % ids.length]);
  }

  /** Goes to a wall time in all pictures. */
  seek(wall) {
    this.#goLive(false);
    this.#moveTo(wall);
  }

  #moveTo(wall) {
    this.#moment = wall;
    for (const { player } of this.#tiles.values()) player?.seek(wall);
    this.#tick();
  }

  get #pressed() {
    return Date.parse(this.incident.pressed_at.at);
  }

  #end() {
    clearInterval(this.#timer);
    for (const { player, live } of this.#tiles.values()) {
      player?.destroy();
      live?.destroy();
    }
    this.#tiles.clear();
    this.#main = null;
    this.#moment = null;
    this.#playing = true;
    this.#live = false;
    this.#muted = true;
  }

  /** Begins or ends the live pictures of all cameras. */
  #goLive(on) {
    if (this.#live === on) return;
    this.#live = on;
    for (const entry of this.#tiles.values()) this.#liveTile(entry);
    this.#sound();
  }

  /** Stops at what is shown: the evidence of this moment, as far as it has come. */
  #leaveLive() {
    const main = this.#tiles.get(this.#main);
    const latest = main?.player?.range?.[1];
    this.#goLive(false);
    if (latest) this.#moveTo(latest - 2000);
  }

  #liveTile(entry) {
    entry.live?.destroy();
    entry.live = null;
    entry.tile.classList.remove('is-live');
    if (!this.#live || !entry.camera.live) return;
    entry.live = new LiveView(entry.now, entry.camera.live, (state) => {
      entry.tile.classList.toggle('is-live', state === 'live');
      this.#sound();
    });
  }

  /** The large picture is heard, unless it is muted: the one that is seen of its two. */
  #sound() {
    for (const [id, { tile, video, now }] of this.#tiles) {
      const heard = id === this.#main && !this.#muted;
      const live = tile.classList.contains('is-live');
      video.muted = !heard || live;
      now.muted = !heard || !live;
    }
  }

  #build() {
    const button = (key, act, text) => h('button', { type: 'button', class: key, title: t(key), 'aria-label': t(key), onclick: act }, text);
    this.head = h('div', { class: 'head' });
    this.steps = h('ol', { class: 'steps' });
    this.tiles = h('div', { class: 'tiles' });
    this.play = button('pause', () => this.toggle(), icon('pause'));
    this.muted = button('mute', () => this.mute(), icon('speakerOff'));
    this.time = h('output', { class: 'time' });
    this.range = h('input', { type: 'range', min: '0', max: '1000', value: '0', 'aria-label': t('scrub'), oninput: () => this.seek(this.#fromBar(this.range.value)) });
    this.marks = h('div', { class: 'marks', 'aria-hidden': 'true' });
    this.bar = h('div', { class: 'bar' }, this.marks, this.range);
    this.controls = h('div', { class: 'controls' }, this.play, button('toPress', () => this.toPress(), icon('flag')), this.bar, this.time, button('toLatest', () => this.toLatest(), icon('latest')), this.muted);
    this.actions = h('div', { class: 'actions' });
    this.ranking = h('ol', { class: 'ranking' });
    this.history = h('ol', { class: 'history' });
    const section = (key, ...inner) => h('section', {}, h('h3', {}, t(key)), ...inner);
    this.#root.replaceChildren(this.head, this.steps, h('div', { class: 'scroll', tabIndex: 0 }, this.tiles, this.controls, section('linked', this.ranking), section('timeline', this.history)), this.actions);
    this.#root.setAttribute('aria-label', this.incident.button.name);
  }

  #update() {
    const { incident } = this;
    this.head.replaceChildren(
      h('div', { class: 'line' }, badge(incident), h('h2', {}, incident.button.name), h('button', { type: 'button', class: 'close', title: t('closePanel'), 'aria-label': t('closePanel'), onclick: () => this.#onClose() }, '✕')),
      h('div', { class: 'line muted' }, t('pressedAt', { time: clock(incident.pressed_at.at) }), ' · ', incident.press_count === 1 ? t('onePress') : t('presses', { n: incident.press_count }), !incident.pressed_at.clock_synchronised && ` · ${t('clockUnsure')}`, h('span', { class: 'id' }, incident.id.slice(-8))),
    );
    const furthest = STEPS.indexOf(incident.state);
    const steps = STEPS.filter((step) => step !== 'answered' || incident.call || incident.state === 'answered' || stepTime(incident, step));
    this.steps.replaceChildren(...steps.map((step) => {
      const at = stepTime(incident, step);
      const passed = STEPS.indexOf(step) <= furthest && (step !== 'recorded' || onDisk(incident));
      // A step left out (closed without dispatch) is passed, not done.
      const done = passed && (at || step === incident.state);
      return h('li', { class: done ? 'done' : passed ? 'skipped' : '', 'aria-current': step === incident.state && 'step' }, h('b', {}, t(`state.${step}`)), h('small', {}, at && done ? clock(at) : '–'));
    }));
    this.#cameras();
    this.#updateActions();
    this.ranking.replaceChildren(...incident.cameras.map((camera) => this.#rank(camera)));
    this.history.replaceChildren(...[...incident.timeline].reverse().map((entry) => h('li', {}, h('time', {}, clock(entry.at)), h('span', {}, entry.what), h('small', {}, entry.proof))));
    this.#drawMarks();
  }

  #updateActions() {
    const at = STEPS.indexOf(this.incident.state);
    const step = (name, state, key) => h('button', { type: 'button', class: `act ${name}`, disabled: at >= STEPS.indexOf(state), onclick: () => this.#act(name) }, t(`act.${name}`), h('kbd', {}, key));
    const focused = this.actions.contains(document.activeElement) ? document.activeElement.className : null;
    this.actions.replaceChildren(step('seen', 'seen', 'S'), step('dispatched', 'dispatched', 'D'), step('close', 'closed', 'C'));
    if (focused) [...this.actions.children].find((one) => one.className === focused && !one.disabled)?.focus();
  }

  #rank(camera) {
    const evidence = this.incident.evidence.find((one) => one.camera === camera.id);
    const state = !evidence ? t('notRecordedHere') : evidence.complete ? t('complete') : evidence.ended ? t('ended') : t('recording');
    return h('li', { class: camera.sees_button ? 'sees' : '' },
      h('button', { type: 'button', onclick: () => this.#enlarge(camera.id), disabled: !this.#tiles.has(camera.id) },
        h('b', {}, camera.name), camera.role === 'unit' && h('span', { class: 'chip' }, t('unit')), camera.sees_button && h('span', { class: 'chip good' }, t('seesButton')), h('span', { class: `chip ${evidence && !evidence.ended ? 'rec' : ''}` }, state), h('span', { class: 'distance' }, t('metres', { n: Math.round(camera.distance_m) })),
        h('small', {}, camera.reason)));
  }

  /** A tile for each camera of which evidence is kept. Tiles never move in the document: that would stop them. */
  #cameras() {
    const { incident } = this;
    for (const camera of incident.cameras) {
      if (this.#tiles.has(camera.id) || !camera.recorded) continue;
      const now = h('video', { class: 'now', muted: true, autoplay: true, playsInline: true, disableRemotePlayback: true, tabIndex: -1 });
      const video = h('video', { class: 'evidence', muted: true, autoplay: true, playsInline: true, disableRemotePlayback: true, tabIndex: -1 });
      const message = h('div', { class: 'message' });
      const tile = h('div', { class: 'tile', role: 'button', tabIndex: 0, 'aria-label': t('choose', { camera: camera.name }), 'data-camera': camera.id }, video, message, now, h('span', { class: 'live-mark' }, t('liveNow')), h('span', { class: 'name' }, camera.name), camera.role === 'unit' && h('span', { class: 'chip unit' }, t('unit')));
      tile.addEventListener('click', () => this.#enlarge(camera.id));
      tile.addEventListener('keydown', (event) => {
        if (event.key === 'Enter') this.#enlarge(camera.id);
      });
      this.tiles.append(tile);
      const entry = { tile, video, message, now, camera, player: null, live: null };
      this.#tiles.set(camera.id, entry);
      this.#liveTile(entry);
      const evidence = incident.evidence.find((one) => one.camera === camera.id);
      const from = evidence ? Date.parse(evidence.from) : this.#pressed - 30000;
      const path = camera.evidence?.endsWith('.m3u8') ? camera.evidence : `/v1/incidents/${incident.id}/cameras/${camera.id}/index.m3u8`;
      entry.player = new EvidencePlayer(video, path, { from, begin: this.#moment ?? this.#pressed - BEFORE_PRESS_MS, onState: (state) => this.#say(entry, camera, state) });
    }
    if (!this.#main && this.#tiles.size) this.#enlarge(this.#tiles.keys().next().value);
    this.tiles.dataset.count = this.#tiles.size;
    this.controls.hidden = !this.#tiles.size;
  }

  #say({ message }, camera, { kind, detail }) {
    const text = { waiting: t('waitingPictures'), playing: '', unsupported: t('cannotPlay', { codecs: detail }), failed: t('playFailed', { why: detail }) }[kind];
    message.replaceChildren(...[text, kind === 'unsupported' && h('a', { href: `/v1/incidents/${this.incident.id}/cameras/${camera.id}.mp4`, download: '' }, t('download'))].filter(Boolean));
    message.dataset.kind = kind;
  }

  #enlarge(id) {
    const tile = this.#tiles.get(id);
    if (!tile || id === this.#main) return;
    for (const [other, { tile: element }] of this.#tiles) element.classList.toggle('main', other === id);
    this.#main = id;
    this.#sound();
    this.#drawMarks();
  }

  /** Keeps all pictures at the moment of the large one. */
  #tick() {
    const main = this.#tiles.get(this.#main);
    if (!main) return;
    const position = main.player?.position;
    if (position !== null && position !== undefined) this.#moment = position;
    for (const [id, { video, player }] of this.#tiles) {
      if (video.readyState > 0 && video.paused === this.#playing && !video.ended) {
        if (this.#playing) video.play().catch(() => {});
        else video.pause();
      }
      const own = player?.position;
      if (id === this.#main || own === null || own === undefined || this.#moment === null || player.busy) continue;
      const [from, to] = player.range ?? [0, 0];
      if (this.#moment >= from && this.#moment < to - 400 && Math.abs(own - this.#moment) > DRIFT_MS) player.seek(this.#moment);
    }
    this.#controls();
  }

  #controls() {
    const main = this.#tiles.get(this.#main);
    setIcon(this.play, this.#playing ? 'pause' : 'play');
    this.play.setAttribute('aria-label', t(this.#playing ? 'pause' : 'play'));
    setIcon(this.muted, this.#muted ? 'speakerOff' : 'speaker');
    this.muted.setAttribute('aria-pressed', String(!this.#muted));
    this.#drawMarks();
    if (main?.tile.classList.contains('is-live')) {
      this.time.replaceChildren(h('b', { class: 'live-now' }, t('liveNow')), clock(Date.now()));
      this.range.value = String(this.#toBar(Date.now()) * 1000);
      this.range.setAttribute('aria-valuetext', t('liveNow'));
      return;
    }
    if (this.#moment === null) return;
    const offset = Math.round((this.#moment - this.#pressed) / 1000);
    const text = `${offset < 0 ? '−' : '+'}${span(Math.abs(offset) * 1000)}`;
    this.time.replaceChildren(h('b', {}, text), clock(this.#moment));
    if (document.activeElement !== this.range || !this.range.matches(':active')) this.range.value = String(this.#toBar(this.#moment) * 1000);
    this.range.setAttribute('aria-valuetext', `${text}, ${clock(this.#moment)}`);
  }

  /** What the bar spans: everything asked for, and everything held. */
  get #span() {
    const asked = this.incident.evidence.flatMap((one) => [Date.parse(one.from), Date.parse(one.to)]);
    const held = [...this.#tiles.values()].flatMap(({ player }) => player?.range ?? []);
    const all = [...asked, ...held];
    return all.length ? [Math.min(...all), Math.max(...all)] : [this.#pressed - 30000, this.#pressed + 60000];
  }

  #toBar(wall) {
    const [from, to] = this.#span;
    return Math.min(Math.max((wall - from) / (to - from), 0), 1);
  }

  #fromBar(value) {
    const [from, to] = this.#span;
    return from + (Number(value) / 1000) * (to - from);
  }

  #drawMarks() {
    const main = this.#tiles.get(this.#main);
    const evidence = this.incident.evidence.find((one) => one.camera === this.#main);
    const stretch = (kind, from, to, title = '') => {
      const mark = h('i', { class: kind, title });
      mark.style.left = `${this.#toBar(from) * 100}%`;
      mark.style.width = `${(this.#toBar(to) - this.#toBar(from)) * 100}%`;
      return mark;
    };
    const key = JSON.stringify([this.#main, this.#span, main?.player?.held, evidence?.gaps, this.incident.presses.length]);
    if (key === this.marksKey) return;
    this.marksKey = key;
    this.marks.replaceChildren(
      ...(main?.player?.held ?? []).map(([from, to]) => stretch('held', from, to)),
      ...(evidence?.gaps ?? []).map((gap) => stretch('gap', Date.parse(gap.from), Date.parse(gap.to), t(`gap.${gap.reason}`))),
      ...this.incident.presses.map((press) => stretch('press', Date.parse(press.at), Date.parse(press.at), t('press'))),
    );
  }
}
