// Keeps the page of a unit where the gateway cannot be reached: a screen that starts or reloads meanwhile shows the page all the same,
// says what is true, and holds a press until it can be sent. The gateway is asked first, and what it gives is kept.

const KEPT = 'chowki-unit';
// A gateway that has not begun to answer within this is taken to be away.
const PATIENCE_MS = 3000;

const FILES = [
  '/page/api.js', '/page/call.js', '/page/ice.js', '/page/microphone.js', '/page/unit.js', '/page/unitline.js', '/page/unitpress.js', '/page/unitprompts.js',
  '/page/unitstate.js', '/page/unit.css', '/page/icon.svg', '/page/unit-answered.svg', '/page/unit-calling.svg', '/page/unit-coming.svg',
  '/page/unit-ended.svg', '/page/unit-hold.svg', '/page/unit-lost.svg', '/page/unit-offline.svg', '/page/unit-reached.svg',
  '/page/unit-ready.svg',
];

self.addEventListener('install', (event) => {
  self.skipWaiting();
  event.waitUntil(keepAll());
});
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  const { origin, pathname } = new URL(event.request.url);
  const kept = /^\/(unit|page|v1\/units\/[^/]+\/prompts)\//.test(pathname);
  if (event.request.method === 'GET' && origin === location.origin && kept) event.respondWith(answer(event));
});

/** The files, and the page that is open: what cannot be had now is kept when it is first asked for. */
async function keepAll() {
  const [cache, pages] = await Promise.all([caches.open(KEPT), self.clients.matchAll({ includeUncontrolled: true })]);
  await Promise.allSettled([...FILES, ...pages.map((page) => new URL(page.url).pathname)].map((path) => cache.add(path)));
}

async function answer(event) {
  const { request } = event;
  const stop = new AbortController();
  const patience = setTimeout(() => stop.abort(), PATIENCE_MS);
  try {
    const given = await fetch(request, { signal: stop.signal });
    // Given at once, and kept beside that: storage that is full or broken hides no gateway that answers.
    if (given.ok) event.waitUntil(keep(request, given.clone()).catch(() => {}));
    return given;
  } catch {
    return (await caches.match(request, { cacheName: KEPT }).catch(() => null)) ?? Response.error();
  } finally {
    clearTimeout(patience);
  }
}

const keep = async (request, given) => (await caches.open(KEPT)).put(request, given);
