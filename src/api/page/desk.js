// What the gateway tells, in one place: fetched when the connection comes up, and kept up to date by its events.

import { json } from './api.js';
import { Calls, stub, UNSEEN, URGENCY } from './calls.js';

// Closed incidents kept in the list; open ones are all kept.
const CLOSED_SHOWN = 100;
const PAGES = 50;

export const pressedAt = (incident) => Date.parse(incident.pressed_at.at);

export class Desk {
  district = { id: '', name: '' };
  version = '';
  demo = false;
  status = {};
  connected = false;
  buttons = new Map();
  cameras = new Map();
  incidents = new Map();
  calls = new Calls();
  // The chosen incident's id: it is kept even when it is old.
  chosen = null;

  // The events since the fetch of everything began that is under way, or null.
  #since = null;
  #hear = {
    incident: (incident) => this.take(incident),
    call: (told) => this.calls.take(told),
    button: (condition) => {
      const button = this.buttons.get(condition.button);
      if (!button || (button.condition?.revision ?? -1) > condition.revision) return false;
      button.condition = condition;
      return true;
    },
    camera: ({ id, state, detail }) => this.cameras.has(id) && Object.assign(this.cameras.get(id), { state, detail }),
    status: (status) => {
      this.status = status;
    },
  };

  /** What an event brings: for `button` and `camera`, whether it is of one that is known; for `incident`, whether it is news. */
  hear(name, data) {
    this.#since?.push([name, data]);
    return this.#hear[name](data);
  }

  /** All anew; `false` when another fetch was begun meanwhile, and this one changed nothing. */
  async fetchAll() {
    const since = [];
    this.#since = since;
    // A gateway that knows no calls yet has none.
    const none = (path, instead) => json(path).catch((error) => {
      if (error.status === 404) return instead;
      throw error;
    });
    const [home, buttons, cameras, status, me, calls, incidents] = await Promise.all([json('/v1/district'), json('/v1/buttons'), json('/v1/cameras'), json('/v1/status'), none('/v1/me', null), none('/v1/calls', null), allIncidents()]);
    if (this.#since !== since) return false;
    Object.assign(this, { district: home.district, version: home.version, demo: Boolean(home.demo), status });
    this.buttons = new Map(buttons.buttons.map((one) => [one.id, one]));
    this.cameras = new Map(cameras.cameras.map((one) => [one.id, one]));
    if (me) this.calls.me = me;
    this.calls.groups = me?.groups ?? calls?.groups ?? home.groups ?? [];
    incidents.forEach((one) => this.take(one));
    this.calls.replace(calls?.calls ?? null);
    // What was told while the answers were on their way is newer than they are.
    for (const [name, data] of since) this.#hear[name](data);
    this.#since = null;
    return true;
  }

  /** Keeps the higher revision; `true` when it was news. */
  take(incident) {
    const known = this.incidents.get(incident.id);
    if (known && known.revision >= incident.revision) return false;
    this.incidents.set(incident.id, incident);
    const closed = [...this.incidents.values()].filter((one) => one.state === 'closed' && one.id !== this.chosen);
    if (closed.length > CLOSED_SHOWN) {
      closed.sort((a, b) => pressedAt(a) - pressedAt(b));
      closed.slice(0, closed.length - CLOSED_SHOWN).forEach((one) => this.incidents.delete(one.id));
    }
    this.calls.prune(this.incidents);
    return true;
  }

  /** An incident, or what its call tells of it while its document is on its way; or null. */
  incident(id) {
    const told = this.calls.of(id);
    return this.incidents.get(id) ?? (told ? stub(told) : null);
  }

  /** All that the page lists. */
  get all() {
    const ringing = this.calls.ringing(this.incidents).filter((one) => !one.incident);
    return [...this.incidents.values(), ...ringing.map((one) => stub(one.call))];
  }

  get open() {
    return this.all.filter((one) => one.state !== 'closed');
  }

  get unseen() {
    return this.open.filter((one) => !one.test && UNSEEN.includes(one.state)).length;
  }

  /** Open before closed, real before test, what rings here, unseen before seen, then by urgency within those, then what waits longest; of closed ones the newest. */
  get queue() {
    const rings = (one) => Boolean(this.calls.of(one.id)) && this.calls.ringsHere(this.calls.of(one.id));
    const rank = (one) => [one.state === 'closed', one.test, !rings(one), !UNSEEN.includes(one.state), one.state === 'closed' ? 0 : URGENCY.indexOf(one.kind), one.state === 'closed' ? -pressedAt(one) : pressedAt(one)].map(Number);
    return this.all.map((one) => [rank(one), one]).sort(([a], [b]) => a.map((n, i) => n - b[i]).find((n) => n) ?? 0).map(([, one]) => one);
  }
}

async function allIncidents() {
  const all = [];
  let after = '';
  for (let page = 0; page < PAGES; page++) {
    const { incidents, next } = await json(`/v1/incidents?limit=100${after && `&after=${encodeURIComponent(after)}`}`);
    all.push(...incidents);
    if (!incidents.length || next === null || next === undefined || String(next) === after) break;
    after = String(next);
  }
  return all;
}
