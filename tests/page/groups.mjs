// Three operators' pages and a unit's at a real gateway with two groups: one after another rings, a call is handed over to a
// group, and a supervisor takes it. `node groups.mjs URL SHOTS BUTTON UNIT-TOKEN OPERATOR-TOKEN LEADER-TOKEN SUPERVISOR-TOKEN`.
import { checks, conclude, launch, MEDIA } from './checks.mjs';

const [base, , button, unitToken, ...tokens] = process.argv.slice(2);
const browser = await launch(MEDIA);

async function open(path, token) {
  const page = await (await browser.newContext({ viewport: { width: 1366, height: 768 } })).newPage();
  if (token) await page.request.post(`${base}/v1/session`, { data: { token } });
  await page.goto(base + path);
  return { page, ...checks(page) };
}

try {
  const unit = await open(`/unit/${button}#${unitToken}`);
  const [operator, leader, supervisor] = await Promise.all(tokens.map((token) => open('/', token)));
  const words = (one) => one.text('.call .word');
  const shows = () => unit.page.getAttribute('body', 'data-shows');
  await unit.check('the unit is ready', async () => (await shows()) === 'ready');
  for (const one of [operator, leader, supervisor]) await one.check('a page is up', async () => (await one.count('.fact.good')) > 0);

  await unit.page.keyboard.press('Enter');
  await operator.check('the first group is rung', async () => (await operator.count('.ring-card')) === 1);
  await leader.check('the second sees it silently', async () => (await leader.count('.row.incident')) === 1 && (await leader.count('.ring-card')) === 0);
  await leader.check('until nobody has answered', async () => (await leader.count('.ring-card.escalated')) === 1);
  await operator.check('which the first is told', async () => (await operator.count('.ring-card.escalated')) === 1);
  await operator.page.keyboard.press('a');
  await operator.check('one answers', async () => (await words(operator)) === 'You are through');
  await leader.check('and it rings nowhere else', async () => (await leader.count('.ring-card')) === 0);

  await operator.page.keyboard.press('o');
  await operator.check('it can be handed over to the other group', async () => (await operator.count('.choices button')) === 1);
  await operator.page.keyboard.press('Enter');
  await leader.check('there it rings, and says why', async () => (await leader.text('.ring-card .why')).includes('Handed over to'));
  await operator.check('who hands over keeps the floor', async () => (await words(operator)) === 'You are through' && (await operator.text('.call .note')).includes('keep the floor'));
  await leader.page.keyboard.press('a');
  await leader.check('until another has it', async () => (await words(leader)) === 'You are through');
  await operator.check('then she listens', async () => (await words(operator)).includes('has the call') && (await operator.text('.call .note')).includes('You listen'));

  await supervisor.check('a supervisor may take it', async () => {
    if (!await supervisor.page.isVisible('#incident')) await supervisor.page.locator('.row.incident .pick').first().click();
    return supervisor.page.isVisible('.call-act.take');
  });
  await supervisor.page.keyboard.press('f');
  await supervisor.check('and does', async () => (await words(supervisor)) === 'You are through');
  await leader.check('the one before listens', async () => (await words(leader)).includes('has the call'));
  await unit.check('the unit was with somebody all the time', async () => (await shows()) === 'answered');
  await supervisor.page.keyboard.press('x');
  await supervisor.page.keyboard.press('Enter');
  await supervisor.check('hung up, it has ended', async () => (await words(supervisor)).startsWith('Call ended'));
  for (const one of [operator, leader]) await one.check('for all', async () => !(await one.page.isVisible('.call-act.hangUp')));
} finally {
  await browser.close();
}
conclude();
