import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import type { Store } from '../../src/store/store.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';

const VICTIM = new URL('../helpers/store-victim.ts', import.meta.url).pathname;
const BASE_FILES = 500;

let root: string;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'store-kill-'));
  const store = await openStore();
  await store.build(
    { id: idOf('base'), base: undefined },
    (directory) => {
      for (let i = 0; i < BASE_FILES; i++) writeFileSync(join(directory, `rootfs/${i}`), String(i));
      return Promise.resolve({ status: 'ok' });
    },
    never,
  );
  await store.build({ id: idOf('child'), base: idOf('base') }, writing({ made: 'before' }), never);
  const cache = await store.openCache('c');
  writeFileSync(join(cache.directory, 'content'), 'old');
  await cache.release();
  store.close();
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

async function openStore(): Promise<Store> {
  return await createDirectoryStore({ root, copier: createRsyncCopier() });
}

/** Runs the victim up to `point`; the answer kills it there. */
async function stopAt(point: string, ...operation: string[]): Promise<() => Promise<void>> {
  const victim = spawn(process.execPath, ['--import', 'tsx', VICTIM, root, point, ...operation], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => victim.on('close', () => resolve()));
  const reached = new Promise<boolean>((resolve) => {
    victim.stdout.on('data', () => resolve(true));
    void ended.then(() => resolve(false));
  });
  expect(await reached, `${operation.join(' ')} reaches ${point}`).toBe(true);
  return async () => {
    victim.kill('SIGKILL');
    await ended;
  };
}

async function killAt(point: string, ...operation: string[]): Promise<void> {
  const kill = await stopAt(point, ...operation);
  await kill();
}

/** What must be true of every store that was just opened. */
function expectConsistent(): void {
  expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
  expect(readdirSync(join(root, 'cache-tmp'))).toEqual([]);
  const db = new Database(join(root, 'state/db/db.sqlite'), { readonly: true });
  const rows = db.prepare<[], { id: string; rc: number; children: number }>(
    'SELECT id, rc, (SELECT COUNT(*) FROM builds c WHERE c.parent = b.id) AS children FROM builds b ORDER BY id',
  );
  const found = rows.all();
  db.close();
  expect(found.map(({ id }) => id)).toEqual(readdirSync(join(root, 'result')).sort());
  for (const { rc, children } of found) expect(rc).toBe(children);
}

describe('a process killed while it made a result', () => {
  it.each(['copying', 'result-begun', 'result-filled', 'result-indexed'])(
    'at %s leaves nothing behind, and the next try makes it',
    async (point) => {
      await killAt(point, 'build', idOf('new'), idOf('base'));
      const store = await openStore();
      expectConsistent();
      expect(await store.use(idOf('new'))).toBeUndefined();
      const outcome = await store.build(
        { id: idOf('new'), base: idOf('base') },
        writing({ made: 'anew' }),
        never,
      );
      expect(outcome).toEqual({ status: 'ok' });
      expect(readdirSync(join(root, 'result', idOf('new'), 'rootfs'))).toHaveLength(BASE_FILES + 1);
      expect(await store.prune(new Date(Date.now() + 86_400_000), 1)).toBe(1);
      store.close();
    },
  );

  it('after it was saved leaves it whole', async () => {
    await killAt('result-saved', 'build', idOf('new'), idOf('base'));
    const store = await openStore();
    expectConsistent();
    const directory = await store.use(idOf('new'));
    expect(readFileSync(join(directory ?? '', 'rootfs/made'), 'utf8')).toBe('by the victim');
    store.close();
  });

  it('leaves a store that others have open in order: the next try clears it away', async () => {
    const store = await openStore();
    await killAt('result-filled', 'build', idOf('new'), idOf('base'));
    const seen: string[] = [];
    await store.build(
      { id: idOf('new'), base: idOf('base') },
      (directory) => {
        seen.push(...readdirSync(join(directory, 'rootfs')));
        return Promise.resolve({ status: 'ok' });
      },
      never,
    );
    expect(seen).toHaveLength(BASE_FILES);
    store.close();
  });
});

describe('a process that is making a result', () => {
  it('keeps others from making it, and from removing what it starts from, until it dies', async () => {
    const store = await openStore();
    const kill = await stopAt('result-begun', 'build', idOf('new'), idOf('child'));
    await expect(store.delete(idOf('base'))).rejects.toMatchObject({ code: 'RESULT_BUSY' });
    expect(await store.prune(new Date(Date.now() + 86_400_000), 10)).toBe(0);
    let hasRun = false;
    const waiting = store.build(
      { id: idOf('new'), base: idOf('child') },
      () => {
        hasRun = true;
        return Promise.resolve({ status: 'ok' });
      },
      never,
    );
    const second = await openStore(); // opening clears away what is nobody's
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([idOf('new')]);
    expect(hasRun).toBe(false);
    await kill();
    expect(await waiting).toEqual({ status: 'ok' });
    second.close();
    store.close();
  });
});

describe('a process killed while it deleted a result', () => {
  it.each(['result-set-aside', 'result-forgotten'])('at %s has deleted it', async (point) => {
    await killAt(point, 'delete', idOf('child'));
    const store = await openStore();
    expectConsistent();
    expect(await store.use(idOf('child'))).toBeUndefined();
    expect(await store.use(idOf('base'))).toBeDefined();
    store.close();
  });
});

describe('a process killed while it used a cache', () => {
  it.each([
    ['copying', 'old'],
    ['cache-copied', 'old'],
    ['cache-set-aside', 'old'],
    ['cache-replaced', 'new'],
  ])('at %s leaves the %s content', async (point, content) => {
    await killAt(point, 'cache', 'c');
    const store = await openStore();
    expectConsistent();
    const cache = await store.openCache('c');
    expect(readFileSync(join(cache.directory, 'content'), 'utf8')).toBe(content);
    await cache.release();
    store.close();
  });
});
