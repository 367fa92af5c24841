// The operator's microphone: asked for when it is needed, muted and measured, and taken up again when it was unplugged.

const TICK_MS = 100;
// A live microphone has some noise; one that is switched off at the headset has none.
const SILENCE = 0.0004;
const SILENT_MS = 6000;

/** Why there is no microphone: a key of the texts below `mic`. */
export function reason(error) {
  if (!navigator.mediaDevices) return 'insecure';
  return { NotAllowedError: 'denied', SecurityError: 'denied', NotFoundError: 'missing', OverconstrainedError: 'missing', NotReadableError: 'busy', AbortError: 'busy' }[error?.name] ?? 'missing';
}

export class Microphone {
  #audio = null;
  #meter = null;
  #timer = null;
  #quietSince = 0;
  #ended = false;
  #again = () => this.#tryAgain();
  track = null;
  muted = false;
  /** 0 to 1. */
  level = 0;
  /** Nothing at all comes from it although it is open. */
  silent = false;

  /** `onTrack(track)` when there is another one, `onTrouble(key | null)` when that changes, `onLevel(0..1)` ten times a second. */
  constructor({ onTrack, onTrouble, onLevel }) {
    Object.assign(this, { onTrack, onTrouble, onLevel });
  }

  /** Asks for it. `false`: there is none, and `onTrouble` said why. */
  async open() {
    if (this.track?.readyState === 'live') return true;
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } });
      if (this.#ended) {
        stream.getTracks().forEach((one) => one.stop());
        return false;
      }
      this.#take(stream);
      return true;
    } catch (error) {
      this.onTrouble(reason(error));
      return false;
    }
  }

  mute(muted) {
    this.muted = muted;
    if (this.track) this.track.enabled = !muted;
  }

  close() {
    this.#ended = true;
    clearInterval(this.#timer);
    navigator.mediaDevices?.removeEventListener('devicechange', this.#again);
    this.track?.stop();
    this.track = null;
    this.#audio?.close().catch(() => {});
    this.#audio = null;
  }

  #take(stream) {
    navigator.mediaDevices.removeEventListener('devicechange', this.#again);
    [this.track] = stream.getAudioTracks();
    this.track.enabled = !this.muted;
    this.track.addEventListener('ended', () => this.#lost());
    this.#measure(stream);
    this.onTrouble(null);
    this.onTrack(this.track);
  }

  #lost() {
    if (this.#ended) return;
    this.level = 0;
    this.onTrouble('unplugged');
    navigator.mediaDevices.addEventListener('devicechange', this.#again);
    this.#tryAgain();
  }

  async #tryAgain() {
    const [first] = (await navigator.mediaDevices.enumerateDevices().catch(() => [])).filter((one) => one.kind === 'audioinput');
    if (first && this.track?.readyState !== 'live' && !this.#ended) await this.open();
  }

  #measure(stream) {
    this.#audio ??= new AudioContext();
    this.#meter?.disconnect();
    this.#meter = new AnalyserNode(this.#audio, { fftSize: 1024 });
    this.#audio.createMediaStreamSource(stream).connect(this.#meter);
    const samples = new Float32Array(1024);
    this.#quietSince = performance.now();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => {
      if (this.#audio.state !== 'running') this.#audio.resume().catch(() => {});
      this.#meter.getFloatTimeDomainData(samples);
      const loud = Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length);
      // Speech lies between 60 and 10 dB below the loudest.
      this.level = this.muted ? 0 : Math.min(1, Math.max(0, 1 + (20 * Math.log10(loud + 1e-6) + 10) / 50));
      if (this.muted || loud > SILENCE || this.#audio.state !== 'running') this.#quietSince = performance.now();
      this.silent = performance.now() - this.#quietSince > SILENT_MS;
      this.onLevel(this.level);
    }, TICK_MS);
  }
}
