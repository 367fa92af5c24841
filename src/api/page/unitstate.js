// What a unit with a screen may say, from what it knows. Pure. Nothing is said that the gateway has not.

/** What is shown, in Urdu and English; each has a picture of its name. */
export const WORDS = {
  starting: ['شروع ہو رہا ہے', 'Starting'],
  ready: ['مدد کے لیے بٹن دبائیں', 'Press for help'],
  calling: ['پولیس کو بلایا جا رہا ہے۔ یہیں رہیں۔', 'Calling the police. Stay here.'],
  reached: ['آپ کی کال پولیس تک پہنچ گئی۔ یہیں رہیں۔', 'Your call has reached the police. Stay here.'],
  answered: ['پولیس آپ سے بات کر رہی ہے۔ بولیں۔', 'The police are with you. Speak.'],
  hold: ['انتظار کریں۔ آپریٹر واپس آئے گا۔', 'Please wait. The operator will be back.'],
  coming: ['مدد آ رہی ہے', 'Help is coming'],
  lost: ['کال کٹ گئی۔ دوبارہ بلایا جا رہا ہے۔', 'The call was cut. Calling again.'],
  ended: ['کال ختم ہوئی', 'The call has ended'],
  offline: ['رابطہ نہیں۔ دوبارہ کوشش ہو رہی ہے۔', 'No connection. Trying again.'],
  refused: ['اس سکرین کو اجازت نہیں۔ تکنیکی عملے کو بلائیں۔', 'This screen is not let in. Call the technicians.'],
  unsent: ['آپ کا بٹن یاد ہے۔ رابطہ ہوتے ہی بھیجا جائے گا۔', 'No connection. Your press is kept and will be sent.'],
};
const STAGES = ['received', 'recorded', 'delivered', 'seen', 'answered', 'dispatched', 'closed'];
const from = (state, stage) => STAGES.indexOf(state) >= STAGES.indexOf(stage);

/**
 * What to show: a key of `WORDS`. `connected`: the gateway's events arrive; `refused`: it does not take the token; `late`: the
 * page began some time ago; `pending`: a press that is not recorded yet; `told`: the latest event; `cut`: the call had been
 * answered and rings again; `up`: this unit's own line stands, or may still come up.
 */
export function shows({ connected, refused, late, pending, told, cut, up = true }) {
  if (!connected) return refused ? 'refused' : pending ? 'unsent' : told === null && !late ? 'starting' : 'offline';
  const { incident, state, call, speaking } = told ?? {};
  if (!incident || state === 'closed') return pending ? 'calling' : told === null ? 'starting' : 'ready';
  if (call === 'answered' && !up) return 'lost';
  if (call === 'answered') return speaking || state === 'answered' ? 'answered' : cut ? 'lost' : 'reached';
  if (call === 'held') return 'hold';
  if (call === 'lost' || (call === 'ringing' && cut)) return 'lost';
  if (state === 'dispatched') return 'coming';
  if (call === 'ended') return 'ended';
  return from(state, 'delivered') || told.reached ? 'reached' : 'calling';
}

/** Whether help is on its way, beside whatever else is told. */
export const isComing = (told) => Boolean(told?.incident) && told.state === 'dispatched';

/** After the event `next`: whether the call was cut, given whether it was. */
export function isCut(before, next, was) {
  if (!next?.incident || next.incident !== before?.incident || ['answered', 'held', 'ended', null].includes(next.call)) return false;
  return was || ['answered', 'held'].includes(before.call);
}
