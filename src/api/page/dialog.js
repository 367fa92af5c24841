// The page's one dialog and its passing notes: questions, choices, the list of keys.

import { h } from './dom.js';
import { t } from './strings.js';

const $ = (id) => document.getElementById(id);

/** Gives the question before up. */
let unanswered = () => {};

/** Puts a question up: `fill(dialog, close)` gives its form; the value that it was closed with, or `null` when cancelled. */
function put(fill, must) {
  const dialog = $('dialog');
  const form = fill(dialog);
  dialog.replaceChildren(form);
  if (dialog.open) dialog.close('');
  unanswered();
  return new Promise((done) => {
    unanswered = () => done(null);
    dialog.oncancel = (event) => { if (must) event.preventDefault(); };
    // The event comes after the dialog is gone: the next question may already stand there.
    dialog.onclose = () => { if (!dialog.open) done(dialog.returnValue === '' ? null : dialog.returnValue); };
    dialog.returnValue = '';
    dialog.showModal();
    (form.querySelector('input') ?? form.querySelector('.act'))?.focus();
  });
}

/** Asks in the page's dialog; the text entered ('' when none was asked for), or `null` when cancelled. */
export async function ask(question, { value, label, type = 'text', ok = t('ok'), must = false } = {}) {
  const input = label && h('input', { type, value: value ?? '', name: 'answer', autocomplete: 'off', 'aria-label': label, required: true });
  const answer = await put((dialog) => h('form', { method: 'dialog' }, h('p', {}, question), input, h('div', { class: 'line' }, !must && h('button', { type: 'button', onclick: () => dialog.close('') }, t('cancel')), h('button', { type: 'submit', class: 'act', value: 'ok' }, ok))), must);
  return answer === null ? null : input?.value ?? '';
}

/** Has one chosen of `[text, value]`s; the value, or `null`. */
export async function pick(question, choices, none) {
  const answer = await put((dialog) => h('form', { method: 'dialog' }, h('p', {}, question), choices.length ? h('div', { class: 'choices' }, choices.map(([text], i) => h('button', { type: 'submit', class: 'act', value: String(i) }, text))) : h('p', { class: 'muted' }, none), h('div', { class: 'line' }, h('button', { type: 'button', class: choices.length ? '' : 'act', onclick: () => dialog.close('') }, t('cancel')))), false);
  return answer === null ? null : choices[Number(answer)][1];
}

/** Something that is said once and goes away. */
export function toast(text, tone = 'bad') {
  const note = h('div', { class: `toast ${tone}` }, text);
  document.body.append(note);
  $('announce').textContent = text;
  setTimeout(() => note.remove(), 7000);
}

/** The list of keys. */
export function help() {
  const dialog = $('dialog');
  dialog.replaceChildren(h('h2', {}, t('keys')), h('dl', { class: 'keys' }, ...t('help').map(([key, what]) => h('div', {}, h('dt', {}, h('kbd', { dir: 'ltr' }, key)), h('dd', {}, what)))), h('form', { method: 'dialog' }, h('button', { class: 'act' }, t('ok'))));
  dialog.oncancel = null;
  dialog.onclose = null;
  dialog.showModal();
}
