// The calls of all open incidents, as the gateway tells them, and for whom each of them rings. Pure.

/** Order of the queue: the most urgent first. */
export const URGENCY = ['panic', 'medical', 'fire', 'accident', 'tamper', 'test'];

/** States of an incident that no operator has opened. */
export const UNSEEN = ['received', 'recorded', 'delivered'];

/** Time of the press: of an incident, or of what is told of its call. */
export const pressTime = ({ pressed_at: at }) => (typeof at === 'string' ? at : at.at);
const pressedAt = (one) => Date.parse(pressTime(one));

/** What rings where, and who this is. */
export class Calls {
  #calls = new Map();
  // Who looks at this page: what `/v1/me` says, and all groups in the order in which they ring.
  me = { name: '', role: 'operator', group: null };
  groups = [];
  // Whether the gateway knows calls; one that does not tells of incidents only, and those ring.
  known = false;
  // Whether this browser is in the call of that incident.
  isMine = () => false;

  /** All calls anew; null from a gateway that knows none. */
  replace(calls) {
    this.known = Boolean(calls);
    this.#calls = new Map((calls ?? []).map((one) => [one.incident, one]));
  }

  /** News of one of them. */
  take(told) {
    this.known = true;
    this.#calls.set(told.incident, told);
  }

  /** Forgets those that are over and whose incident the page does not hold. */
  prune(held) {
    for (const [id, { call }] of this.#calls) if (call.state === 'ended' && !held.has(id)) this.#calls.delete(id);
  }

  of(incident) {
    return this.#calls.get(incident) ?? null;
  }

  /** Whether it rings at this page. Whoever's group is not known to come later is rung: rather one too many than none. */
  ringsHere({ incident, call, kind }) {
    if (kind === 'test') return false;
    const mine = this.groups.indexOf(this.me.group);
    // Handed over to a group, which rings while another keeps the floor.
    if (call.handing_over && call.state !== 'ringing') return call.state !== 'ended' && !this.isMine(incident) && (mine < 0 || this.me.group === call.handing_over);
    if (call.state !== 'ringing') return false;
    const reached = this.groups.indexOf(call.group);
    return mine < 0 || reached < 0 || mine <= reached;
  }

  /** Whether the group that was to answer has not. */
  isEscalated({ call }) {
    return call.state === 'ringing' && this.groups.indexOf(call.group) > 0;
  }

  /** Why it rings again, in a key below `again` and the group that is meant, or null. */
  why({ call }) {
    if (call.handing_over && call.state !== 'ringing') return ['handed-over', call.handing_over];
    return call.state === 'ringing' && call.again ? [call.again, call.group] : null;
  }

  /** Who may answer, hold and hand over; others only watch. */
  get mayAnswer() {
    return ['operator', 'supervisor'].includes(this.me.role ?? 'operator');
  }

  get isSupervisor() {
    return this.me.role === 'supervisor';
  }

  /**
   * What rings at this page, the most urgent first: calls, or incidents nobody has seen where no calls are known.
   * Each `{ id, incident, call }`, where one of the two may not be there yet.
   */
  ringing(incidents) {
    const all = new Map();
    for (const incident of this.known ? [] : incidents.values()) {
      // A test wakes nobody.
      if (incident.test || !UNSEEN.includes(incident.state)) continue;
      all.set(incident.id, { id: incident.id, incident, call: null });
    }
    for (const [id, call] of this.#calls) {
      if (incidents.get(id)?.state !== 'closed' && this.ringsHere(call)) all.set(id, { id, incident: incidents.get(id) ?? null, call });
    }
    const rank = ({ incident, call }) => [call && this.isEscalated(call) ? 0 : 1, URGENCY.indexOf((incident ?? call).kind), pressedAt(incident ?? call)];
    return [...all.values()].map((one) => [rank(one), one]).sort(([a], [b]) => a.map((n, i) => n - b[i]).find((n) => n) ?? 0).map(([, one]) => one);
  }
}

/** An incident as far as its call tells of it, while its document is on its way. */
export function stub(told) {
  const at = pressTime(told);
  return {
    id: told.incident, revision: -1, kind: told.kind, test: told.kind === 'test', state: 'received', button: told.button,
    pressed_at: { at, clock_synchronised: true }, press_count: 1, presses: [{ at, kind: told.kind }], cameras: [], evidence: [], timeline: [],
  };
}
