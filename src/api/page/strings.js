// The language of the page: which one, and the text of each key in it. The tables are `en.js` and `ur.js`.

import en from './en.js';
import ur from './ur.js';

const KEY = 'chowki-language';
export const LANGUAGES = { en, ur };

const wanted = () => localStorage.getItem(KEY) ?? navigator.languages.map((one) => one.split('-')[0]).find((one) => LANGUAGES[one]);
let table = en;
let told = () => {};

function speak(code) {
  table = LANGUAGES[code] ?? en;
  document.documentElement.lang = LANGUAGES[code] ? code : 'en';
  document.documentElement.dir = table.dir;
}
speak(wanted());

/** The language spoken now, and the one that a switch would change to. */
export const language = () => document.documentElement.lang;
export const otherLanguage = () => (language() === 'ur' ? 'en' : 'ur');

/** Speaks another language from now on, and tells whoever asked to be told. */
export function setLanguage(code) {
  localStorage.setItem(KEY, code);
  speak(code);
  told();
}

/** `tell` is called when all is to be drawn anew. */
export function onLanguage(tell) {
  told = tell;
}

// What is filled in keeps its own direction (Unicode Bidirectional Algorithm, isolates).
const isolated = (value) => (table.dir === 'rtl' && value !== '' ? `\u2068${value}\u2069` : value);

/** The text of a key such as `incidents` or `kind.panic`, `{name}` filled in; an unknown key shows itself. */
export function t(key, values = {}) {
  const text = key.split('.').reduce((at, part) => at?.[part], table);
  if (typeof text !== 'string') return text ?? key.split('.').pop();
  return text.replace(/\{(\w+)\}/g, (_, name) => isolated(values[name] ?? ''));
}

/** A wall time as hours, minutes and seconds of this place. */
export function clock(time) {
  return new Date(time).toLocaleTimeString('en-GB');
}

/** A span in milliseconds, in the largest two units. */
export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (n) => String(n).padStart(2, '0');
  if (s < 60) return `${s} ${t('time.s')}`;
  if (s < 3600) return `${Math.floor(s / 60)} ${t('time.min')} ${two(s % 60)} ${t('time.s')}`;
  if (s < 86400) return `${Math.floor(s / 3600)} ${t('time.h')} ${two(Math.floor(s / 60) % 60)} ${t('time.min')}`;
  return `${Math.floor(s / 86400)} ${t('time.d')} ${Math.floor(s / 3600) % 24} ${t('time.h')}`;
}

/** A line of an incident's history in the words of this language, as far as it has them; the gateway's own otherwise. */
export function history(what) {
  for (const [pattern, words] of table.what) {
    const found = new RegExp(pattern).exec(what);
    if (found) return words.replace(/\{(\d)\}/g, (_, n) => isolated(found[n]));
  }
  return what;
}
