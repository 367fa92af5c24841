// A press at a unit with a screen: kept until the gateway has said that it is on disk, across reloads and for as long as it takes.

import { post } from './api.js';

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
// An answer that takes longer is not waited for; the same press is sent again.
const PATIENCE_MS = 8000;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Press {
  #path;
  #key;
  #sending = false;
  #held = null;

  /** For `button`. `onChange()` when a press begins to be sent and when it is recorded. */
  constructor(button, onChange) {
    this.#path = `/v1/units/${encodeURIComponent(button)}/press`;
    this.#key = `chowki-press ${button}`;
    this.onChange = onChange;
    try {
      this.#held = JSON.parse(localStorage.getItem(this.#key));
    } catch {
      // Storage that is shut or spoilt holds none.
    }
    this.#send();
  }

  /** The press that the gateway has not recorded yet, or null. */
  get pending() {
    return this.#held;
  }

  /** One more press; while one is on its way it is that one. */
  press() {
    if (!this.#held) this.#keep({ press: unique(), kind: 'panic' });
    this.onChange();
    this.#send();
  }

  /** In memory first: storage that is full or shut must not lose it. */
  #keep(one) {
    this.#held = one;
    try {
      if (one) localStorage.setItem(this.#key, JSON.stringify(one));
      else localStorage.removeItem(this.#key);
    } catch {
      // Then it lasts as long as the page.
    }
  }

  async #send() {
    if (this.#sending) return;
    this.#sending = true;
    let wait = FIRST_WAIT_MS;
    for (let one = this.pending; one; one = this.pending) {
      if (await this.#sendOnce(one)) {
        this.#keep(null);
        this.onChange('recorded');
        wait = FIRST_WAIT_MS;
        continue;
      }
      await pause(wait);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
    this.#sending = false;
  }

  async #sendOnce(one) {
    try {
      const answer = await post(this.#path, one, { signal: AbortSignal.timeout(PATIENCE_MS) });
      // Anything else than this is no proof.
      return answer.status === 200 && (await answer.json()).state === 'recorded';
    } catch {
      return false;
    }
  }
}

/** An id that no other press has, on http pages too. */
function unique() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
