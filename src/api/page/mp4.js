// What the page must know of fragmented MP4 (ISO/IEC 14496-12): codecs and time.

const CONTAINERS = new Set(['moov', 'trak', 'mdia', 'minf', 'stbl', 'moof', 'traf']);
const hex = (n) => n.toString(16).padStart(2, '0');

function* boxes(view, from, to) {
  for (let at = from; at + 8 <= to;) {
    let size = view.getUint32(at);
    let head = 8;
    if (size === 1 && at + 16 <= to) {
      size = Number(view.getBigUint64(at + 8));
      head = 16;
    } else if (size === 0) size = to - at;
    if (size < head || at + size > to) return;
    const type = String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at + 4, 4));
    yield { type, from: at + head, to: at + size };
    at += size;
  }
}

function walk(view, from, to, visit) {
  for (const box of boxes(view, from, to)) {
    visit(box);
    if (CONTAINERS.has(box.type)) walk(view, box.from, box.to, visit);
  }
}

const viewOf = (bytes) => new DataView(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength);

/** The tracks of an init segment: `[{ id, kind: 'video' | 'audio' | ..., timescale, codec }]`. */
export function tracks(init) {
  const view = viewOf(init);
  const found = [];
  walk(view, 0, view.byteLength, ({ type, from, to }) => {
    const track = found.at(-1);
    const version = to > from ? view.getUint8(from) : 0;
    if (type === 'trak') found.push({});
    else if (!track) return;
    else if (type === 'tkhd') track.id = view.getUint32(from + (version ? 20 : 12));
    else if (type === 'mdhd') track.timescale = view.getUint32(from + (version ? 20 : 12));
    else if (type === 'hdlr') track.kind = { vide: 'video', soun: 'audio' }[ascii(view, from + 8)] ?? 'other';
    else if (type === 'stsd') track.codec = codec(view, from + 8, to, track.kind);
  });
  return found;
}

/** The MIME type of an init segment, for `MediaSource.isTypeSupported`. */
export function mimeOf(found) {
  const kind = found.some((track) => track.kind === 'video') ? 'video' : 'audio';
  return `${kind}/mp4; codecs="${found.map((track) => track.codec).filter(Boolean).join(',')}"`;
}

/** Seconds of a fragment's first sample on the media's own clock; of its picture track where it has one. */
export function decodeTime(fragment, found) {
  const view = viewOf(fragment);
  let id = 0;
  let best = null;
  walk(view, 0, view.byteLength, ({ type, from }) => {
    if (type === 'tfhd') id = view.getUint32(from + 4);
    if (type !== 'tfdt') return;
    const track = found.find((one) => one.id === id);
    if (!track) return;
    const ticks = view.getUint8(from) ? Number(view.getBigUint64(from + 4)) : view.getUint32(from + 4);
    if (best === null || (track.kind === 'video' && best.kind !== 'video')) best = { kind: track.kind, seconds: ticks / track.timescale };
  });
  return best?.seconds ?? 0;
}

const ascii = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));

// RFC 6381: the codec of the first sample entry.
function codec(view, from, to, kind) {
  const [entry] = boxes(view, from, to);
  if (!entry) return '';
  const inner = [...boxes(view, entry.from + (kind === 'video' ? 78 : 28), entry.to)];
  const config = (type) => inner.find((box) => box.type === type);
  const byte = (box, i) => view.getUint8(box.from + i);
  if (entry.type.startsWith('avc') && config('avcC')) {
    const box = config('avcC');
    return `${entry.type}.${hex(byte(box, 1))}${hex(byte(box, 2))}${hex(byte(box, 3))}`;
  }
  if (/^h(vc|ev)1$/.test(entry.type) && config('hvcC')) return hevc(view, entry.type, config('hvcC').from);
  if (entry.type === 'mp4a') return `mp4a.${config('esds') ? aac(view, config('esds')) : '40.2'}`;
  return entry.type === 'Opus' ? 'opus' : entry.type;
}

// ISO/IEC 14496-15 annex E.3: profile, compatibility flags (bits reversed), tier and level, constraints.
function hevc(view, name, at) {
  const profile = view.getUint8(at + 1);
  const space = ['', 'A', 'B', 'C'][profile >> 6];
  let flags = 0;
  for (let i = 0, bits = view.getUint32(at + 2); i < 32; i++) flags = (flags * 2) + ((bits >>> i) & 1);
  const constraints = [0, 1, 2, 3, 4, 5].map((i) => view.getUint8(at + 6 + i));
  while (constraints.length && constraints.at(-1) === 0) constraints.pop();
  const tier = profile & 0x20 ? 'H' : 'L';
  const tail = constraints.map((one) => `.${one.toString(16).toUpperCase()}`).join('');
  return `${name}.${space}${profile & 0x1f}.${flags.toString(16).toUpperCase()}.${tier}${view.getUint8(at + 12)}${tail}`;
}

// ISO/IEC 14496-1: descriptors 3 > 4 (object type) > 5 (whose first five bits are the audio object type).
function aac(view, { from, to }) {
  let at = from + 4;
  let object = 0x40;
  while (at + 2 < to) {
    const tag = view.getUint8(at++);
    while (view.getUint8(at++) & 0x80);
    if (tag === 3) at += 3;
    else if (tag === 4) {
      object = view.getUint8(at);
      at += 13;
    } else if (tag === 5) return `${hex(object)}.${view.getUint8(at) >> 3}`;
    else return `${hex(object)}.2`;
  }
  return `${hex(object)}.2`;
}
