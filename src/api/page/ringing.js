// What rings, each as a card: what it is, where, since when and why again, and the place itself live, so that an operator
// sees before she answers. She answers straight from the card.

import { pressTime } from './calls.js';
import { h, icon, screen } from './dom.js';
import { badge } from './incident.js';
import { LiveView } from './live.js';
import { span, t } from './strings.js';

// More at a time would leave no line for any of them; a wall has room.
const AT_ONCE = () => (innerHeight > 1400 ? 6 : 3);
// The first card is the one that a bare Enter answers, but not one that has come up under the finger.
const SETTLED_MS = 700;

export class Ringing {
  #root;
  #acts;
  #cards = new Map();
  // The ids of the cards, the most urgent first.
  #order = [];
  #more = h('p', { class: 'more', role: 'status' });

  /** `acts`: `look(id)` opens an incident, `answer(id)` takes its call as well; `mayAnswer()` who watches. */
  constructor(root, acts) {
    this.#root = root;
    this.#acts = acts;
  }

  /** What a bare Enter would answer, or null. */
  get first() {
    const [id] = this.#order;
    const card = this.#cards.get(id);
    return card?.call && performance.now() - card.firstAt > SETTLED_MS ? id : null;
  }

  /** Shows the first of these (`Calls.ringing`), in their order. */
  show(ringing, calls) {
    const shown = ringing.slice(0, AT_ONCE());
    const ids = new Set(shown.map((one) => one.id));
    for (const id of [...this.#cards.keys()]) if (!ids.has(id)) this.#remove(id);
    for (const one of shown) this.#card(one, calls);
    this.#arrange(shown.map((one) => one.id));
    const more = ringing.length - shown.length;
    this.#more.textContent = more ? t('moreRing', { n: more }) : '';
    if (more) this.#root.append(this.#more);
    else this.#more.remove();
    this.#root.dataset.count = shown.length;
    this.#root.hidden = !shown.length;
  }

  /** Moves no more cards than it must, since a card that moves loses the focus. */
  #arrange(order) {
    if (order.join() === this.#order.join()) return;
    if (order.length && order[0] !== this.#order[0]) this.#cards.get(order[0]).firstAt = performance.now();
    this.#order = order;
    const focused = document.activeElement;
    let next = this.#root.firstElementChild;
    for (const { element } of order.map((id) => this.#cards.get(id))) {
      if (element === next) next = next.nextElementSibling;
      else this.#root.insertBefore(element, next);
    }
    if (this.#root.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** All cards anew, in the language of now. */
  translate() {
    for (const id of [...this.#cards.keys()]) this.#remove(id);
    this.#order = [];
  }

  #remove(id) {
    const { element, live } = this.#cards.get(id);
    live?.destroy();
    element.remove();
    this.#cards.delete(id);
  }

  #card({ id, incident, call }, calls) {
    let card = this.#cards.get(id);
    if (!card) {
      card = this.#add(id, (incident ?? call).button.name);
      this.#cards.set(id, card);
    }
    const told = incident ?? call;
    card.call = call;
    const key = JSON.stringify([told.kind, told.state, call && calls.why(call), call?.call.group, call?.call.rings, calls.mayAnswer]);
    if (card.key !== key) {
      card.key = key;
      const pressed = pressTime(told);
      const [again, group] = (call && calls.why(call)) ?? [];
      const why = [again && t(`again.${again}`, { group }), call && calls.isEscalated(call) && t('escalated', { group: call.call.group })].filter(Boolean).join(' ');
      card.line.replaceChildren(...badge({ state: 'recorded', ...told }).filter(Boolean), h('span', { class: 'age', 'data-age': pressed }, span(Date.now() - Date.parse(pressed))));
      card.why.textContent = why;
      card.why.hidden = !why;
      card.answer.hidden = !call || !calls.mayAnswer;
      card.element.classList.toggle('escalated', Boolean(call && calls.isEscalated(call)));
      card.element.classList.toggle('again', Boolean(again));
      card.look.setAttribute('aria-label', `${t('look')}: ${told.button.name}`);
      card.answer.setAttribute('aria-label', `${t('call.answer')}: ${told.button.name}`);
    }
    // The unit's own camera is the first; where there is none, the best of those nearby.
    const camera = call?.camera?.live ? call.camera : incident?.cameras.find((one) => one.live);
    if (camera && card.watches !== camera.live) this.#watch(card, camera);
    else if (!camera && !card.watches) card.message.textContent = incident ? t('noCamera') : t('waitingPictures');
  }

  #add(id, name) {
    const video = screen();
    const message = h('span', { class: 'message' });
    const place = h('span', { class: 'name' });
    const line = h('span', { class: 'line' });
    const why = h('span', { class: 'why' });
    const look = h('button', { type: 'button', class: 'look', onclick: () => this.#acts.look(id) }, h('span', { class: 'picture' }, video, message, place), line, h('b', {}, h('bdi', {}, name)), why);
    const answer = h('button', { type: 'button', class: 'answer', onclick: () => this.#acts.answer(id) }, icon('answer'), h('span', {}, t('call.answer')), h('kbd', { 'aria-hidden': 'true' }, 'A'));
    answer.setAttribute('aria-keyshortcuts', 'A');
    const element = h('article', { class: 'ring-card', 'data-id': id, 'aria-label': name }, look, answer);
    this.#root.append(element);
    return { element, video, message, place, line, why, look, answer, live: null, watches: null, key: '', firstAt: 0, call: null };
  }

  #watch(card, camera) {
    card.live?.destroy();
    card.watches = camera.live;
    card.place.replaceChildren(h('bdi', {}, camera.name));
    const say = (state, why) => {
      card.message.textContent = { waiting: t('waitingPictures'), lost: why || t('noLivePicture'), live: '' }[state];
      card.element.dataset.live = state;
    };
    card.live = new LiveView(card.video, camera.live, say);
  }
}
