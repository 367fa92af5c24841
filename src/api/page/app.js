// The console page: what the gateway tells, in one place, and who shows it.

import { follow, json, onTokenWanted, post } from './api.js';
import { badge, h, IncidentPanel, setIcon } from './incident.js';
import { DistrictMap } from './map.js';
import { Ringing } from './ringing.js';
import { clock, span, t } from './strings.js';

const $ = (id) => document.getElementById(id);
// Closed incidents kept in the list; open ones are all kept.
const CLOSED_SHOWN = 100;
const PAGES = 50;
const URGENCY = ['panic', 'medical', 'fire', 'accident', 'tamper', 'test'];

const state = {
  district: { id: '', name: '' }, version: '', demo: false, status: {}, connected: false,
  buttons: new Map(), cameras: new Map(), incidents: new Map(), chosen: null, tab: 'incidents', focus: null,
};

const panel = new IncidentPanel($('incident'), { act: step, onClose: () => choose(null) });
const map = new DistrictMap($('map'), chooseOnMap);
const ringing = new Ringing($('ringing'), ring);

// ---- What the gateway tells

async function fetchAll() {
  const [home, buttons, cameras, status] = await Promise.all(['/v1/district', '/v1/buttons', '/v1/cameras', '/v1/status'].map(json));
  Object.assign(state, { district: home.district, version: home.version, demo: Boolean(home.demo), status });
  state.buttons = new Map(buttons.buttons.map((one) => [one.id, one]));
  state.cameras = new Map(cameras.cameras.map((one) => [one.id, one]));
  map.place(state.district, buttons.buttons, cameras.cameras);
  await fetchIncidents();
  render();
}

async function fetchIncidents() {
  let after = '';
  for (let page = 0; page < PAGES; page++) {
    const { incidents, next } = await json(`/v1/incidents?limit=100${after && `&after=${encodeURIComponent(after)}`}`);
    incidents.forEach((one) => take(one));
    if (!incidents.length || next === null || next === undefined || String(next) === after) break;
    after = String(next);
  }
}

/** Keeps the higher revision; `true` when it was news. */
function take(incident) {
  const known = state.incidents.get(incident.id);
  if (known && known.revision >= incident.revision) return false;
  state.incidents.set(incident.id, incident);
  const closed = [...state.incidents.values()].filter((one) => one.state === 'closed' && one.id !== state.chosen);
  if (closed.length > CLOSED_SHOWN) {
    closed.sort((a, b) => pressedAt(a) - pressedAt(b));
    closed.slice(0, closed.length - CLOSED_SHOWN).forEach((one) => state.incidents.delete(one.id));
  }
  return true;
}

const onEvent = {
  incident(incident) {
    const isNew = !state.incidents.has(incident.id);
    if (!take(incident)) return;
    if (isNew && incident.state !== 'closed') alert(incident);
  },
  button(condition) {
    const button = state.buttons.get(condition.button);
    if (!button || (button.condition?.revision ?? -1) > condition.revision) return;
    button.condition = condition;
    map.button(button.id, condition);
  },
  camera({ id, state: now, detail }) {
    const camera = state.cameras.get(id);
    if (!camera) return;
    Object.assign(camera, { state: now, detail });
    map.camera(id, now, detail);
  },
  status(status) {
    state.status = status;
  },
};

// ---- Drawing

let drawn = false;

function render() {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    renderHeader();
    // A test wakes nobody.
    ringing.show(queue().filter((one) => !one.test && UNSEEN.includes(one.state)));
    renderTabs();
    renderList();
    const chosen = state.incidents.get(state.chosen) ?? null;
    $('main').classList.toggle('has-incident', Boolean(chosen));
    panel.show(chosen);
    map.incidents(open(), chosen);
  });
}

/** States of an incident that no operator has opened. */
const UNSEEN = ['received', 'recorded', 'delivered'];

const pressedAt = (incident) => Date.parse(incident.pressed_at.at);
const open = () => [...state.incidents.values()].filter((one) => one.state !== 'closed');

/** Open before closed, real before test, unseen before seen, then by urgency within the unseen, then the newest. */
function queue() {
  const rank = (one) => [one.state === 'closed', one.test, !UNSEEN.includes(one.state), one.state === 'closed' ? 0 : URGENCY.indexOf(one.kind), -pressedAt(one)].map(Number);
  return [...state.incidents.values()].map((one) => [rank(one), one]).sort(([a], [b]) => a.map((n, i) => n - b[i]).find((n) => n) ?? 0).map(([, one]) => one);
}

function renderHeader() {
  const { status } = state;
  $('district').textContent = state.district.name;
  $('version').textContent = state.version && `chowki ${state.version}`;
  const online = [...state.buttons.values()].filter((one) => one.condition?.presence === 'online').length;
  const live = [...state.cameras.values()].filter((one) => one.state === 'live').length;
  const waiting = (status.pending_documents ?? 0) + (status.pending_objects ?? 0);
  const fact = (name, value, tone, more = '') => h('span', { class: `fact ${tone}`, title: more }, h('small', {}, name), h('b', {}, value), more && h('small', { class: 'more' }, more));
  const ratio = (n, all) => (n === all ? 'good' : 'warn');
  const backhaul = { up: 'good', down: 'bad', none: 'dim' }[status.backhaul] ?? 'dim';
  $('facts').replaceChildren(
    state.demo ? h('span', { class: 'chip demo' }, t('demo')) : '',
    fact(t('connected'), state.connected ? t('live') : t('lost'), state.connected ? 'good' : 'bad'),
    fact(t('backhaul'), t(status.backhaul ?? 'none'), backhaul, status.backhaul_since && status.backhaul !== 'none' ? t('since', { time: clock(status.backhaul_since) }) : ''),
    fact(t('waiting'), t('objects', { d: status.pending_documents ?? 0, o: status.pending_objects ?? 0 }), waiting ? 'warn' : 'good'),
    fact(t('buttonsOnline'), `${online} / ${state.buttons.size}`, ratio(online, state.buttons.size)),
    fact(t('camerasLive'), `${live} / ${state.cameras.size}`, ratio(live, state.cameras.size)),
    ...(state.demo ? [h('button', { type: 'button', class: 'demo-act', onclick: () => tell('/demo/backhaul', { up: status.backhaul === 'down' }) }, t(status.backhaul === 'down' ? 'demoJoin' : 'demoCut'))] : []),
  );
  const alarms = [
    status.journal && status.journal !== 'ok' && t('journalAlarm', { why: status.journal }),
    ...(status.alarms ?? []).map((why) => t('alarm', { why })),
  ].filter(Boolean);
  $('alarm').hidden = !alarms.length;
  if ($('alarm').textContent !== alarms.join(' ')) $('alarm').textContent = alarms.join(' ');
  const name = operator();
  $('operator').textContent = name || t('setOperator');
  $('operator').title = t('operator');
  const sounds = localStorage.getItem('chowki-sound') !== 'off';
  $('sound').setAttribute('aria-pressed', String(sounds));
  $('sound').title = t(sounds ? 'soundOn' : 'soundOff');
  $('sound').setAttribute('aria-label', t('sound'));
  setIcon($('sound'), sounds ? 'bell' : 'bellOff');
  $('ringing').setAttribute('aria-label', t('ringing'));
  $('help').title = t('keys');
  $('help').setAttribute('aria-label', t('keys'));
  const unseen = open().filter((one) => !one.test && UNSEEN.includes(one.state)).length;
  document.title = `${unseen ? `(${unseen}) ` : ''}${state.district.name || 'chowki'}`;
}

function renderTabs() {
  const counts = { incidents: open().length, buttons: state.buttons.size, cameras: state.cameras.size };
  const focused = $('tabs').contains(document.activeElement);
  $('tabs').replaceChildren(...Object.entries(counts).map(([name, n]) => h('button', { type: 'button', role: 'tab', id: `tab-${name}`, 'aria-controls': 'list', 'aria-selected': String(state.tab === name), tabIndex: state.tab === name ? 0 : -1, onclick: () => show(name), onkeydown: tabKey }, t(name), h('span', { class: `count ${name === 'incidents' && n ? 'hot' : ''}` }, String(n)))));
  $('list').setAttribute('aria-labelledby', `tab-${state.tab}`);
  if (focused) $(`tab-${state.tab}`).focus();
}

function tabKey(event) {
  const names = ['incidents', 'buttons', 'cameras'];
  const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!move) return;
  event.preventDefault();
  event.stopPropagation();
  show(names[(names.indexOf(state.tab) + move + 3) % 3]);
}

const rows = {
  incidents: () => queue().map((one) => row(one.id, one.id === state.chosen, `incident ${one.state} ${one.test ? 'is-test' : ''}`, () => choose(one.id), [
    h('span', { class: 'line' }, badge(one), h('span', { class: 'age', 'data-age': one.pressed_at.at }, span(Date.now() - pressedAt(one)))),
    h('b', {}, one.button.name),
    h('span', { class: 'line' }, h('span', { class: `stage ${one.state}` }, t(`state.${one.state}`)), h('small', {}, `${clock(one.pressed_at.at)}${one.press_count > 1 ? ` · ${t('presses', { n: one.press_count })}` : ''}`)),
  ])),
  buttons: () => [...state.buttons.values()].map((one) => {
    const { presence = 'unknown', low_battery: low, tamper, status } = one.condition ?? {};
    const words = [t(`presence.${presence}`), low && t('lowBattery'), tamper && t('tampered'), status?.battery !== undefined && status?.battery !== null && t('battery', { n: Math.round(status.battery * 100) })].filter(Boolean);
    return row(one.id, false, `thing ${presence} ${low || tamper ? 'warned' : ''}`, () => { map.show(one.at); }, [h('b', {}, one.name), h('span', { class: 'line' }, h('span', { class: 'dot' }), h('small', {}, words.join(' · ')), h('small', { class: 'id' }, one.id))], state.demo && demoAct(t('demoPress'), `/demo/press/${encodeURIComponent(one.id)}`, {}));
  }),
  cameras: () => [...state.cameras.values()].map((one) => row(one.id, false, `thing ${one.state}`, () => { map.show(one.at); }, [h('b', {}, one.name), h('span', { class: 'line' }, h('span', { class: 'dot' }), h('small', {}, [t(`camera.${one.state}`), one.detail].filter(Boolean).join(' · ')), h('small', { class: 'id' }, one.id))], state.demo && demoAct(t(one.state === 'live' ? 'demoDown' : 'demoUp'), `/demo/camera/${encodeURIComponent(one.id)}`, { up: one.state !== 'live' }))),
};

const demoAct = (text, path, body) => h('button', { type: 'button', class: 'demo-act', onclick: () => tell(path, body) }, text);

function row(id, chosen, kind, act, inner, extra = null) {
  return h('div', { class: `row ${kind} ${chosen ? 'chosen' : ''}`, 'data-id': id }, h('button', { type: 'button', class: 'pick', 'aria-current': chosen && 'true', onclick: act }, inner), extra);
}

function renderList() {
  const list = $('list');
  const focused = list.contains(document.activeElement) ? document.activeElement.closest('[data-id]')?.dataset.id : null;
  const wasDemo = document.activeElement?.classList.contains('demo-act');
  const fresh = rows[state.tab]();
  list.replaceChildren(...(fresh.length ? fresh : [h('p', { class: 'empty' }, t('noIncidents'))]));
  const again = focused && fresh.find((one) => one.dataset.id === focused);
  if (again) again.querySelector(wasDemo ? '.demo-act' : '.pick')?.focus({ preventScroll: true });
}

// ---- What the operator does

function show(tab) {
  state.tab = tab;
  $('list').scrollTop = 0;
  render();
}

/** Opens an incident whose card rings. */
function ring(id) {
  state.tab = 'incidents';
  choose(id);
}

function choose(id) {
  state.chosen = id;
  const incident = state.incidents.get(id);
  // Near enough for the street, far enough for every camera that records.
  const reach = (incident?.cameras ?? []).filter((one) => one.recorded).map((one) => one.distance_m + 25);
  if (incident) map.show(incident.button.at, Math.min(Math.max(80, ...reach), 260));
  render();
}

function chooseOnMap(kind, id) {
  const incident = kind === 'button' && queue().find((one) => one.button.id === id && one.state !== 'closed');
  if (incident) {
    state.tab = 'incidents';
    choose(incident.id);
    return;
  }
  state.tab = kind === 'button' ? 'buttons' : 'cameras';
  render();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const found = [...$('list').children].find((one) => one.dataset.id === id);
    found?.scrollIntoView({ block: 'nearest' });
    found?.querySelector('.pick')?.focus();
  }));
}

const operator = () => localStorage.getItem('chowki-operator') ?? '';

async function askOperator() {
  const name = await ask(t('askOperator'), { value: operator(), label: t('operator') });
  if (name?.trim()) localStorage.setItem('chowki-operator', name.trim());
  render();
  return operator();
}

async function step(name) {
  const incident = state.incidents.get(state.chosen);
  if (!incident) return;
  if (name === 'close' && (await ask(t('askClose', { button: incident.button.name }), {})) === null) return;
  const by = operator() || await askOperator();
  if (by) await tell(`/v1/incidents/${incident.id}/${name}`, { by });
}

async function tell(path, body) {
  try {
    await post(path, body);
  } catch (error) {
    toast(t('failed', { why: error.message }));
  }
}

/** Gives the question before up. */
let unanswered = () => {};

/** Asks in the page's dialog; the text entered ('' when none was asked for), or `null` when cancelled. */
function ask(question, { value, label, type = 'text', ok = t('ok'), must = false }) {
  const dialog = $('dialog');
  const input = label && h('input', { type, value: value ?? '', name: 'answer', autocomplete: 'off', 'aria-label': label, required: true });
  const form = h('form', { method: 'dialog' }, h('p', {}, question), input, h('div', { class: 'line' }, !must && h('button', { type: 'button', onclick: () => dialog.close('') }, t('cancel')), h('button', { type: 'submit', class: 'act', value: 'ok' }, ok)));
  dialog.replaceChildren(form);
  if (dialog.open) dialog.close('');
  unanswered();
  return new Promise((done) => {
    unanswered = () => done(null);
    dialog.oncancel = (event) => { if (must) event.preventDefault(); };
    // The event comes after the dialog is gone: the next question may already stand there.
    dialog.onclose = () => { if (!dialog.open) done(dialog.returnValue === 'ok' ? input?.value ?? '' : null); };
    dialog.returnValue = '';
    dialog.showModal();
    (input || form.querySelector('.act')).focus();
  });
}

function toast(text) {
  const note = h('div', { class: 'toast' }, text);
  document.body.append(note);
  $('announce').textContent = text;
  setTimeout(() => note.remove(), 6000);
}

function alert(incident) {
  $('announce').textContent = t('newIncident', { kind: t(`kind.${incident.kind}`), button: incident.button.name });
  if (incident.test) return;
  if (localStorage.getItem('chowki-sound') !== 'off') beep();
  // An idle desk shows the press at once; one at work is not interrupted.
  const chosen = state.incidents.get(state.chosen);
  if (!chosen || chosen.state === 'closed') {
    state.tab = 'incidents';
    choose(incident.id);
  }
}

let audio = null;

/** Three rising tones. A browser is silent until the page has been touched once. */
function beep() {
  audio ??= new AudioContext();
  [660, 880, 1100].forEach((pitch, i) => {
    const tone = new OscillatorNode(audio, { frequency: pitch });
    const level = new GainNode(audio, { gain: 0.15 });
    tone.connect(level).connect(audio.destination);
    tone.start(audio.currentTime + i * 0.18);
    tone.stop(audio.currentTime + i * 0.18 + 0.14);
  });
}

function help() {
  const dialog = $('dialog');
  dialog.replaceChildren(h('h2', {}, t('keys')), h('dl', {}, ...t('help').flatMap(([key, what]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, what)])), h('form', { method: 'dialog' }, h('button', { class: 'act' }, t('ok'))));
  dialog.oncancel = null;
  dialog.onclose = null;
  dialog.showModal();
}

const keys = {
  s: () => step('seen'), d: () => step('dispatched'), c: () => step('close'), ' ': () => panel.toggle(), ArrowLeft: () => panel.skip(-5000), ArrowRight: () => panel.skip(5000),
  p: () => panel.toPress(), l: () => panel.toLatest(), m: () => panel.mute(), v: () => panel.nextCamera(), Escape: () => choose(null),
};
const always = { 1: () => show('incidents'), 2: () => show('buttons'), 3: () => show('cameras'), '+': () => map.zoom(1.5), '=': () => map.zoom(1.5), '-': () => map.zoom(1 / 1.5), 0: () => map.fit(), '?': help, ArrowDown: () => move(1), ArrowUp: () => move(-1) };

function move(by) {
  const picks = [...$('list').querySelectorAll('.pick')];
  const at = picks.indexOf(document.activeElement);
  picks[at < 0 ? 0 : Math.min(Math.max(at + by, 0), picks.length - 1)]?.focus();
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || $('dialog').open) return;
  const { target } = event;
  if (target.matches('input:not([type=range]), textarea')) return;
  if (target.matches('input[type=range]') && event.key.startsWith('Arrow')) return;
  if (event.key === ' ' && target.matches('button')) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = always[key] ?? (panel.incident ? keys[key] : undefined);
  if (!act) return;
  event.preventDefault();
  act();
});

$('operator').addEventListener('click', askOperator);
$('help').addEventListener('click', help);
$('sound').addEventListener('click', () => {
  localStorage.setItem('chowki-sound', localStorage.getItem('chowki-sound') === 'off' ? 'on' : 'off');
  render();
});
setInterval(() => {
  for (const age of document.querySelectorAll('[data-age]')) age.textContent = span(Date.now() - Date.parse(age.dataset.age));
}, 1000);

onTokenWanted(async (again) => await ask(t(again ? 'wrongToken' : 'askToken'), { label: t('token'), type: 'password', ok: t('signIn'), must: true }) ?? '');

// ---- Start

render();
follow('/v1/events', (name, data) => {
  onEvent[name]?.(data);
  render();
}, (connected) => {
  state.connected = connected;
  render();
  if (connected) fetchAll().catch((error) => toast(t('failed', { why: error.message })));
});
