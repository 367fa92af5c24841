// The call of the chosen incident: its state in words and colour, who has the floor and who listens, and what can be done.

import { h, setIcon } from './dom.js';
import { clock, span, t } from './strings.js';

// Speech that ended so long ago still counts as going on: the gateway tells of it in stretches.
const SPEAKS_MS = 1500;

export class CallBar {
  #board;
  #calls;
  #incident = null;
  #buttons = new Map();

  /** In `root`, for the calls of `board` (a `Switchboard`). */
  constructor(root, calls, board) {
    this.root = root;
    this.#calls = calls;
    this.#board = board;
    this.translate();
  }

  /** Draws all anew, in the language of now. */
  translate() {
    const button = (name, key, act, tone = '') => {
      const text = h('span', {});
      const sign = h('span', { class: 'sign' });
      const one = h('button', { type: 'button', class: `call-act ${name} ${tone}`, onclick: act }, sign, text, h('kbd', { 'aria-hidden': 'true' }, key));
      one.setAttribute('aria-keyshortcuts', key);
      this.#buttons.set(name, { one, text, sign });
      return one;
    };
    const board = this.#board;
    const here = (act) => () => act(this.#incident);
    this.#buttons.clear();
    this.word = h('b', { class: 'word' });
    this.since = h('span', { class: 'age' });
    this.note = h('p', { class: 'note', role: 'status' });
    this.who = h('p', { class: 'who' });
    this.level = h('meter', { class: 'level', min: 0, max: 1, low: 0.15, high: 0.95, optimum: 0.5, value: 0, 'aria-label': t('call.level') });
    this.acts = h('div', { class: 'call-acts', role: 'toolbar', 'aria-label': t('call.name') },
      button('answer', 'A', here(board.answer), 'go'), button('listen', 'I', here(board.listen)), this.#talk(button), this.level,
      button('hold', 'H', here((id) => board.hold(id))), button('handOver', 'O', here((id) => board.handOver(id))), button('take', 'F', here((id) => board.take(id))), button('lens', 'K', here((id) => board.showLens(id))), button('hangUp', 'X', here((id) => board.hangUp(id)), 'stop'));
    this.root.replaceChildren(h('div', { class: 'call-line' }, h('span', { class: 'lamp', 'aria-hidden': 'true' }), this.word, this.since, this.who), this.note, this.acts);
    this.root.setAttribute('role', 'region');
    this.root.setAttribute('aria-label', t('call.name'));
    if (this.#incident) this.show(this.#incident);
  }

  /** Shows the call of an incident; without one the bar is away. */
  show(incident) {
    this.#incident = incident;
    const told = incident && this.#calls.of(incident);
    this.root.hidden = !told;
    if (!told) return;
    const mine = this.#board.isIn(incident) ? this.#board.call : null;
    const floor = this.#board.hasFloor(incident);
    const { tone, words, since } = this.#state(told, mine, floor);
    this.root.dataset.tone = tone;
    this.root.dataset.state = told.call.state;
    this.root.dataset.connection = mine?.state ?? 'none';
    set(this.word, words);
    this.since.dataset.age = since;
    set(this.since, span(Date.now() - Date.parse(since)));
    this.since.title = t('since', { time: clock(since) });
    this.#people(told, mine, floor);
    set(this.note, this.#note(told, mine, floor));
    this.note.hidden = !this.note.textContent;
    this.#offer(told, mine, floor);
  }

  /** How loud the microphone is, 0 to 1. */
  showLevel(level) {
    this.level.value = level;
    if (this.#incident) set(this.note, this.#note(this.#calls.of(this.#incident), this.#board.isIn(this.#incident) ? this.#board.call : null, this.#board.hasFloor(this.#incident)));
    this.note.hidden = !this.note.textContent;
  }

  #talk(button) {
    const talk = button('talk', 'T', (event) => {
      // A mouse has held it, or will have clicked it; keys arrive here as a click.
      if (event.detail) return;
      this.#board.talkDown(this.#incident);
      this.#board.talkUp();
    });
    talk.addEventListener('pointerdown', (event) => {
      if (event.button === 0) this.#board.talkDown(this.#incident, event.timeStamp);
    });
    for (const end of ['pointerup', 'pointerleave', 'pointercancel']) talk.addEventListener(end, (event) => this.#board.talkUp(event.timeStamp));
    return talk;
  }

  /** What is told of the call. Only a connection that stands is called answered. */
  #state({ call }, mine, floor) {
    const { since } = call;
    if (mine?.state === 'cut') return { tone: 'bad', words: t('call.cut'), since };
    if (mine?.state === 'connecting') return { tone: 'wait', words: t('call.connecting'), since };
    if (call.state === 'ringing') return { tone: 'ring', words: call.group ? t('call.ringingAt', { group: call.group }) : t('call.ringing'), since };
    if (call.state === 'held') return { tone: 'held', words: t('call.held'), since };
    if (call.state === 'lost') return { tone: 'bad', words: t('call.lost'), since };
    if (call.state === 'ended') {
      const { reason, by, at } = call.ended ?? {};
      return { tone: 'over', words: reason === 'hung-up' && by ? t('call.endedBy.hung-up', { by }) : reason === 'closed' ? t('call.endedBy.closed') : t('call.ended'), since: at ?? since };
    }
    return { tone: 'up', words: floor ? t(speaks(call) ? 'call.answeredByYou' : 'call.answeredOneWay') : t('call.answered', { name: call.speaker?.name ?? t('call.nobody') }), since };
  }

  #people({ call }, mine, floor) {
    const party = (one) => (mine && one.party === mine.party ? t('call.you') : one.name);
    const talking = speaking(call);
    const chip = (kind, text, on) => h('span', { class: `chip ${kind} ${on ? 'on' : ''}` }, text);
    const shown = [
      call.state !== 'ended' && talking.includes('unit') && chip('voice', t('call.unitSpeaks'), true),
      call.speaker && !floor && chip('voice', t('call.floor', { name: party(call.speaker) }), talking.includes(call.speaker.name)),
      call.state !== 'ended' && call.listeners.length > 0 && chip('', t('call.listeners', { names: call.listeners.map(party).join(t('dir') === 'rtl' ? '، ' : ', ') })),
    ].filter(Boolean);
    const key = shown.map((one) => one.className + one.textContent).join();
    if (key === this.whoKey) return;
    this.whoKey = key;
    this.who.replaceChildren(...shown);
  }

  /** What the operator has to know now, the most urgent alone. */
  #note(told, mine, floor) {
    if (!told) return '';
    const { call } = told;
    if (mine?.trouble) return t(`mic.${mine.trouble}`);
    const [again, group] = this.#calls.why(told) ?? [];
    if (again && !floor) return t(`again.${again}`, { group });
    if (call.state === 'ringing') return this.#calls.isEscalated(told) ? t('escalated', { group: call.group }) : '';
    if (call.state === 'ended' || !mine) return '';
    if (call.unit?.kind === 'none') return t('call.nothing');
    if (call.unit?.kind === 'camera') return t('call.noVoice');
    if (!floor) return t('call.youListen');
    if (call.handing_over) return t('call.handedOver', { to: call.handing_over });
    if (call.unit && !call.unit.voice) return t('call.unheard');
    if (mine.isMuted) return t('call.muted');
    return mine.microphone.silent ? t('call.silent') : '';
  }

  #offer(told, mine, floor) {
    const { call } = told;
    const may = this.#calls.mayAnswer;
    const up = mine?.state === 'connected';
    const going = call.state !== 'ended';
    const open = may && going;
    this.#put('answer', may && !mine && (call.state === 'ringing' || !going || this.#calls.ringsHere(told)), going ? 'call.answer' : 'call.callBack', 'answer');
    this.#put('listen', open && !mine, 'call.listen', 'listen');
    this.#put('talk', open && up && (floor ? speaks(call) : !call.speaker || Boolean(call.handing_over)), floor ? (mine.isMuted ? 'call.unmute' : 'call.mute') : 'call.talk', floor && mine.isMuted ? 'micOff' : 'mic');
    this.level.hidden = !(open && up && floor && speaks(call));
    this.#put('hold', open && up && floor && speaks(call) && call.state !== 'lost', call.state === 'held' ? 'call.resume' : 'call.hold', call.state === 'held' ? 'play' : 'pause');
    this.#put('handOver', open && up && floor, 'call.handOver', 'handOver');
    this.#put('take', open && this.#calls.isSupervisor && Boolean(call.speaker) && !floor && (!mine || up), 'call.take', 'take');
    this.#put('lens', open && Boolean(mine?.face), mine?.hasLens ? 'call.lensOff' : 'call.lensOn', mine?.hasLens ? 'lens' : 'lensOff');
    this.#put('hangUp', Boolean(mine), floor || !call.speaker ? 'call.hangUp' : 'call.leave', 'hangUp');
    this.#buttons.get('talk').one.setAttribute('aria-pressed', String(Boolean(floor && !mine.isMuted)));
    this.acts.hidden = ![...this.#buttons.values()].some(({ one }) => !one.hidden);
  }

  #put(name, shown, key, sign) {
    const { one, text, sign: place } = this.#buttons.get(name);
    const had = one.contains(document.activeElement);
    one.hidden = !shown;
    set(text, t(key));
    one.title = t(key);
    setIcon(place, sign);
    // The keyboard's place is not lost with the button that it stood on.
    if (had && !shown) queueMicrotask(() => [...this.acts.children].find((other) => other.matches('button:not([hidden])'))?.focus());
  }
}

/** Whether the unit can be spoken to at all. */
const speaks = ({ unit }) => ['speaker', 'screen'].includes(unit?.kind ?? 'speaker');

/** Who speaks right now: `unit`, or an operator's name. */
export function speaking(call, now = Date.now()) {
  return (call.spoke ?? []).filter(({ to }) => !to || now - Date.parse(to) < SPEAKS_MS).map((one) => one.who);
}

const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};
