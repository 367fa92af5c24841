// The list beside the map: open and closed incidents, buttons, cameras.

import { h, ltr } from './dom.js';
import { badge } from './incident.js';
import { clock, span, t } from './strings.js';
import { pressedAt } from './desk.js';

const $ = (id) => document.getElementById(id);
const NAMES = ['incidents', 'buttons', 'cameras'];
const EMPTY = { incidents: 'noIncidents', buttons: 'noButtons', cameras: 'noCameras' };

export class List {
  tab = 'incidents';
  #desk;
  #acts;

  /** `acts`: `choose(id)` an incident, `place(at)` on the map, `demo(path, body)`, `changed()` to draw. */
  constructor(desk, acts) {
    this.#desk = desk;
    this.#acts = acts;
  }

  show(tab) {
    this.tab = tab;
    $('list').scrollTop = 0;
    this.#acts.changed();
  }

  draw() {
    this.#tabs();
    const list = $('list');
    const focused = list.contains(document.activeElement) ? document.activeElement.closest('[data-id]')?.dataset.id : null;
    const wasDemo = document.activeElement?.classList.contains('demo-act');
    const fresh = this[`_${this.tab}`]();
    list.replaceChildren(...(fresh.length ? fresh : [h('p', { class: 'empty' }, t(EMPTY[this.tab]))]));
    const again = focused && fresh.find((one) => one.dataset.id === focused);
    if (again) again.querySelector(wasDemo ? '.demo-act' : '.pick')?.focus({ preventScroll: true });
  }

  /** Moves the focus up or down the list. */
  move(by) {
    const picks = [...$('list').querySelectorAll('.pick')];
    const here = picks.indexOf(document.activeElement);
    picks[here < 0 ? (by > 0 ? 0 : picks.length - 1) : Math.min(Math.max(here + by, 0), picks.length - 1)]?.focus();
  }

  /** Puts the focus on one of the list. */
  reveal(id) {
    const found = [...$('list').children].find((one) => one.dataset.id === id);
    found?.scrollIntoView({ block: 'nearest' });
    found?.querySelector('.pick')?.focus();
  }

  #tabs() {
    const counts = { incidents: this.#desk.open.length, buttons: this.#desk.buttons.size, cameras: this.#desk.cameras.size };
    const focused = $('tabs').contains(document.activeElement);
    $('tabs').replaceChildren(...NAMES.map((name) => h('button', { type: 'button', role: 'tab', id: `tab-${name}`, 'aria-controls': 'list', 'aria-selected': String(this.tab === name), tabIndex: this.tab === name ? 0 : -1, onclick: () => this.show(name), onkeydown: (event) => this.#tabKey(event) }, t(name), h('span', { class: `count ${name === 'incidents' && counts[name] ? 'hot' : ''}` }, String(counts[name])))));
    $('list').setAttribute('aria-labelledby', `tab-${this.tab}`);
    if (focused) $(`tab-${this.tab}`).focus();
  }

  #tabKey(event) {
    // Right is on, in the direction of reading.
    const on = document.documentElement.dir === 'rtl' ? -1 : 1;
    const move = { ArrowRight: on, ArrowLeft: -on }[event.key];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    this.show(NAMES[(NAMES.indexOf(this.tab) + move + 3) % 3]);
  }

  _incidents() {
    return this.#desk.queue.map((one) => row(one.id, one.id === this.#desk.chosen, `incident ${one.state} ${one.test ? 'is-test' : ''}`, () => this.#acts.choose(one.id), [
      h('span', { class: 'line' }, badge(one), h('span', { class: 'age', 'data-age': one.pressed_at.at }, span(Date.now() - pressedAt(one)))),
      h('b', {}, h('bdi', {}, one.button.name)),
      h('span', { class: 'line' }, h('span', { class: `stage ${one.state}` }, t(`state.${one.state}`)), this.#call(one), h('small', {}, [ltr(clock(one.pressed_at.at)), one.press_count > 1 && ` · ${t('presses', { n: one.press_count })}`])),
    ]));
  }

  /** What its call is at, in a word. */
  #call(incident) {
    const call = this.#desk.calls.of(incident.id)?.call;
    if (!call || call.state === 'ended' || incident.state === 'closed') return null;
    return h('span', { class: `chip call-chip ${call.state}` }, { ringing: t('call.ringing'), answered: call.speaker?.name ?? '', held: t('call.held'), lost: '!' }[call.state]);
  }

  _buttons() {
    return [...this.#desk.buttons.values()].map((one) => {
      const { presence = 'unknown', low_battery: low, tamper, status } = one.condition ?? {};
      const words = [t(`presence.${presence}`), low && t('lowBattery'), tamper && t('tampered'), status?.battery !== undefined && status?.battery !== null && t('battery', { n: Math.round(status.battery * 100) })].filter(Boolean);
      return row(one.id, false, `thing ${presence} ${low || tamper ? 'warned' : ''}`, () => this.#acts.place(one.at), this.#thing(one, words), this.#demo(t('demoPress'), `/demo/press/${encodeURIComponent(one.id)}`, {}));
    });
  }

  _cameras() {
    return [...this.#desk.cameras.values()].map((one) => row(one.id, false, `thing ${one.state}`, () => this.#acts.place(one.at), this.#thing(one, [t(`camera.${one.state}`), one.detail].filter(Boolean)), this.#demo(t(one.state === 'live' ? 'demoDown' : 'demoUp'), `/demo/camera/${encodeURIComponent(one.id)}`, { up: one.state !== 'live' })));
  }

  #thing = (one, words) => [h('b', {}, h('bdi', {}, one.name)), h('span', { class: 'line' }, h('span', { class: 'dot' }), h('small', {}, words.join(' · ')), h('small', { class: 'id' }, ltr(one.id)))];

  #demo = (text, path, body) => this.#desk.demo && h('button', { type: 'button', class: 'demo-act', onclick: () => this.#acts.demo(path, body) }, text);
}

function row(id, chosen, kind, act, inner, extra = null) {
  return h('div', { class: `row ${kind} ${chosen ? 'chosen' : ''}`, 'data-id': id }, h('button', { type: 'button', class: 'pick', 'aria-current': chosen && 'true', onclick: act }, inner), extra);
}
