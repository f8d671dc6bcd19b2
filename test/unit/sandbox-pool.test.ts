import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { tryLockFile } from '../../src/fs/file-lock.ts';
import { untilAborted } from '../../src/os/until-aborted.ts';
import { createUserPool, lockPathOf, type UserClaim, type UserPool } from '../../src/sandbox/user-pool.ts';

const directory = mkdtempSync(join(tmpdir(), 'sandbox-pool-'));
afterAll(() => rmSync(directory, { recursive: true }));

const never = new AbortController().signal;
let pools = 0;

/** A pool, and another on the same locks as a process beside this one would have. */
function poolOf(...uids: number[]): { pool: UserPool; neighbour: UserPool; locks: string } {
  const locks = mkdtempSync(join(directory, `${pools++}-`));
  return { pool: createUserPool(uids, locks), neighbour: createUserPool(uids, locks), locks };
}

async function taken(pool: UserPool, preferred?: number): Promise<UserClaim> {
  const claim = await pool.take(preferred === undefined ? {} : { preferred }, new AbortController().signal);
  if (claim === undefined) throw new Error('no claim');
  return claim;
}

describe('build users', () => {
  test('are each claimed by one at a time, also of several processes', async () => {
    const { pool, neighbour } = poolOf(7, 8, 9);
    const claims = await Promise.all([pool, neighbour, pool].map((one) => taken(one)));
    expect(claims.map(({ uid }) => uid).sort()).toEqual([7, 8, 9]);
    for (const claim of claims) claim.giveUp();
    expect((await taken(neighbour, 8)).uid).toBe(8);
  });

  test('the preferred one is taken where it is free, and nobody waits for it where it is not', async () => {
    const { pool, neighbour } = poolOf(7, 8, 9);
    expect((await taken(neighbour, 9)).uid).toBe(9);
    expect((await taken(pool, 9)).uid).toBe(7);
    expect((await taken(pool, 100)).uid).toBe(8);
  });

  test('whoever came first is served first, and hears that it waits', async () => {
    const { pool } = poolOf(7, 8);
    const held = [await taken(pool), await taken(pool)];
    const told: number[] = [];
    const served: number[] = [];
    const waiting = [0, 1, 2, 3].map(async (i) => {
      const claim = await pool.take({ onWait: () => told.push(i) }, never);
      served.push(i);
      claim?.giveUp();
    });
    expect(told).toEqual([0, 1, 2, 3]);
    held[1]?.giveUp();
    await Promise.all(waiting);
    expect(served).toEqual([0, 1, 2, 3]);
    expect(told).toEqual([0, 1, 2, 3]);
  });

  test('who need not wait is not told so', async () => {
    const { pool } = poolOf(7, 8);
    const onWait = vi.fn();
    await Promise.all([pool.take({ onWait }, never), pool.take({ onWait }, never)]);
    expect(onWait).not.toHaveBeenCalled();
  });

  test('one given up by another process goes to who waits here, and any will do', async () => {
    const { pool, neighbour } = poolOf(7, 8);
    const theirs = [await taken(neighbour), await taken(neighbour)];
    const ours = taken(pool, 7);
    theirs[1]?.giveUp();
    expect((await ours).uid).toBe(8);
  });

  test('who gives up waiting holds nobody up, and its place is not jumped', async () => {
    const { pool } = poolOf(7);
    const first = await taken(pool);
    const impatient = new AbortController();
    const second = pool.take({}, impatient.signal);
    const third = taken(pool);
    impatient.abort();
    expect(await second).toBeUndefined();
    first.giveUp();
    (await third).giveUp();
  });

  test('a lock that comes when nobody waits any more is given back', async () => {
    const { pool, neighbour, locks } = poolOf(7);
    const theirs = await taken(neighbour);
    const impatient = new AbortController();
    const waiting = pool.take({}, impatient.signal);
    impatient.abort();
    expect(await waiting).toBeUndefined();
    theirs.giveUp();
    await vi.waitFor(() => {
      const lock = tryLockFile(lockPathOf(locks, 7), 'exclusive');
      expect(lock).toBeDefined();
      lock?.release();
    });
  });

  test('an abort that came before is seen', async () => {
    expect(await poolOf(7).pool.take({}, AbortSignal.abort())).toBeUndefined();
    expect(await untilAborted(new Promise(() => undefined), AbortSignal.abort())).toBeUndefined();
  });

  test('locks that cannot be had are told, to everyone who asks', async () => {
    const pool = createUserPool([7], join(directory, 'missing'));
    await expect(pool.take({}, never)).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(pool.take({}, never)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('a hundred steps of three processes on four build users: never two on one, and all are served', async () => {
    const locks = mkdtempSync(join(directory, 'many-'));
    const processes = [0, 1, 2].map(() => createUserPool([1, 2, 3, 4], locks));
    const busy = new Set<number>();
    const steps = Array.from({ length: 100 }, async (_, i) => {
      const claim = await taken(processes[i % 3] as UserPool);
      expect(busy.has(claim.uid)).toBe(false);
      busy.add(claim.uid);
      await new Promise(setImmediate);
      busy.delete(claim.uid);
      claim.giveUp();
    });
    await Promise.all(steps);
  });
});
