// The time line of the evidence: what is held, gaps and presses, and the controls. It runs from left to right in every
// language, as media time does.

import { h, icon, ltr, setIcon } from './dom.js';
import { clock, span, t } from './strings.js';

export class TimeBar {
  #marksKey = '';
  #span = [0, 1];

  /** `acts`: `toggle`, `toPress`, `toLatest`, `mute` and `seek(wall)`. */
  constructor(acts) {
    const button = (key, act, sign) => h('button', { type: 'button', class: key, title: t(key), 'aria-label': t(key), onclick: act }, icon(sign));
    this.play = button('pause', acts.toggle, 'pause');
    this.muted = button('mute', acts.mute, 'speakerOff');
    this.time = h('output', { class: 'time' });
    this.range = h('input', { type: 'range', min: '0', max: '1000', value: '0', 'aria-label': t('scrub'), oninput: () => acts.seek(this.#fromBar(this.range.value)) });
    this.marks = h('div', { class: 'marks', 'aria-hidden': 'true' });
    this.root = h('div', { class: 'controls', dir: 'ltr' }, this.play, button('toPress', acts.toPress, 'flag'), h('div', { class: 'bar' }, this.marks, this.range), this.time, button('toLatest', acts.toLatest, 'latest'), this.muted);
  }

  /** Shows where `tiles` are in the evidence of `incident`. */
  show(incident, tiles) {
    this.root.hidden = !tiles.count;
    const pressed = Date.parse(incident.pressed_at.at);
    const asked = incident.evidence.flatMap((one) => [Date.parse(one.from), Date.parse(one.to)]);
    // What the bar spans: everything asked for, and everything held.
    const all = [...asked, ...tiles.range ?? []];
    this.#span = all.length ? [Math.min(...all), Math.max(...all)] : [pressed - 30000, pressed + 60000];
    setIcon(this.play, tiles.playing ? 'pause' : 'play');
    this.play.setAttribute('aria-label', t(tiles.playing ? 'pause' : 'play'));
    setIcon(this.muted, tiles.muted ? 'speakerOff' : 'speaker');
    this.muted.setAttribute('aria-pressed', String(!tiles.muted));
    this.#drawMarks(incident, tiles);
    if (tiles.showsNow) {
      this.time.replaceChildren(h('b', { class: 'live-now' }, t('liveNow')), ltr(clock(Date.now())));
      this.range.value = String(this.#toBar(Date.now()) * 1000);
      this.range.setAttribute('aria-valuetext', t('liveNow'));
      return;
    }
    const { moment } = tiles;
    if (moment === null) return;
    const offset = Math.round((moment - pressed) / 1000);
    const [sign, beyond] = [offset < 0 ? '−' : '+', Math.abs(offset)];
    const text = `${sign}${span(beyond * 1000)}`;
    // Minutes and seconds, which read alike in every language.
    this.time.replaceChildren(h('b', { dir: 'ltr' }, `${sign}${Math.floor(beyond / 60)}:${String(beyond % 60).padStart(2, '0')}`), ltr(clock(moment)));
    if (document.activeElement !== this.range || !this.range.matches(':active')) this.range.value = String(this.#toBar(moment) * 1000);
    this.range.setAttribute('aria-valuetext', `${text}, ${clock(moment)}`);
  }

  #toBar(wall) {
    const [from, to] = this.#span;
    return Math.min(Math.max((wall - from) / (to - from), 0), 1);
  }

  #fromBar(value) {
    const [from, to] = this.#span;
    return from + (Number(value) / 1000) * (to - from);
  }

  #drawMarks(incident, { main }) {
    const evidence = incident.evidence.find((one) => one.camera === main?.camera.id);
    const key = JSON.stringify([main?.camera.id, this.#span, main?.player?.held, evidence?.gaps, incident.presses.length]);
    if (key === this.#marksKey) return;
    this.#marksKey = key;
    const stretch = (kind, from, to, title = '') => {
      const mark = h('i', { class: kind, title });
      mark.style.left = `${this.#toBar(from) * 100}%`;
      mark.style.width = `${(this.#toBar(to) - this.#toBar(from)) * 100}%`;
      return mark;
    };
    this.marks.replaceChildren(
      ...(main?.player?.held ?? []).map(([from, to]) => stretch('held', from, to)),
      ...(evidence?.gaps ?? []).map((gap) => stretch('gap', Date.parse(gap.from), Date.parse(gap.to), t(`gap.${gap.reason}`))),
      ...incident.presses.map((press) => stretch('press', Date.parse(press.at), Date.parse(press.at), t('press'))),
    );
  }
}
