// The head of the page: how the gateway, the link, the buttons and the cameras are, alarms, and the operator's switches.

import { Alarm } from './alarm.js';
import { h, ltr, setIcon } from './dom.js';
import { clock, otherLanguage, t } from './strings.js';

const $ = (id) => document.getElementById(id);

/** Draws it from `desk`; `cut(up)` pulls the demo's plug, or puts it back. */
export function drawHeader(desk, { operator, cut }) {
  const { status } = desk;
  set($('district'), desk.district.name || 'chowki');
  set($('version'), desk.version && `chowki ${desk.version}`);
  const online = [...desk.buttons.values()].filter((one) => one.condition?.presence === 'online').length;
  const live = [...desk.cameras.values()].filter((one) => one.state === 'live').length;
  const waiting = (status.pending_documents ?? 0) + (status.pending_objects ?? 0);
  const fact = (name, value, tone, more = '') => h('span', { class: `fact ${tone}`, title: more }, h('small', {}, name), h('b', {}, value), more && h('small', { class: 'more' }, more));
  const ratio = (n, all) => (n === all ? 'good' : 'warn');
  const backhaul = { up: 'good', down: 'bad', none: 'dim' }[status.backhaul] ?? 'dim';
  const facts = [
    desk.demo ? h('span', { class: 'chip demo' }, t('demo')) : '',
    fact(t('connected'), desk.connected ? t('live') : t('lost'), desk.connected ? 'good' : 'bad'),
    fact(t('backhaul'), t(status.backhaul ?? 'none'), backhaul, status.backhaul_since && status.backhaul !== 'none' ? t('since', { time: clock(status.backhaul_since) }) : ''),
    fact(t('waiting'), t('objects', { d: status.pending_documents ?? 0, o: status.pending_objects ?? 0 }), waiting ? 'warn' : 'good'),
    fact(t('buttonsOnline'), ltr(`${online} / ${desk.buttons.size}`), ratio(online, desk.buttons.size)),
    fact(t('camerasLive'), ltr(`${live} / ${desk.cameras.size}`), ratio(live, desk.cameras.size)),
    ...(desk.demo ? [h('button', { type: 'button', class: 'demo-act', onclick: () => cut(status.backhaul === 'down') }, t(status.backhaul === 'down' ? 'demoJoin' : 'demoCut'))] : []),
  ];
  const focused = $('facts').contains(document.activeElement);
  $('facts').replaceChildren(...facts);
  if (focused) $('facts').querySelector('button')?.focus();
  const alarms = [journal(status.journal), ...(status.alarms ?? []).map((why) => t('alarm', { why }))].filter(Boolean);
  $('alarm').hidden = !alarms.length;
  set($('alarm'), alarms.join(' '));
  drawTools(operator);
}

/** What is wrong with the journal. Only while it fails or is slow are presses not acknowledged. */
function journal(state) {
  if (!state || state === 'ok') return '';
  return t(/^(failing|slow)\b/.test(state) ? 'journalStopped' : 'journalAlarm', { why: state });
}

function drawTools(operator) {
  set($('operator'), operator || t('setOperator'));
  $('operator').title = t('operator');
  const sounds = Alarm.sound;
  $('sound').setAttribute('aria-pressed', String(sounds));
  $('sound').title = t(sounds ? 'soundOn' : 'soundOff');
  $('sound').setAttribute('aria-label', t('sound'));
  setIcon($('sound'), sounds ? 'bell' : 'bellOff');
  $('notify').hidden = !Alarm.mayAsk;
  $('notify').title = t('notify');
  $('notify').setAttribute('aria-label', t('notify'));
  setIcon($('notify'), 'notify');
  set($('language'), t('toOther'));
  $('language').lang = otherLanguage();
  $('language').title = t('language');
  $('ringing').setAttribute('aria-label', t('ringing'));
  $('help').title = t('keys');
  $('help').setAttribute('aria-label', t('keys'));
}

const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};
