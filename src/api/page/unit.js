// The page of a unit with a screen: one button, and pictures that say how far help has come. It runs for months without a hand
// on it: everything connects again by itself, and no press is forgotten.

import { follow, useTokens } from './api.js';
import { UnitLine } from './unitline.js';
import { Press } from './unitpress.js';
import { Prompts } from './unitprompts.js';
import { isComing, isCut, shows, WORDS } from './unitstate.js';

const $ = (id) => document.getElementById(id);
const button = decodeURIComponent(location.pathname.split('/').filter(Boolean).pop() ?? '');
// A connection that is back within this is not called lost.
const GRACE_MS = 3000;
// What has ended is shown for so long.
const ENDED_MS = 12000;
// With no word from the gateway for so long it is called out of reach.
const LATE_MS = 6000;
// An answered call whose line is cut for so long is lost; one whose line has not come up after so long, too.
const CUT_MS = 2000;
const COMING_UP_MS = 10000;
const PICTURES = { starting: 'ready', unsent: 'offline', refused: 'offline' };

// ---- The token: given once behind the address, then kept, and not shown

const TOKEN = `chowki-unit ${button}`;
let token = null;

/** From the address, if there is one; `true` when there was. */
function takeToken() {
  if (location.hash.length < 2) return false;
  token = location.hash.slice(1);
  try {
    token = decodeURIComponent(token);
  } catch {
    // It is meant as it stands.
  }
  try {
    localStorage.setItem(TOKEN, token);
    history.replaceState(null, '', location.pathname);
  } catch {
    // Storage is shut: it stays in the address, where the next load finds it.
  }
  return true;
}
try {
  if (!takeToken()) token = localStorage.getItem(TOKEN);
} catch {
  // Without one the gateway says whether it wants one.
}
addEventListener('hashchange', () => takeToken() && location.reload());
useTokens({ get: () => token });

// ---- The page is there when the gateway is not. Browsers allow that, as they do a camera, over TLS alone.

navigator.serviceWorker?.register('/page/unit-worker.js', { scope: '/unit/' }).catch(() => {});

// ---- What is known

// Times are those of `performance.now()`: the clock of a screen may be set back by an hour.
let [connected, told, cut, recorded, answeredAt, endedAt, grace, late] = [false, null, false, false, 0, -Infinity, null, false];
const path = `/v1/units/${encodeURIComponent(button)}`;
const prompts = new Prompts(`${path}/prompts`, $('prompt'));
const press = new Press(button, (news) => {
  if (news === 'recorded') {
    recorded = true;
    prompts.play('pressed');
  }
  draw();
});
const line = new UnitLine(button, $('operator'), () => draw());

follow(`${path}/events`, (name, next) => {
  if (name !== 'state') return;
  cut = isCut(told, next, cut);
  const over = told?.incident && (!next.incident || next.state === 'closed');
  if (over) endedAt = performance.now();
  if (next.call === 'answered' && told?.call !== 'answered') answeredAt = performance.now();
  if (over || (!next.incident && !press.pending)) recorded = false;
  told = next;
  draw();
}, (now) => {
  clearTimeout(grace);
  if (now) {
    connected = true;
    prompts.fetch();
    draw();
  } else {
    grace = setTimeout(() => {
      connected = false;
      draw();
    }, GRACE_MS);
  }
});

// ---- What is shown

/** Whether this unit's line may be taken to stand in a call that is answered; draws again when that ends. */
function stands(now) {
  if (line.up) return true;
  // One that was cut in this call is given up sooner than one that has not come up since it was answered.
  const until = line.downAt > answeredAt ? line.downAt + CUT_MS : answeredAt + COMING_UP_MS;
  if (told?.call === 'answered' && now < until) setTimeout(draw, until - now + 50);
  return now < until;
}

function draw() {
  const now = performance.now();
  let what = shows({ connected, refused: line.refused, late, pending: press.pending, told, cut, up: stands(now) });
  // A press just recorded, of which no event has come yet.
  if (what === 'ready' && recorded && now - endedAt > ENDED_MS) what = 'calling';
  if (what === 'ready' && now - endedAt < ENDED_MS) {
    what = 'ended';
    setTimeout(draw, ENDED_MS - (now - endedAt) + 50);
  }
  const [urdu, english] = WORDS[what];
  // Her picture only while the gateway says that it is on its way, and it is.
  const face = what === 'answered' && line.up && line.seen && told.speaking && $('operator').videoWidth > 0;
  $('operator').muted = what !== 'answered';
  document.body.dataset.shows = what;
  document.body.dataset.face = String(face);
  const picture = `/page/unit-${PICTURES[what] ?? what}.svg`;
  if ($('picture').getAttribute('src') !== picture) $('picture').src = picture;
  if ($('english').textContent !== english) {
    $('urdu').textContent = urdu;
    $('english').textContent = english;
  }
  $('recorded').hidden = !recorded || Boolean(press.pending);
  $('coming').hidden = !isComing(told) || what === 'coming' || !connected;
  $('blind').hidden = !line.missing;
  prompts.show(what);
}
setTimeout(() => {
  late = true;
  draw();
}, LATE_MS);
$('operator').addEventListener('resize', draw);
$('operator').addEventListener('loadeddata', draw);
draw();

// ---- The button

let last = -Infinity;

function pressed() {
  // A finger that trembles presses once.
  if (performance.now() - last < 500) return;
  last = performance.now();
  $('press').classList.remove('hit');
  requestAnimationFrame(() => $('press').classList.add('hit'));
  recorded = false;
  press.press();
  $('operator').play().catch(() => {});
}
$('press').addEventListener('pointerdown', pressed);
document.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' || event.key === ' ') {
    event.preventDefault();
    if (!event.repeat) pressed();
  } else if ((event.ctrlKey || event.metaKey) && ['+', '-', '=', '0'].includes(event.key)) event.preventDefault();
});

// ---- A screen that nobody puts away

// After the finger is lifted: only then does a browser take a touch for one.
document.addEventListener('click', () => document.fullscreenElement ?? document.documentElement.requestFullscreen?.().catch(() => {}));
for (const name of ['contextmenu', 'gesturestart', 'dragstart', 'selectstart']) document.addEventListener(name, (event) => event.preventDefault());
document.addEventListener('wheel', (event) => event.preventDefault(), { passive: false });
document.addEventListener('touchmove', (event) => event.preventDefault(), { passive: false });

let awake = null;

async function stayAwake() {
  if (document.visibilityState !== 'visible' || (awake && !awake.released)) return;
  awake = await navigator.wakeLock?.request('screen').catch(() => null) ?? null;
}
document.addEventListener('visibilitychange', stayAwake);
setInterval(stayAwake, 60000);
stayAwake();
