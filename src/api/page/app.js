// The console page: who shows what the gateway tells, and what the operator's keys do.

import { Alarm } from './alarm.js';
import { follow, onTokenWanted, post } from './api.js';
import { Desk } from './desk.js';
import { ask, help, toast } from './dialog.js';
import { h, icon } from './dom.js';
import { drawHeader } from './header.js';
import { IncidentPanel } from './incident.js';
import { List } from './list.js';
import { DistrictMap } from './map.js';
import { Ringing } from './ringing.js';
import { onLanguage, otherLanguage, setLanguage, span, t } from './strings.js';
import { Switchboard } from './switchboard.js';

// Drawn within this, with or without a frame of the browser.
const DRAWN_MS = 100;
// Between two tries to fetch everything.
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10000;

const $ = (id) => document.getElementById(id);
const desk = new Desk();
const { calls } = desk;

const board = new Switchboard(calls, { name: operator, onChange: render, onLevel: (level) => panel.callbar.showLevel(level) });
calls.isMine = board.isIn;
const panel = new IncidentPanel($('incident'), { act: step, onClose: () => choose(null), calls, board });
const map = new DistrictMap($('map'), chooseOnMap);
const list = new List(desk, { choose, place: (at) => map.show(at), demo: tell, changed: render });
const ringing = new Ringing($('ringing'), { look, answer });
const alarm = new Alarm(look);

const onEvent = {
  incident(incident) {
    const news = !desk.incidents.has(incident.id) && !calls.known;
    if (desk.hear('incident', incident) && news && incident.state !== 'closed') announce(incident);
  },
  call(told) {
    const rang = calls.of(told.incident);
    const news = calls.ringsHere(told) && !(rang && calls.ringsHere(rang));
    desk.hear('call', told);
    board.heard(told);
    if (news) announce(desk.incident(told.incident), told);
  },
  button(condition) {
    if (desk.hear('button', condition)) map.button(condition.button, condition);
  },
  camera(told) {
    if (desk.hear('camera', told)) map.camera(told.id, told.state, told.detail);
  },
  status: (status) => desk.hear('status', status),
  // What was missed is no longer kept.
  reset: fetchAll,
};

let round = 0;

/** Until it succeeds, or the connection is lost: what is missing could be a call that rings. */
async function fetchAll() {
  const own = ++round;
  const current = () => own === round && desk.connected;
  for (let wait = FIRST_WAIT_MS; current(); wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    try {
      if (!await desk.fetchAll()) return;
      place();
      const left = board.fetched();
      if (left) choose(left);
      render();
      return;
    } catch (error) {
      if (!current()) return;
      toast(t('failed', { why: error.message }));
      await new Promise((rest) => setTimeout(rest, wait));
    }
  }
}

const place = () => map.place(desk.district, [...desk.buttons.values()], [...desk.cameras.values()]);

// ---- Drawing

let [due, frame, timer] = [false, 0, 0];

function render() {
  if (due) return;
  due = true;
  // Whichever comes first: a page in the background, or one that goes there now, has no frames and rings all the same.
  frame = requestAnimationFrame(draw);
  timer = setTimeout(draw, DRAWN_MS);
}

function draw() {
  cancelAnimationFrame(frame);
  clearTimeout(timer);
  due = false;
  drawHeader(desk, { operator: operator(), cut: (up) => tell('/demo/backhaul', { up }) });
  const rings = calls.ringing(desk.incidents);
  // What this operator looks at right now has its pictures there, and is not shown twice.
  ringing.show(rings.filter((one) => !board.isIn(one.id)), calls);
  const shown = rings.map(({ id, incident, call }) => ({ id, ...(incident ?? call) })).map(({ id, kind, button }) => ({ id, kind, button }));
  alarm.show(shown, { escalated: rings.some((one) => one.call && calls.isEscalated(one.call)), talking: Boolean(board.call && !board.call.isOver), title: desk.district.name || 'chowki', count: calls.known ? shown.length : desk.unseen });
  $('touch').hidden = !alarm.unheard;
  $('touch').textContent = t('touch');
  drawOnCall();
  list.draw();
  const chosen = desk.incident(desk.chosen);
  $('main').classList.toggle('has-incident', Boolean(chosen));
  panel.show(chosen);
  map.incidents(desk.open, chosen);
}

/** The way back to the call that this operator is in, while she looks at something else. */
function drawOnCall() {
  const { call } = board;
  const away = call && !call.isOver && desk.chosen !== call.incident;
  $('oncall').hidden = !away;
  if (!away) return;
  const name = desk.incident(call.incident)?.button.name ?? '';
  $('oncall').dataset.state = call.state;
  $('oncall').replaceChildren(icon('answer'), h('b', {}, h('bdi', {}, name)), h('small', {}, call.state === 'connected' ? t(board.hasFloor(call.incident) ? 'call.answeredByYou' : 'call.youListen') : t(call.state === 'cut' ? 'call.cut' : 'call.connecting')));
}

// ---- What the operator does

/** Opens an incident that rings. */
function look(id) {
  list.tab = 'incidents';
  choose(id);
}

/** Opens it and takes its call. */
function answer(id) {
  look(id);
  board.answer(id);
}

function choose(id) {
  desk.chosen = id;
  const incident = desk.incident(id);
  // Near enough for the street, far enough for every camera that records.
  const reach = (incident?.cameras ?? []).filter((one) => one.recorded).map((one) => one.distance_m + 25);
  if (incident) map.show(incident.button.at, Math.min(Math.max(80, ...reach), 260));
  render();
}

function chooseOnMap(kind, id) {
  const incident = kind === 'button' && desk.queue.find((one) => one.button.id === id && one.state !== 'closed');
  if (incident) {
    look(incident.id);
    return;
  }
  list.tab = kind === 'button' ? 'buttons' : 'cameras';
  render();
  requestAnimationFrame(() => requestAnimationFrame(() => list.reveal(id)));
}

function operator() {
  return localStorage.getItem('chowki-operator') ?? '';
}

async function askOperator() {
  const name = await ask(t('askOperator'), { value: operator(), label: t('operator') });
  if (name?.trim()) localStorage.setItem('chowki-operator', name.trim());
  render();
  return operator();
}

async function step(name) {
  const incident = desk.incidents.get(desk.chosen);
  if (!incident) return;
  if (name === 'close' && (await ask(t('askClose', { button: incident.button.name }))) === null) return;
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

/** Says that something new rings, and opens it on an idle desk; one at work is not interrupted. */
function announce(incident, told) {
  const [again, group] = (told && calls.why(told)) ?? [];
  const why = again ? ` ${t(`again.${again}`, { group })}` : '';
  $('announce').textContent = t('newIncident', { kind: t(`kind.${incident.kind}`), button: incident.button.name }) + why;
  if (incident.test) return;
  const chosen = desk.incident(desk.chosen);
  const atWork = board.call && !board.call.isOver;
  if (!atWork && (!chosen || chosen.state === 'closed')) look(incident.id);
}

// ---- Keys

/** The chosen incident rings, or else the first card does. */
const toAnswer = () => {
  const told = calls.of(desk.chosen);
  if (told && (['ringing', 'ended'].includes(told.call.state) || calls.ringsHere(told)) && desk.incident(desk.chosen)?.state !== 'closed') return desk.chosen;
  return board.isIn(desk.chosen) ? desk.chosen : ringing.first;
};
const onChosen = (act) => () => desk.chosen && act(desk.chosen);
const keys = {
  s: () => step('seen'), d: () => step('dispatched'), c: () => step('close'), ' ': () => panel.toggle(), ArrowLeft: () => panel.skip(-5000), ArrowRight: () => panel.skip(5000),
  p: () => panel.toPress(), l: () => panel.toLatest(), m: () => panel.mute(), v: () => panel.nextCamera(), Escape: () => choose(null),
  i: onChosen(board.listen), t: ({ timeStamp }) => desk.chosen && board.talkDown(desk.chosen, timeStamp), h: onChosen((id) => board.hold(id)), o: onChosen((id) => board.handOver(id)), x: onChosen((id) => board.hangUp(id)), k: onChosen((id) => board.showLens(id)),
  f: onChosen((id) => calls.isSupervisor && board.take(id)),
};
const always = {
  a: () => toAnswer() && answer(toAnswer()), u: () => setLanguage(otherLanguage()),
  1: () => list.show('incidents'), 2: () => list.show('buttons'), 3: () => list.show('cameras'), '+': () => map.zoom(1.5), '=': () => map.zoom(1.5), '-': () => map.zoom(1 / 1.5), 0: () => map.fit(), '?': help, ArrowDown: () => list.move(1), ArrowUp: () => list.move(-1),
};

/** The key's letter; on a keyboard of another script that of its place. */
function letter({ key, code }) {
  if (key.length > 1 || /[\x20-\x7e]/.test(key)) return key.length === 1 ? key.toLowerCase() : key;
  return /^(?:Key|Digit)(.)$/.exec(code)?.[1].toLowerCase() ?? key;
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || $('dialog').open) return;
  const { target } = event;
  if (target.matches('input:not([type=range]), textarea')) return;
  if (target.matches('input[type=range]') && event.key.startsWith('Arrow')) return;
  if (event.key === ' ' && target.matches('button')) return;
  // Enter with nothing under it answers what rings.
  const bare = event.key === 'Enter' && target === document.body && !event.repeat && ringing.first;
  const key = letter(event);
  const act = bare ? () => answer(ringing.first) : always[key] ?? (panel.incident ? keys[key] : undefined);
  if (!act) return;
  event.preventDefault();
  if (event.repeat && /^[a-z]$/.test(key)) return;
  act(event);
});
document.addEventListener('keyup', (event) => letter(event) === 't' && board.talkUp(event.timeStamp));
addEventListener('blur', () => board.talkUp());
document.addEventListener('visibilitychange', draw);

$('operator').addEventListener('click', askOperator);
$('help').addEventListener('click', help);
$('oncall').addEventListener('click', () => look(board.call.incident));
$('language').addEventListener('click', () => setLanguage(otherLanguage()));
$('notify').addEventListener('click', () => Alarm.ask().finally(render));
$('sound').addEventListener('click', () => {
  Alarm.sound = !Alarm.sound;
  render();
});
onLanguage(() => {
  ringing.translate();
  map.translate();
  place();
  panel.translate();
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
  desk.connected = connected;
  render();
  if (connected) fetchAll();
});
