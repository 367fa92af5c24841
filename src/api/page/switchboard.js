// What this operator does with calls: one at a time, kept in step with what the gateway tells of it.

import { Call, interrupted } from './call.js';
import { ask, pick, toast } from './dialog.js';
import { t } from './strings.js';

// A page loaded anew comes back into its call only while the gateway may still hold it.
const LIVE = ['ringing', 'answered', 'held', 'lost'];
// T held for longer talks only while it is held.
const HELD_MS = 350;

export class Switchboard {
  #calls;
  #talkKey = null;
  /** The call that this browser is in, or null. */
  call = null;

  /** `name()`: the operator's, or ''. `onChange()` when there is something to draw; `onLevel(0..1)` for the meter. */
  constructor(calls, { name, onChange, onLevel }) {
    this.#calls = calls;
    Object.assign(this, { name, onChange, onLevel });
  }

  /** Whether this browser is in the call of that incident. */
  isIn = (incident) => Boolean(this.call && this.call.incident === incident && !this.call.isOver);

  /** Whether it has the floor there, as far as the gateway has said. */
  hasFloor(incident) {
    const speaker = this.#calls.of(incident)?.call.speaker;
    return this.isIn(incident) && Boolean(speaker) && speaker.party === this.call.party;
  }

  /** The gateway told something of a call: another may have the floor, or it is over. */
  heard(told) {
    const { call } = this;
    if (!this.isIn(told.incident)) return;
    const { state, speaker, ended } = told.call;
    const hers = Boolean(speaker) && speaker.party === call.party;
    if (hers) call.floorAs = call.party;
    if (state === 'ended' && call.party !== null && ended?.at !== call.endedBefore) {
      call.hangUp().catch(() => {});
      if (ended?.reason) toast(this.#endedBy(ended), 'calm');
    } else if (call.state === 'connected' && speaker && !hers && call.as === 'speak' && call.floorAs === call.party) {
      // Only of who was told to have it: each connection is another party, and what was told before names one that is no more.
      call.floorAs = null;
      call.yieldFloor();
      toast(t('call.taken', { name: speaker.name }), 'calm');
    } else if (call.state === 'connected' && hers) call.receiveFloor();
  }

  /** All calls were fetched anew; at the start, the page goes back into the one that it was in. */
  fetched() {
    for (const one of [this.call?.incident].filter(Boolean)) {
      const told = this.#calls.of(one);
      if (told) this.heard(told);
    }
    const left = this.call ? null : interrupted();
    const told = left && this.#calls.of(left.incident);
    if (!told || !LIVE.includes(told.call.state)) return;
    this.#begin(told, left.as, left.replaces, left.by);
    return left.incident;
  }

  /** Answers, or calls back; the unit's answer shows in the state of the connection. */
  answer = (incident) => this.#join(incident, 'speak');

  listen = (incident) => this.#join(incident, 'listen');

  /** Takes the floor: nobody's, or as a supervisor another's. */
  async take(incident) {
    if (!this.isIn(incident)) await this.#join(incident, 'listen');
    if (!this.isIn(incident)) return;
    await this.#connected();
    await this.#do(() => this.call.speak());
  }

  hold = (incident) => this.hasFloor(incident) && this.#do(() => (this.#calls.of(incident).call.state === 'held' ? this.call.resume() : this.call.hold()));

  async handOver(incident) {
    if (!this.hasFloor(incident)) return;
    const { call } = this.#calls.of(incident);
    const parties = call.listeners.map((one) => [t('call.party', { name: one.name }), { party: one.party }]);
    const groups = this.#calls.groups.filter((one) => one !== this.#calls.me.group).map((group) => [t('call.group', { group }), { group }]);
    const to = await pick(t('call.to'), [...parties, ...groups], t('call.noOne'));
    if (to) await this.#do(() => this.call.handOver(to));
  }

  async hangUp(incident) {
    if (!this.isIn(incident)) return;
    if (this.hasFloor(incident) && await ask(t('call.askHangUp'), { ok: t('call.hangUp') }) === null) return;
    await this.#do(() => this.call.hangUp());
  }

  async showLens(incident) {
    if (!this.isIn(incident) || !this.call.face) return;
    await this.call.showLens(!this.call.hasLens);
    localStorage.setItem('chowki-lens', this.call.hasLens ? 'on' : 'off');
  }

  mute(muted) {
    this.call?.mute(muted);
  }

  /** T goes down at `at` (an event's time, however late it is dealt with): talks while it is held; a short press turns the microphone on or off. Without the floor it asks for it. */
  talkDown(incident, at = performance.now()) {
    if (this.#talkKey || !this.isIn(incident)) return;
    this.#talkKey = { at, muted: this.call.isMuted };
    if (!this.hasFloor(incident)) {
      this.take(incident);
      this.#talkKey = null;
    } else if (this.call.isMuted) this.call.mute(false);
  }

  talkUp(at = performance.now()) {
    const key = this.#talkKey;
    this.#talkKey = null;
    if (!key || !this.call || this.call.isOver) return;
    const held = at - key.at > HELD_MS;
    if (key.muted ? held : !held) this.call.mute(true);
  }

  async #join(incident, as) {
    const told = this.#calls.of(incident);
    if (!told || !this.#calls.mayAnswer) return;
    if (this.isIn(incident)) {
      if (as === 'speak' && !this.hasFloor(incident)) await this.take(incident);
      return;
    }
    if (this.call && !this.call.isOver) {
      const mine = this.hasFloor(this.call.incident);
      if (mine && await ask(t('call.askLeaveFirst', { button: told.button.name }), { ok: t('call.hangUp') }) === null) return;
      await this.#do(() => this.call.hangUp());
    }
    await this.#begin(told, as, null, this.name());
  }

  async #begin(told, as, replaces, by) {
    const face = told.call.unit?.kind === 'screen';
    // Where nobody can be spoken to, no microphone is needed to answer.
    const voice = ['speaker', 'screen'].includes(told.call.unit?.kind ?? 'speaker');
    const call = new Call(told.incident, told.call.address, {
      as, by, face, replaces, onLevel: this.onLevel,
      onChange: () => {
        this.onChange();
        if (call.state === 'connected') this.heard(this.#calls.of(call.incident) ?? told);
      },
      onRefused: (error) => this.#refused(told.incident, as, error),
    });
    // What had ended before this one began says nothing of it.
    call.endedBefore = told.call.ended?.at;
    this.call = call;
    this.onChange();
    await call.start(voice);
    if (call.as !== as) toast(t('call.asListener'));
    if (face && call.as === 'speak' && localStorage.getItem('chowki-lens') === 'on') await call.showLens(true);
  }

  /** Another was first: then she listens, and is told so. */
  #refused(incident, as, error) {
    this.call = null;
    this.onChange();
    if (error.status === 409 && as === 'speak') {
      toast(t('call.takenFirst'), 'calm');
      this.listen(incident);
    } else toast(t('failed', { why: error.message }));
  }

  #endedBy({ reason, by }) {
    return reason === 'hung-up' && by ? t('call.endedBy.hung-up', { by }) : t(reason === 'closed' ? 'call.endedBy.closed' : 'call.ended');
  }

  /** Until the connection stands, or is given up. */
  async #connected() {
    for (let i = 0; i < 100 && this.call && !this.call.isOver && this.call.state !== 'connected'; i++) await new Promise((rest) => setTimeout(rest, 100));
  }

  async #do(act) {
    try {
      return await act() !== false;
    } catch (error) {
      toast(t('failed', { why: error.message }));
      return false;
    } finally {
      this.onChange();
    }
  }
}
