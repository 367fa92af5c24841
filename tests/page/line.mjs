// A line between a browser and a UDP port of this machine that is as bad as a test wants it, in both directions.
import dgram from 'node:dgram';

/** How much waits on a line that is slower than what is sent, in ms. What comes then is lost, as in a radio's buffer. */
const QUEUE = 300;

/** `loss`: the part of the datagrams that is lost; `delay` in ms; `rate` in kbit/s each way, 0 for any. Gives the line's own port. */
export async function badLine(port, { loss = 0, delay = 0, rate = 0 }) {
  const near = dgram.createSocket('udp4');
  const far = new Map();
  const way = () => {
    let free = 0;
    return (bytes, send) => {
      if (Math.random() < loss) return;
      const now = performance.now();
      free = rate ? Math.max(free, now) : now;
      if (free - now > QUEUE) return;
      free += rate && (bytes.length * 8) / rate;
      setTimeout(send, delay + free - now);
    };
  };
  const [there, back] = [way(), way()];
  near.on('message', (bytes, from) => {
    const key = `${from.address}:${from.port}`;
    if (!far.has(key)) {
      const socket = dgram.createSocket('udp4');
      socket.on('message', (answer) => back(answer, () => near.send(answer, from.port, from.address)));
      far.set(key, socket);
    }
    there(bytes, () => far.get(key).send(bytes, port, '127.0.0.1'));
  });
  await new Promise((done) => near.bind(0, '127.0.0.1', done));
  return near.address().port;
}

/** An SDP answer whose candidate by UDP is at the end of such a line. */
export async function throughLine(answer, line) {
  const port = Number(/a=candidate:\S+ 1 udp \d+ \S+ (\d+) typ host/.exec(answer)[1]);
  return answer.replaceAll(` ${port} typ host`, ` ${await badLine(port, line)} typ host`);
}
