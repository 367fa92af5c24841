// How the page draws an operator's attention while something rings: sound, the title, the icon of the tab, and a notification
// when the page is in the background.

import { t } from './strings.js';

const KEY = 'chowki-sound';
const EVERY_MS = 3000;
const ICON = '/page/icon.svg';
const RINGING_ICON = '/page/icon-ringing.svg';

let audio = null;
// A browser is silent until the page has been touched once.
for (const touch of ['pointerdown', 'keydown']) addEventListener(touch, () => audio?.resume().catch(() => {}), { capture: true });

/** Plays tones of those pitches one after another. */
function tones(pitches, loudness) {
  audio ??= new AudioContext();
  if (audio.state !== 'running') return;
  pitches.forEach((pitch, i) => {
    const tone = new OscillatorNode(audio, { frequency: pitch });
    const level = new GainNode(audio, { gain: loudness });
    tone.connect(level).connect(audio.destination);
    tone.onended = () => level.disconnect();
    tone.start(audio.currentTime + i * 0.18);
    tone.stop(audio.currentTime + i * 0.18 + 0.14);
  });
}

export class Alarm {
  #ringing = [];
  #escalated = false;
  #talking = false;
  #title = 'chowki';
  #flash = false;
  #last = -Infinity;
  #notes = new Map();

  /** `look(id)` opens an incident, from its notification. */
  constructor(look) {
    this.look = look;
    setInterval(() => this.#tick(), 1000);
  }

  static get sound() {
    return localStorage.getItem(KEY) !== 'off';
  }

  static set sound(on) {
    localStorage.setItem(KEY, on ? 'on' : 'off');
  }

  /** Whether a browser can show notifications and has not been asked yet. */
  static get mayAsk() {
    return 'Notification' in window && Notification.permission === 'default';
  }

  /** Asks; only from the press of a button. */
  static ask = () => Notification.requestPermission();

  /** Whether something rings that cannot be heard before the page has been touched. */
  get unheard() {
    return Boolean(this.#ringing.length) && Alarm.sound && audio?.state === 'suspended';
  }

  /**
   * `ringing`: `{ id, kind, button }` of what rings. `talking`: this operator is in a call, and is not to be shouted down.
   * `title`: what the tab says otherwise; `count`: how many wait for somebody to see them.
   */
  show(ringing, { escalated, talking, title, count }) {
    const fresh = ringing.filter((one) => !this.#ringing.some((other) => other.id === one.id));
    for (const [id, note] of this.#notes) {
      if (ringing.some((one) => one.id === id)) continue;
      note.close();
      this.#notes.delete(id);
    }
    fresh.forEach((one) => this.#notify(one));
    Object.assign(this, { count });
    this.#ringing = ringing;
    [this.#escalated, this.#talking, this.#title] = [escalated, talking, title];
    const icon = document.querySelector('link[rel=icon]');
    const wanted = ringing.length ? RINGING_ICON : ICON;
    if (icon.getAttribute('href') !== wanted) icon.href = wanted;
    if (fresh.length) this.#last = -Infinity;
    this.#tick(Boolean(fresh.length));
  }

  #tick(now = true) {
    const [first] = this.#ringing;
    this.#flash = Boolean(first) && !this.#flash;
    const before = this.count ? `(${this.count}) ` : '';
    const title = before + (this.#flash ? `● ${t('newIncident', { kind: t(`kind.${first.kind}`), button: first.button.name })}` : this.#title);
    if (document.title !== title) document.title = title;
    if (!first || !now || !Alarm.sound || performance.now() - this.#last < EVERY_MS - 100) return;
    this.#last = performance.now();
    // Who talks hears that something waits; who does not is called.
    if (this.#talking) tones([660], 0.05);
    else tones(this.#escalated ? [880, 1100, 880, 1100, 880, 1100] : [660, 880, 1100], this.#escalated ? 0.22 : 0.15);
  }

  #notify({ id, kind, button }) {
    if (!document.hidden || !('Notification' in window) || Notification.permission !== 'granted') return;
    const note = new Notification(t('newIncident', { kind: t(`kind.${kind}`), button: button.name }), { body: t('ringing'), tag: id, icon: ICON, requireInteraction: true, dir: document.documentElement.dir, lang: document.documentElement.lang });
    note.onclick = () => {
      focus();
      this.look(id);
      note.close();
    };
    this.#notes.set(id, note);
  }
}
