// The pictures of an incident's cameras, all at one moment: of now, or of the evidence. The unit's come from the call while
// this browser is in it.

import { h, screen } from './dom.js';
import { LiveView } from './live.js';
import { EvidencePlayer } from './player.js';
import { t } from './strings.js';

const BEFORE_PRESS_MS = 5000;
// Pictures further apart than this are brought together again.
const DRIFT_MS = 350;
// A wall has room for cameras beyond those that are recorded.
const WALL = { width: 2400, cameras: 9 };

export class Tiles {
  #entries = new Map();
  #main = null;
  #moment = null;
  #pressed = 0;
  #call = null;
  // The pictures of now, over those of the evidence; any step back in time ends it.
  #live = false;
  #incident = null;
  playing = true;
  muted = true;

  /** `onChange()` when another picture is large, or what it shows is another time. */
  constructor(onChange) {
    this.root = h('div', { class: 'tiles', role: 'group' });
    this.onChange = onChange;
  }

  /** Begins with an incident; `live` shows the pictures of now. */
  begin(incident, live) {
    this.#incident = incident;
    this.#pressed = Date.parse(incident.pressed_at.at);
    this.#live = live;
    this.root.setAttribute('aria-label', t('evidence'));
  }

  end() {
    for (const entry of this.#entries.values()) {
      entry.player?.destroy();
      entry.live?.destroy();
      entry.called.srcObject = null;
    }
    this.#entries.clear();
    this.root.replaceChildren();
    [this.#main, this.#moment, this.#call, this.#live, this.playing, this.muted] = [null, null, null, false, true, true];
  }

  get count() {
    return this.#entries.size;
  }

  has = (camera) => this.#entries.has(camera);

  /** The large picture: `{ camera, player }`, or undefined. */
  get main() {
    return this.#entries.get(this.#main);
  }

  /** Whether the large picture is that of now. */
  get showsNow() {
    return Boolean(this.main?.tile.matches('.is-live, .is-called'));
  }

  /** Wall time shown of the evidence, or null. */
  get moment() {
    return this.#moment;
  }

  /** From the first to the last picture held of any camera, or null. */
  get range() {
    const all = [...this.#entries.values()].flatMap(({ player }) => player?.range ?? []);
    return all.length ? [Math.min(...all), Math.max(...all)] : null;
  }

  /** A tile for each camera worth one. Tiles never move in the document: that would stop them. */
  show(incident, told, call) {
    this.#incident = incident;
    const first = told?.camera && !incident.cameras.some((one) => one.id === told.camera.id) ? [{ ...told.camera, role: 'unit', recorded: false }] : [];
    for (const camera of [...first, ...incident.cameras]) {
      const wall = innerWidth >= WALL.width && camera.live && this.#entries.size < WALL.cameras;
      if (!this.#entries.has(camera.id) && (camera.recorded || camera.id === told?.camera?.id || wall)) this.#add(camera);
      else if (this.#entries.has(camera.id)) this.#record(this.#entries.get(camera.id), camera);
    }
    if (!this.#main && this.#entries.size) this.enlarge(this.#entries.keys().next().value);
    this.root.dataset.count = this.#entries.size;
    this.#attach(told, call);
    // Back from the evidence all the same when the case is over.
    if (incident.state === 'closed') this.goLive(false);
  }

  /** Begins or ends the live pictures of all cameras. */
  goLive(on) {
    if (this.#live === on) return;
    this.#live = on;
    for (const entry of this.#entries.values()) {
      this.#watch(entry);
      entry.tile.classList.toggle('is-called', on && entry.hasCalled);
    }
    this.sound();
  }

  enlarge(id) {
    if (!this.#entries.has(id) || id === this.#main) return;
    for (const [other, { tile }] of this.#entries) tile.classList.toggle('main', other === id);
    this.#main = id;
    this.sound();
    this.onChange();
  }

  next() {
    const ids = [...this.#entries.keys()];
    if (ids.length) this.enlarge(ids[(ids.indexOf(this.#main) + 1) % ids.length]);
  }

  moveTo(wall) {
    this.#moment = wall;
    for (const { player } of this.#entries.values()) player?.seek(wall);
  }

  /** The large picture is heard, unless it is muted: the one that is seen of its two. The call is heard by itself. */
  sound() {
    for (const [id, { tile, video, now }] of this.#entries) {
      const heard = id === this.#main && !this.muted;
      const called = tile.classList.contains('is-called');
      const live = tile.classList.contains('is-live');
      video.muted = !heard || live || called;
      now.muted = !heard || !live || called;
    }
  }

  /** Keeps all pictures at the moment of the large one. */
  tick() {
    const position = this.main?.player?.position;
    if (position !== null && position !== undefined) this.#moment = position;
    for (const [id, { video, player }] of this.#entries) {
      if (video.readyState > 0 && video.paused === this.playing && !video.ended) {
        if (this.playing) video.play().catch(() => {});
        else video.pause();
      }
      const own = player?.position;
      if (id === this.#main || own === null || own === undefined || this.#moment === null || player.busy) continue;
      const [from, to] = player.range ?? [0, 0];
      if (this.#moment >= from && this.#moment < to - 400 && Math.abs(own - this.#moment) > DRIFT_MS) player.seek(this.#moment);
    }
  }

  #add(camera) {
    const [now, called, video] = ['now', 'called', 'evidence'].map(screen);
    const message = h('div', { class: 'message' });
    const tile = h('div', { class: 'tile', role: 'button', tabIndex: 0, 'aria-label': t('choose', { camera: camera.name }), 'data-camera': camera.id }, video, message, now, called, h('span', { class: 'live-mark' }, t('liveNow')), h('span', { class: 'name' }, h('bdi', {}, camera.name)), camera.role === 'unit' && h('span', { class: 'chip unit' }, t('unit')));
    tile.addEventListener('click', () => this.enlarge(camera.id));
    tile.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') this.enlarge(camera.id);
    });
    this.root.append(tile);
    const entry = { tile, video, message, now, called, camera, player: null, live: null, hasCalled: false };
    this.#entries.set(camera.id, entry);
    this.#record(entry, camera);
    this.#watch(entry);
  }

  /** Its evidence, once some is kept. */
  #record(entry, camera) {
    entry.camera = { ...entry.camera, ...camera };
    if (entry.player) return;
    if (!camera.recorded) {
      entry.message.textContent = t('notRecordedHere');
      return;
    }
    const incident = this.#incident;
    const evidence = incident.evidence.find((one) => one.camera === camera.id);
    const from = evidence ? Date.parse(evidence.from) : this.#pressed - 30000;
    const path = camera.evidence?.endsWith('.m3u8') ? camera.evidence : `/v1/incidents/${incident.id}/cameras/${camera.id}/index.m3u8`;
    entry.player = new EvidencePlayer(entry.video, path, { from, begin: this.#moment ?? this.#pressed - BEFORE_PRESS_MS, onState: (state) => this.#say(entry, state) });
  }

  #watch(entry) {
    entry.live?.destroy();
    entry.live = null;
    entry.tile.classList.remove('is-live');
    if (!this.#live || !entry.camera.live || entry.hasCalled) return;
    entry.live = new LiveView(entry.now, entry.camera.live, (state) => {
      entry.tile.classList.toggle('is-live', state === 'live');
      this.sound();
      this.onChange();
    });
  }

  /** Puts the call's pictures over those of the unit's tile, from the first one on; until then the live view stays. */
  #attach(told, call) {
    const id = told?.camera?.id ?? this.#incident.cameras.find((one) => one.role === 'unit')?.id;
    const entry = this.#entries.get(id);
    if (!entry) return;
    const stream = call?.stream ?? null;
    if (entry.called.srcObject !== stream) {
      entry.called.srcObject = stream;
      if (stream) entry.called.requestVideoFrameCallback(() => entry.called.srcObject === stream && this.#called(entry, true));
      else this.#called(entry, false);
    }
    const comes = call?.state === 'connected' && !call.still;
    if (call && !comes && entry.hasCalled) this.#called(entry, false);
    else if (comes && !entry.hasCalled && entry.called.videoWidth) this.#called(entry, true);
    // Who has just answered looks at the unit, as it is now.
    if (stream && this.#call !== call) {
      if (this.#incident.state !== 'closed') this.goLive(true);
      this.enlarge(id);
    }
    this.#call = call;
  }

  #called(entry, on) {
    entry.hasCalled = on;
    entry.tile.classList.toggle('is-called', on && this.#live);
    this.#watch(entry);
    this.sound();
    this.onChange();
  }

  #say({ message, camera }, { kind, detail }) {
    const text = { waiting: t('waitingPictures'), playing: '', unsupported: t('cannotPlay', { codecs: detail }), failed: t('playFailed', { why: detail }) }[kind];
    message.replaceChildren(...[text, kind === 'unsupported' && h('a', { href: `/v1/incidents/${this.#incident.id}/cameras/${camera.id}.mp4`, download: '' }, t('download'))].filter(Boolean));
    message.dataset.kind = kind;
  }
}
