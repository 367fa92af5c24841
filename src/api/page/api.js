// Talking to the gateway: signing in, requests, and the stream of events.

// How often somebody has signed in, and whether the last token was wrong. The session itself is a cookie that no script reads.
let signedIn = 0;
let wrong = false;

async function signIn(token) {
  const answer = await fetch('/v1/session', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ token }) });
  wrong = !answer.ok;
  if (answer.ok) signedIn += 1;
}

// The page signs in; a unit's page has a token of its own.
let tokens = { get: () => null, set: signIn };
// No byte for so long (the gateway sends a comment now and then): the connection is dead.
const SILENCE_MS = 60000;

/** An answer that is not a success: `status`, and the gateway's own words. */
export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

let askToken = async () => '';
let asking = null;

/** How a token is asked for when the gateway wants one: an async function that returns it. */
export function onTokenWanted(ask) {
  askToken = ask;
}

/** Where the token comes from: `get()`, and `set(token)` for one that was asked for. Without `set` nobody is asked. */
export function useTokens(others) {
  tokens = others;
}

function headers(extra = {}) {
  const token = tokens.get();
  return token ? { ...extra, Authorization: `Bearer ${token}` } : extra;
}

/** `fetch`, with the session or a unit's token; asks for one when the gateway wants it. Throws `Refused` for what is not a success. */
export async function request(path, options = {}) {
  for (;;) {
    const sent = signedIn;
    const answer = await fetch(path, { cache: 'no-store', ...options, headers: headers(options.headers) });
    if (answer.status === 401 && tokens.set) {
      if (signedIn !== sent) continue;
      // One question, however many requests wait for it.
      asking ??= askToken(wrong).then(tokens.set).finally(() => { asking = null; });
      await asking;
      continue;
    }
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, problem.detail ?? problem.title ?? `${answer.status} ${answer.statusText}`);
  }
}

export const json = async (path) => (await request(path)).json();

export async function post(path, body, more = {}) {
  return request(path, { ...more, method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body ?? {}) });
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * Follows `path` for ever: `onEvent(name, data)` for each event, `onState(true)` when connected (fetch everything
 * anew then), `onState(false)` when lost. Read by `fetch`, since `EventSource` cannot send a unit's token.
 */
export async function follow(path, onEvent, onState) {
  let last = null;
  let wait = 500;
  for (;;) {
    const stop = new AbortController();
    let silence;
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(() => stop.abort(), SILENCE_MS);
    };
    try {
      alive();
      const extra = { Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) };
      const answer = await request(path, { headers: extra, signal: stop.signal });
      onState(true);
      wait = 500;
      for await (const event of events(answer.body, alive)) {
        last = event.id ?? last;
        onEvent(event.name, event.data);
      }
    } catch {
      // Said by `onState` below; the next attempt shows whether it lasts.
    } finally {
      clearTimeout(silence);
      stop.abort();
    }
    onState(false);
    await pause(wait * (0.75 + Math.random() / 2));
    wait = Math.min(wait * 2, 10000);
  }
}

async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  let event = {};
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    text += value;
    const lines = text.split(/\r\n|\n|\r(?!$)/);
    text = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (event.data !== undefined) yield { id: event.id, name: event.name ?? 'message', data: JSON.parse(event.data) };
        event = {};
        continue;
      }
      const [, field, content] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === 'data') event.data = event.data === undefined ? content : `${event.data}\n${content}`;
      else if (field === 'event') event.name = content;
      else if (field === 'id') event.id = content;
    }
  }
}
