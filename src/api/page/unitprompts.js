// The prompts that a unit with a screen plays: one when what it shows changes, and some again and again.

import { request } from './api.js';

// What is played when that is shown, after how long, and how often again, in milliseconds.
const PLAYED = {
  calling: { name: 'waiting', after: 5000, again: 30000 }, reached: { name: 'reached' }, answered: { name: 'answered' }, hold: { name: 'hold', again: 15000 }, lost: { name: 'lost' }, ended: { name: 'ended' },
};

export class Prompts {
  #files = new Map();
  #shown = null;
  #timer = null;

  /** From `path` (`/v1/units/ID/prompts`), in `audio`. */
  constructor(path, audio) {
    this.path = path;
    this.audio = audio;
  }

  /** What is shown from now on. */
  show(what) {
    if (what === this.#shown) return;
    // At the start nothing has happened: what was so before is not told again.
    const first = this.#shown === null || this.#shown === 'starting';
    this.#shown = what;
    clearTimeout(this.#timer);
    const prompt = PLAYED[what];
    if (!prompt || (first && ['ended', 'reached'].includes(what))) return;
    this.#timer = setTimeout(() => this.#repeat(prompt), prompt.after ?? 0);
  }

  /** Plays one by name. */
  async play(name) {
    try {
      const file = await this.#file(name);
      this.audio.src = file;
      await this.audio.play();
    } catch {
      // A page that was not touched yet may not play, and a prompt that is missing cannot: the screen says the same.
    }
  }

  #repeat(prompt) {
    this.play(prompt.name);
    if (prompt.again) this.#timer = setTimeout(() => this.#repeat(prompt), prompt.again);
  }

  /** Held, so that it plays without a connection too. */
  async #file(name) {
    if (!this.#files.has(name)) {
      const answer = await request(`${this.path}/${name}.wav`);
      this.#files.set(name, URL.createObjectURL(await answer.blob()));
    }
    return this.#files.get(name);
  }

  /** Fetches all of them ahead. */
  fetch() {
    for (const name of ['pressed', 'reached', 'waiting', 'answered', 'hold', 'lost', 'ended']) this.#file(name).catch(() => {});
  }
}
