// The chosen incident: its steps, its call, the pictures of all its cameras, the operator's actions, its history.

import { CallBar } from './callbar.js';
import { fill, h, ltr } from './dom.js';
import { clock, history, t } from './strings.js';
import { Tiles } from './tiles.js';
import { TimeBar } from './timebar.js';

const STEPS = ['recorded', 'delivered', 'seen', 'answered', 'dispatched', 'closed'];
const TICK_MS = 250;

/** Whether the gateway's disk has it: headquarters hears of a press even while the disk refuses it. */
const onDisk = (incident) => incident.state !== 'received';

/** When a step was proven, by the incident's own history. */
export function stepTime(incident, step) {
  if (step === 'recorded' && !onDisk(incident)) return null;
  // That nobody answered is no answer.
  const words = step === 'answered' ? /^answered\b/i : new RegExp(`\\b${step}\\b`, 'i');
  const entry = incident.timeline.find((one) => words.test(one.what));
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
  #calls;
  #board;
  #timer = null;

  /** `act(step)` does an operator's step on the shown incident; calls are those of `calls`, by `board`. */
  constructor(root, { act, onClose, calls, board }) {
    this.#root = root;
    this.#act = act;
    this.#onClose = onClose;
    this.#calls = calls;
    this.#board = board;
    this.tiles = new Tiles(() => this.#controls());
    this.callbar = new CallBar(h('div', { class: 'call' }), calls, board);
    this.incident = null;
  }

  /** Shows an incident, or its newer revision; `null` closes the panel. */
  show(incident) {
    if (incident?.id !== this.incident?.id) {
      clearInterval(this.#timer);
      this.tiles.end();
      this.incident = incident;
      this.#root.hidden = !incident;
      if (!incident) return;
      this.#build();
      this.tiles.begin(incident, incident.state !== 'closed');
      this.#timer = setInterval(() => this.#tick(), TICK_MS);
    }
    this.incident = incident;
    if (incident) this.#update();
  }

  /** Builds it anew, in the language of now. */
  translate() {
    const { incident } = this;
    this.callbar.translate();
    this.show(null);
    this.show(incident);
  }

  toggle() {
    if (this.tiles.showsNow) this.#leaveLive();
    this.tiles.playing = !this.tiles.playing;
    this.#tick();
  }

  skip(ms) {
    if (this.tiles.moment !== null) this.seek(this.tiles.moment + ms);
  }

  toPress() {
    this.seek(Date.parse(this.incident.pressed_at.at));
  }

  /** To now: live where that can be had, else the latest evidence. */
  toLatest() {
    this.tiles.playing = true;
    if (this.incident.state !== 'closed') this.tiles.goLive(true);
    if (this.tiles.range) this.#moveTo(this.tiles.range[1] - 2000);
  }

  mute() {
    this.tiles.muted = !this.tiles.muted;
    this.tiles.sound();
    this.#controls();
  }

  nextCamera() {
    this.tiles.next();
  }

  /** Goes to a wall time in all pictures. */
  seek(wall) {
    this.tiles.goLive(false);
    this.#moveTo(wall);
  }

  #moveTo(wall) {
    this.tiles.moveTo(wall);
    this.#tick();
  }

  /** Stops at what is shown: the evidence of this moment, as far as it has come. */
  #leaveLive() {
    const latest = this.tiles.main?.player?.range?.[1];
    this.tiles.goLive(false);
    if (latest) this.#moveTo(latest - 2000);
  }

  #build() {
    this.head = h('div', { class: 'head' });
    this.steps = h('ol', { class: 'steps', 'aria-label': t('step') });
    this.timebar = new TimeBar({ toggle: () => this.toggle(), toPress: () => this.toPress(), toLatest: () => this.toLatest(), mute: () => this.mute(), seek: (wall) => this.seek(wall) });
    this.actions = h('div', { class: 'actions' });
    this.ranking = h('ol', { class: 'ranking' });
    this.history = h('ol', { class: 'history' });
    const section = (key, ...inner) => h('section', {}, h('h3', {}, t(key)), ...inner);
    this.#root.replaceChildren(this.head, this.steps, this.callbar.root, h('div', { class: 'scroll', tabIndex: 0, role: 'group', 'aria-label': t('evidence') }, h('div', { class: 'watch' }, this.tiles.root, this.timebar.root), h('div', { class: 'notes' }, section('linked', this.ranking), section('timeline', this.history))), this.actions);
    this.#root.setAttribute('aria-label', this.incident.button.name);
  }

  #update() {
    const { incident } = this;
    const focused = this.head.contains(document.activeElement);
    const drawn = fill(this.head,
      h('div', { class: 'line' }, badge(incident), h('h2', {}, h('bdi', {}, incident.button.name)), h('button', { type: 'button', class: 'close', title: t('closePanel'), 'aria-label': t('closePanel'), onclick: () => this.#onClose() }, '✕')),
      h('div', { class: 'line muted' }, [t('pressedAt', { time: clock(incident.pressed_at.at) }), incident.press_count === 1 ? t('onePress') : t('presses', { n: incident.press_count }), !incident.pressed_at.clock_synchronised && t(incident.pressed_at.clock_correction ? 'clockCorrected' : 'clockUnsure')].filter(Boolean).join(' · '), ltr(incident.id.slice(-8), { class: 'id' })),
    );
    if (drawn && focused) this.head.querySelector('.close').focus();
    this.#drawSteps();
    this.callbar.show(incident.id);
    this.tiles.show(incident, this.#calls.of(incident.id), this.#board.isIn(incident.id) ? this.#board.call : null);
    this.#updateActions();
    this.#drawRanking();
    fill(this.history, ...[...incident.timeline].reverse().map((entry) => h('li', {}, h('time', {}, ltr(clock(entry.at))), h('span', {}, h('bdi', {}, history(entry.what))), h('small', {}, h('bdi', {}, entry.proof)))));
    this.#controls();
  }

  #drawSteps() {
    const { incident } = this;
    const furthest = STEPS.indexOf(incident.state);
    const called = incident.call || this.#calls.of(incident.id);
    const steps = STEPS.filter((step) => step !== 'answered' || called || incident.state === 'answered' || stepTime(incident, step));
    fill(this.steps, ...steps.map((step) => {
      const at = stepTime(incident, step);
      const passed = STEPS.indexOf(step) <= furthest && (step !== 'recorded' || onDisk(incident));
      // A step left out (closed without dispatch) is passed, not done.
      const done = passed && (at || step === incident.state);
      return h('li', { class: done ? 'done' : passed ? 'skipped' : '', 'aria-current': step === incident.state && 'step' }, h('b', {}, t(`state.${step}`)), h('small', {}, at && done ? ltr(clock(at)) : '–'));
    }));
  }

  #updateActions() {
    const at = STEPS.indexOf(this.incident.state);
    const step = (name, state, key) => h('button', { type: 'button', class: `act ${name}`, disabled: at >= STEPS.indexOf(state), 'aria-keyshortcuts': key, onclick: () => this.#act(name) }, t(`act.${name}`), h('kbd', { 'aria-hidden': 'true' }, key));
    const focused = this.actions.contains(document.activeElement) ? document.activeElement.className : null;
    if (fill(this.actions, step('seen', 'seen', 'S'), step('dispatched', 'dispatched', 'D'), step('close', 'closed', 'C')) && focused) [...this.actions.children].find((one) => one.className === focused && !one.disabled)?.focus();
  }

  #drawRanking() {
    const focused = this.ranking.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    if (fill(this.ranking, ...this.incident.cameras.map((camera) => this.#rank(camera))) && focused) this.ranking.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  #rank(camera) {
    const evidence = this.incident.evidence.find((one) => one.camera === camera.id);
    const state = !evidence ? t('notRecordedHere') : evidence.complete ? t('complete') : evidence.ended ? t('ended') : t('recording');
    return h('li', { class: camera.sees_button ? 'sees' : '' },
      h('button', { type: 'button', 'data-id': camera.id, onclick: () => this.tiles.enlarge(camera.id), disabled: !this.tiles.has(camera.id) },
        h('b', {}, h('bdi', {}, camera.name)), camera.role === 'unit' && h('span', { class: 'chip unit' }, t('unit')), camera.sees_button && h('span', { class: 'chip good' }, t('seesButton')), h('span', { class: `chip ${evidence && !evidence.ended ? 'rec' : ''}` }, state), h('span', { class: 'distance' }, t('metres', { n: Math.round(camera.distance_m) })),
        h('small', {}, h('bdi', {}, camera.reason))));
  }

  #tick() {
    this.tiles.tick();
    this.#controls();
  }

  #controls() {
    if (this.incident && this.timebar) this.timebar.show(this.incident, this.tiles);
  }
}
