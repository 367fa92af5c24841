// Elements and icons: what every part of the page draws with.

/** An element with properties (`class`, `on...`, `data-...`, `aria-...`, or the DOM's own) and children. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.className = value;
    else if (key.includes('-') || key === 'role' || key === 'for') element.setAttribute(key, value === true ? 'true' : value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Times, numbers, coordinates and ids: read from left to right in every language. */
export const ltr = (text, properties = {}) => h('bdi', { dir: 'ltr', ...properties }, text);

/** A muted video that plays by itself, as all of the page do. */
export const screen = (kind = '') => h('video', { class: kind, muted: true, autoplay: true, playsInline: true, disableRemotePlayback: true, tabIndex: -1 });

const SVG = 'http://www.w3.org/2000/svg';
const HANDSET = 'M2.500 3.500c0 5.500 4.500 10 10 10l1.500-3-3-1.500-1.500 1.500c-1.800-.8-3.200-2.200-4-4L7 5 5.500 2z';
const MIC = 'M8.500 1.500a2 2 0 0 1 2 2v4a2 2 0 0 1-4 0v-4a2 2 0 0 1 2-2zM4 7.500a4.500 4.500 0 0 0 9 0M8.500 12v2.500M6 14.500h5';
const LENS = 'M2 4h8.500v8H2zM10.500 7.500l4-2.500v6l-4-2.500z';
const BELL = 'M3.500 11.500h9l-1.200-2V7a3.300 3.300 0 0 0-6.600 0v2.500zM6.800 13.500a1.300 1.300 0 0 0 2.400 0';
const STROKE = 'M2.500 2.500l12 11.500';
const ICONS = {
  speaker: 'M3 6h3l4-3.500v11L6 10H3zM12 5.500a4 4 0 0 1 0 5M13.500 3.500a7 7 0 0 1 0 9', speakerOff: 'M3 6h3l4-3.500v11L6 10H3zM12 6l4 4M16 6l-4 4',
  bell: BELL, bellOff: `${BELL}${STROKE}`, play: 'M4.500 2.500v11l9-5.500z', pause: 'M4 3h2.500v10H4zM9.500 3H12v10H9.500z',
  flag: 'M4 14V2.500M4 3h8l-2.500 2.700L12 8.500H4z', latest: 'M3 3v10l6-5zM12 3v10',
  answer: HANDSET, hangUp: `${HANDSET}M10 2l5 5M15 2l-5 5`, listen: 'M3 9.500V8a5.500 5.500 0 0 1 11 0v1.500M3 9h2.500v4.500H4A1 1 0 0 1 3 12.500zM14 9h-2.500v4.500H13a1 1 0 0 0 1-1z',
  mic: MIC, micOff: `${MIC}${STROKE}`, lens: LENS, lensOff: `${LENS}${STROKE}`, handOver: 'M2 5.500h10.500M9.500 2.500l3 3-3 3M15 10.500H4.500M7.500 7.500l-3 3 3 3',
  take: 'M8.500 13.500V3M4.500 7l4-4 4 4', notify: 'M2.500 3.500h12v8h-7l-3 2.500v-2.500h-2zM8.500 5.500v2M8.500 9v.5', language: 'M8.500 1.500a6.500 6.500 0 1 1 0 13 6.500 6.500 0 0 1 0-13zM2 8h13M8.500 1.500c4 4 4 9 0 13M8.500 1.500c-4 4-4 9 0 13',
};
// Those that point along the line of reading turn with it; those of media time do not.
const MIRRORED = ['handOver', 'notify'];

/** A drawn icon; every font has not every picture. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, 'svg');
  drawing.setAttribute('viewBox', '0 0 17 16');
  drawing.setAttribute('class', MIRRORED.includes(name) ? 'icon mirrored' : 'icon');
  drawing.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  drawing.append(path);
  return drawing;
}

/** Puts an icon on a button, unless it is there. */
export function setIcon(button, name) {
  if (button.dataset.icon === name) return;
  button.dataset.icon = name;
  button.replaceChildren(icon(name));
}
