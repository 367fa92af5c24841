// Every text of the page, a table for each language. `{name}` is filled in.

const languages = {
  en: {
    dir: 'ltr',
    incidents: 'Incidents', buttons: 'Buttons', cameras: 'Cameras', map: 'Map of the district',
    noIncidents: 'No incident. A press appears here at once.',
    noneChosen: 'Choose an incident',
    open: 'Open', closed: 'Closed',
    kind: { panic: 'Panic', medical: 'Medical', fire: 'Fire', accident: 'Accident', tamper: 'Tamper', test: 'Test' },
    state: { received: 'Received', recorded: 'Recorded', delivered: 'Delivered', seen: 'Seen', answered: 'Answered', dispatched: 'Dispatched', closed: 'Closed' },
    presence: { unknown: 'not heard of yet', online: 'online', offline: 'offline', silent: 'silent' },
    camera: { connecting: 'connecting', live: 'live', stalled: 'stalled', unreachable: 'unreachable', 'wrong-password': 'wrong password', unusable: 'unusable' },
    gap: { 'camera-down': 'camera was down', 'camera-stalled': 'camera sent nothing', 'camera-unreachable': 'camera did not answer', 'wrong-password': 'camera refused the password', 'camera-unusable': 'camera sent nothing that can be recorded', 'packets-lost': 'packets were lost on the way; pictures are damaged', 'before-ring': 'before the camera was running', 'recorder-behind': 'recorder fell behind', 'disk-failed': 'disk failed', 'gateway-down': 'gateway was not running', evicted: 'removed to make room' },
    test: 'TEST', notRecorded: 'NOT ON DISK', lowBattery: 'low battery', tampered: 'opened or broken', battery: '{n} % battery', heard: 'heard {ago} ago',
    presses: '{n} presses', onePress: '1 press', pressedAt: 'Pressed {time}', clockUnsure: 'clock not synchronised', ago: '{ago} ago',
    act: { seen: 'Seen', dispatched: 'Dispatched', close: 'Close' },
    askClose: 'Close the incident at {button}?', cancel: 'Cancel', ok: 'OK', operator: 'Operator', askOperator: 'Your name, as it goes into the record', setOperator: 'Your name…',
    askToken: 'This gateway wants a token', wrongToken: 'The gateway does not take this token', token: 'Token', signIn: 'Sign in',
    backhaul: 'Backhaul', up: 'up', down: 'DOWN', none: 'none', since: 'since {time}', waiting: 'Waiting', objects: '{d} reports, {o} recordings',
    buttonsOnline: 'Buttons', camerasLive: 'Cameras', connected: 'Gateway', live: 'connected', lost: 'connection lost, trying again',
    journalAlarm: 'The journal is {why}. Presses are not acknowledged until it writes again.', alarm: 'Alarm: {why}',
    sound: 'Sound', soundOn: 'Alarm sound is on', soundOff: 'Alarm sound is off', keys: 'Keys',
    evidence: 'Evidence', linked: 'Linked cameras', timeline: 'What happened', unit: 'Unit', rank: 'No. {n}', seesButton: 'sees the button', recordedHere: 'recorded', notRecordedHere: 'not recorded', metres: '{n} m',
    ringing: 'Ringing', liveNow: 'LIVE', noLivePicture: 'No live picture; trying again',
    waitingPictures: 'Waiting for the first pictures', noEvidence: 'No evidence is kept of this camera', cannotPlay: 'This browser cannot play {codecs}.', playFailed: 'Playing failed: {why}', download: 'Save as MP4', recording: 'recording', complete: 'complete at headquarters', ended: 'ended',
    play: 'Play', pause: 'Pause', mute: 'Sound of the camera', toPress: 'To the press', toLive: 'To the latest', scrub: 'Time of the evidence', press: 'Press', closePanel: 'Close panel', choose: 'Show {camera} large',
    zoomIn: 'Zoom in', zoomOut: 'Zoom out', fit: 'Whole district', north: 'N',
    demo: 'DEMO', demoPress: 'Press', demoDown: 'Take down', demoUp: 'Bring up', demoCut: 'Cut backhaul', demoJoin: 'Restore backhaul',
    failed: 'Did not work: {why}', newIncident: '{kind} at {button}',
    legend: 'Legend',
    help: [['↑ ↓  Enter', 'choose in the list'], ['1 2 3', 'incidents, buttons, cameras'], ['S', 'seen'], ['D', 'dispatched'], ['C', 'close'], ['Space', 'play or pause'], ['← →', '5 seconds back, on'], ['P', 'to the press'], ['L', 'live, or the latest evidence'], ['M', 'sound of the camera'], ['V', 'next camera'], ['+ − 0', 'zoom in, out, whole district'], ['Esc', 'close the panel']],
  },
};

const table = languages[document.documentElement.lang] ?? languages.en;
document.documentElement.dir = table.dir;

/** The text of a key such as `incidents` or `kind.panic`, filled in; an unknown key shows itself. */
export function t(key, values = {}) {
  const text = key.split('.').reduce((at, part) => at?.[part], table);
  if (typeof text !== 'string') return text ?? key.split('.').pop();
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');
}

/** A wall time as hours, minutes and seconds of this place. */
export function clock(time) {
  return new Date(time).toLocaleTimeString('en-GB');
}

/** A span in milliseconds, in the largest two units. */
export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, '0')} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor(s / 60) % 60).padStart(2, '0')} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}
