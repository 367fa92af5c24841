// Incidents that nobody has seen yet, each as a card that rings: what it is, where, since when, and the place itself live, so
// that an operator sees before she answers.

import { badge, h } from './incident.js';
import { LiveView } from './live.js';
import { span, t } from './strings.js';

// More at a time would leave no line for any of them.
const AT_ONCE = 3;

export class Ringing {
  #root;
  #choose;
  #cards = new Map();

  /** `choose(id)` opens an incident. */
  constructor(root, choose) {
    this.#root = root;
    this.#choose = choose;
  }

  /** Shows the first of these, the most urgent first. Cards that stay are not moved: that would stop their pictures. */
  show(incidents) {
    const shown = incidents.slice(0, AT_ONCE);
    const ids = new Set(shown.map((one) => one.id));
    for (const [id, card] of this.#cards) {
      if (ids.has(id)) continue;
      card.live?.destroy();
      card.element.remove();
      this.#cards.delete(id);
    }
    for (const incident of shown) {
      if (!this.#cards.has(incident.id)) this.#add(incident);
    }
    this.#root.hidden = !shown.length;
  }

  #add(incident) {
    // The unit's own camera is the first; where there is none, the best of those nearby.
    const camera = incident.cameras.find((one) => one.live);
    const video = h('video', { muted: true, autoplay: true, playsInline: true, disableRemotePlayback: true, tabIndex: -1 });
    const message = h('span', { class: 'message' });
    const picture = camera && h('span', { class: 'picture' }, video, message, h('span', { class: 'name' }, camera.name));
    const element = h('button', { type: 'button', class: 'ring-card', 'data-id': incident.id, onclick: () => this.#choose(incident.id) },
      picture,
      h('span', { class: 'line' }, badge(incident), h('span', { class: 'age', 'data-age': incident.pressed_at.at }, span(Date.now() - Date.parse(incident.pressed_at.at)))),
      h('b', {}, incident.button.name));
    this.#root.append(element);
    const say = (state, why) => {
      message.textContent = { waiting: t('waitingPictures'), lost: why || t('noLivePicture'), live: '' }[state];
      element.dataset.live = state;
    };
    const live = camera ? new LiveView(video, camera.live, say) : null;
    this.#cards.set(incident.id, { element, live });
  }
}
