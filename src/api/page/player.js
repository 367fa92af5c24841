// Plays a camera's evidence from its HLS playlist while it grows: playlist -> fragments -> Media Source Extensions.
// Positions are wall time in milliseconds, so that several cameras show the same moment.

import { request } from './api.js';
import { decodeTime, mimeOf, tracks } from './mp4.js';

const POLL_MS = 2000;
const TURN_MS = 400;
// Fetched ahead of the position, kept behind it, in seconds: bounds what a browser holds for a long recording.
const AHEAD = 45;
const BEHIND = 90;
// Nothing is shown from the last moment of a stretch: a browser waits there for the picture after it.
const EDGE = 0.15;
// A search for a picture that takes longer found none.
const SEEK_MS = 1500;

/**
 * A playlist (RFC 8216) as `{ ended, segments }`; a segment has `start` and `duration` in milliseconds, its init
 * segment, and a `group` that counts up where the media's clock breaks. Without a date the first begins at `from`.
 */
export function parsePlaylist(text, url, from) {
  const segments = [];
  let [init, group, duration, date, ended, broken] = [null, 0, 0, null, false, true];
  let next = from;
  for (const line of text.split(/\r?\n/)) {
    const [, tag, value] = /^#([A-Z0-9-]+):?(.*)$/.exec(line) ?? [];
    if (tag === 'EXT-X-MAP') {
      const uri = new URL(/URI="([^"]*)"/.exec(value)?.[1] ?? '', url).href;
      broken ||= uri !== init;
      init = uri;
    } else if (tag === 'EXT-X-DISCONTINUITY') broken = true;
    else if (tag === 'EXT-X-PROGRAM-DATE-TIME') date = Date.parse(value);
    else if (tag === 'EXTINF') duration = parseFloat(value) * 1000;
    else if (tag === 'EXT-X-ENDLIST') ended = true;
    else if (line && !line.startsWith('#')) {
      if (broken) group += 1;
      const start = date ?? next;
      segments.push({ uri: new URL(line, url).href, init, group, start, duration });
      next = start + duration;
      date = null;
      broken = false;
    }
  }
  return { ended, segments };
}

const once = (target, good, bad) => new Promise((done, fail) => {
  const end = (settle) => (event) => {
    target.removeEventListener(good, ok);
    target.removeEventListener(bad, no);
    settle(event);
  };
  const ok = end(done);
  const no = end(() => fail(new Error(`${bad} of ${target.constructor.name}`)));
  target.addEventListener(good, ok);
  target.addEventListener(bad, no);
});

export class EvidencePlayer {
  #url;
  #from;
  #source = new MediaSource();
  #buffer = null;
  #segments = [];
  #inits = new Map();
  #offsets = new Map();
  #loaded = new Map();
  #active = null;
  #origin = null;
  #ended = false;
  #wanted = null;
  #sought = 0;
  #stopped = false;
  #wake = () => {};

  /**
   * Plays `url` in `video`. `from`: wall time where the evidence begins, when the playlist has no dates; `begin`: where
   * to start. `onState({ kind: 'waiting' | 'playing' | 'unsupported' | 'failed', detail })` whenever that changes.
   */
  constructor(video, url, { from, begin, onState }) {
    this.video = video;
    this.#url = new URL(url, location.href).href;
    this.#from = from;
    this.#wanted = begin;
    this.onState = onState;
    this.state = '';
    video.src = URL.createObjectURL(this.#source);
    video.addEventListener('seeking', () => {
      this.#sought = performance.now();
      this.#wake();
    });
    this.#run();
  }

  /** Wall time shown, or asked for; `null` before there are pictures. */
  get position() {
    if (this.#origin === null) return null;
    return this.#wanted ?? this.#origin + this.video.currentTime * 1000;
  }

  /** Wall times of the first and last picture held, or `null`. */
  get range() {
    const [first, last] = [this.#segments[0], this.#segments.at(-1)];
    return first ? [first.start, last.start + last.duration] : null;
  }

  /** Intervals held, `[[from, to], ...]` in wall time. */
  get held() {
    const joined = [];
    for (const { start, duration } of this.#segments) {
      const last = joined.at(-1);
      if (last && start - last[1] < 100) last[1] = start + duration;
      else joined.push([start, start + duration]);
    }
    return joined;
  }

  /** Whether it looks for a picture right now. */
  get busy() {
    return this.video.seeking && performance.now() - this.#sought < SEEK_MS;
  }

  seek(wall) {
    if (this.#origin === null) {
      this.#wanted = wall;
      return;
    }
    const [from, to] = this.range;
    const at = Math.min(Math.max(wall, from), Math.max(from, to - 1000 * EDGE - 100));
    this.#wanted = at;
    this.#apply();
    this.#wake();
  }

  destroy() {
    this.#stopped = true;
    this.#wake();
    this.video.pause();
    URL.revokeObjectURL(this.video.src);
    this.video.removeAttribute('src');
    this.video.load();
  }

  #say(kind, detail = '') {
    if (this.state === kind + detail) return;
    this.state = kind + detail;
    this.onState({ kind, detail });
  }

  async #run() {
    let polled = -Infinity;
    if (this.#source.readyState !== 'open') await once(this.#source, 'sourceopen', 'error');
    while (!this.#stopped) {
      try {
        if (!this.#ended && performance.now() - polled >= POLL_MS) {
          polled = performance.now();
          await this.#poll();
        }
        const more = await this.#load();
        this.#apply();
        this.#leap();
        if (more) continue;
      } catch (error) {
        if (this.#stopped) return;
        if (error.unsupported) {
          this.#say('unsupported', error.unsupported);
          return;
        }
        // Not there yet is no failure; anything else is shown, and tried again.
        this.#say(error.status === 404 ? 'waiting' : 'failed', error.status === 404 ? '' : error.message);
        if (this.#source.readyState === 'closed' || this.video.error) return;
      }
      await new Promise((wake) => {
        this.#wake = wake;
        setTimeout(wake, TURN_MS);
      });
    }
  }

  async #poll() {
    const text = await (await request(this.#url)).text();
    const { ended, segments } = parsePlaylist(text, this.#url, this.#from);
    this.#segments = segments;
    this.#ended = ended;
    if (!segments.length) {
      this.#say('waiting');
      return;
    }
    if (this.#origin === null) {
      this.#origin = segments[0].start;
      const [from, to] = this.range;
      this.#wanted = Math.min(Math.max(this.#wanted ?? from, from), Math.max(from, to - 1000 * EDGE - 100));
    }
  }

  /** Fetches and appends the next segment that is wanted around the position; `true` when there was one. */
  async #load() {
    if (this.#origin === null) return false;
    const at = this.position;
    const segment = this.#segments.find((one) => one.start + one.duration > at - 1000 && one.start < at + AHEAD * 1000 && !this.#loaded.has(one.uri));
    if (!segment) {
      this.#finish();
      return false;
    }
    const init = await this.#init(segment.init);
    const bytes = new Uint8Array(await (await request(segment.uri)).arrayBuffer());
    if (this.#stopped) return false;
    await this.#enter(segment, init, bytes);
    this.#loaded.set(segment.uri, segment);
    await this.#evict(at);
    if (!this.video.error) this.#say('playing');
    return true;
  }

  async #init(uri) {
    if (!this.#inits.has(uri)) {
      const bytes = new Uint8Array(await (await request(uri)).arrayBuffer());
      const found = tracks(bytes);
      const mime = mimeOf(found);
      if (!MediaSource.isTypeSupported(mime)) throw Object.assign(new Error(mime), { unsupported: found.map((one) => one.codec).join(', ') });
      this.#inits.set(uri, { bytes, found, mime });
    }
    return this.#inits.get(uri);
  }

  async #enter(segment, init, bytes) {
    if (!this.#buffer) this.#buffer = this.#source.addSourceBuffer(init.mime);
    const buffer = this.#buffer;
    if (this.#active !== segment.group) {
      // Another init segment or another clock: this group's media time 0 lies here on the page's time line.
      if (!this.#offsets.has(segment.group)) this.#offsets.set(segment.group, (segment.start - this.#origin) / 1000 - decodeTime(bytes, init.found));
      if (this.#active !== null) buffer.changeType(init.mime);
      buffer.timestampOffset = this.#offsets.get(segment.group);
      await this.#append(init.bytes);
      this.#active = segment.group;
    }
    await this.#append(bytes);
    // An init segment that states a duration ends there; one that states none is endless.
    const [, to] = this.range;
    const total = (to - this.#origin) / 1000;
    if (this.#source.readyState === 'open' && !(this.#source.duration >= total)) this.#source.duration = total;
  }

  async #append(bytes) {
    const done = once(this.#buffer, 'updateend', 'error');
    this.#buffer.appendBuffer(bytes);
    try {
      await done;
    } catch (error) {
      throw new Error(this.video.error?.message || error.message);
    }
  }

  async #evict(at) {
    const limit = at - BEHIND * 1000;
    const old = [...this.#loaded.values()].filter((one) => one.start + one.duration < limit || one.start > at + 2 * AHEAD * 1000);
    for (const one of old) {
      const done = once(this.#buffer, 'updateend', 'error');
      this.#buffer.remove(Math.max(0, (one.start - this.#origin) / 1000), (one.start + one.duration - this.#origin) / 1000);
      await done;
      this.#loaded.delete(one.uri);
    }
  }

  #finish() {
    const last = this.#segments.at(-1);
    if (this.#ended && last && this.#loaded.has(last.uri) && this.#source.readyState === 'open' && !this.#buffer.updating) this.#source.endOfStream();
  }

  /** Goes to the wanted position once it is held. */
  #apply() {
    if (this.#wanted === null || this.#origin === null || this.video.readyState === 0) return;
    const seconds = (this.#wanted - this.#origin) / 1000;
    const { buffered } = this.video;
    for (let i = 0; i < buffered.length; i++) {
      if (seconds >= buffered.start(i) - 0.5 && seconds < buffered.end(i) - EDGE) {
        this.video.currentTime = Math.max(seconds, buffered.start(i));
        this.#wanted = null;
        return;
      }
    }
    // On its way, or between what is held: then the next thing that is.
    const here = this.#segments.find((one) => this.#wanted >= one.start && this.#wanted < one.start + one.duration);
    if (here && !this.#loaded.has(here.uri)) return;
    const after = this.#segments.find((one) => one.start > this.#wanted);
    if (after) this.#wanted = after.start + 1;
  }

  /** Leaps over a gap that nobody holds: playing on would wait there for ever. */
  #leap() {
    const { video } = this;
    const { buffered, currentTime } = video;
    if (this.#wanted !== null || this.busy || this.#origin === null) return;
    let next = null;
    for (let i = 0; i < buffered.length; i++) {
      if (currentTime >= buffered.start(i) && currentTime < buffered.end(i) - EDGE) return;
      if (buffered.start(i) > currentTime && next === null) next = buffered.start(i);
    }
    const here = this.#origin + currentTime * 1000 + 200;
    const coming = this.#segments.some((one) => here >= one.start && here < one.start + one.duration && !this.#loaded.has(one.uri));
    if (next !== null && !coming) video.currentTime = next + 0.01;
    else if (next === null && !coming) {
      const after = this.#segments.find((one) => one.start > here + 100);
      if (after) this.#wanted = after.start + 1;
    }
  }
}
