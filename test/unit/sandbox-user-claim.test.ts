import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createUserClaim, untilAborted } from '../../src/sandbox/user-claim.ts';

/** Locks that another process holds, by path: resolving gives them to us. */
const locks = vi.hoisted(() => ({ wait: Promise.resolve(), asked: 0, held: 0, releases: 0 }));
vi.mock('../../src/fs/file-lock.ts', () => ({
  async lockFile() {
    locks.asked++;
    await locks.wait;
    locks.held++;
    return {
      release() {
        locks.held--;
        locks.releases++;
      },
    };
  },
}));

const never = new AbortController().signal;

beforeEach(() => {
  locks.wait = Promise.resolve();
  locks.asked = 0;
  locks.releases = 0;
});
afterEach(() => expect(locks.held).toBe(0));

test('turns come in the order of asking', async () => {
  const claim = createUserClaim('/lock');
  const order: number[] = [];
  const turn = async (index: number) => {
    const giveUp = await claim.take(never);
    order.push(index);
    expect(locks.held).toBe(1);
    giveUp?.();
  };
  await Promise.all([0, 1, 2, 3].map(turn));
  expect(order).toEqual([0, 1, 2, 3]);
});

test('who gives up waiting holds nobody up, and does not jump the line', async () => {
  const claim = createUserClaim('/lock');
  const first = await claim.take(never);
  const impatient = new AbortController();
  const second = claim.take(impatient.signal);
  let thirdHasIt = false;
  const third = claim.take(never).then((giveUp) => {
    thirdHasIt = true;
    return giveUp;
  });
  impatient.abort();
  expect(await second).toBeUndefined();
  expect(thirdHasIt).toBe(false);
  first?.();
  (await third)?.();
});

test('a lock that comes after its waiter has gone is released', async () => {
  let give: () => void = () => undefined;
  locks.wait = new Promise<void>((resolve) => (give = resolve));
  const claim = createUserClaim('/lock');
  const impatient = new AbortController();
  const waiting = claim.take(impatient.signal);
  await vi.waitFor(() => expect(locks.asked).toBe(1));
  impatient.abort();
  expect(await waiting).toBeUndefined();
  give();
  await vi.waitFor(() => expect(locks.releases).toBe(1));
});

test('a lock that cannot be had is told, and the next one may try', async () => {
  const claim = createUserClaim('/lock');
  locks.wait = Promise.reject(new Error('disk full'));
  await expect(claim.take(never)).rejects.toThrow('disk full');
  locks.wait = Promise.resolve();
  (await claim.take(never))?.();
});

test('an abort that came before is seen', async () => {
  expect(await createUserClaim('/lock').take(AbortSignal.abort())).toBeUndefined();
  expect(await untilAborted(new Promise(() => undefined), AbortSignal.abort())).toBeUndefined();
});
