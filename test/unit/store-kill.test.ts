import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import Database from 'better-sqlite3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import { BUILD_CHECKPOINTS, CACHE_CHECKPOINTS, REMOVAL_CHECKPOINTS } from '../../src/store/store-parts.ts';
import type { Store } from '../../src/store/store.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';
import { compiled } from '../helpers/compiled.ts';

/** In memory where that is to be had: these tests are about killed processes, not about what a disk keeps. */
const SCRATCH = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const BASE_FILES = 200;
const RANDOM_KILLS = process.env['OBUILDER_FS_LONG'] === '1' ? 200 : 10;

let programs: string;
let victimProgram: string;
let root: string;

beforeAll(() => {
  programs = mkdtempSync(join(SCRATCH, 'store-victim-'));
  victimProgram = compiled('test/helpers/store-victim.ts', programs);
});

afterAll(() => rmSync(programs, { recursive: true, force: true }));

beforeEach(async () => {
  root = mkdtempSync(join(SCRATCH, 'store-kill-'));
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
  const victim = spawn(process.execPath, [victimProgram, root, point, ...operation], {
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
  expect(readdirSync(join(root, 'state')).filter((name) => name.startsWith('reserve'))).toEqual(['reserve']);
  const db = new Database(join(root, 'state/db/db.sqlite'), { readonly: true });
  const rows = db.prepare<[], { id: string; rc: number; children: number }>(
    'SELECT id, rc, (SELECT COUNT(*) FROM builds c WHERE c.parent = b.id) AS children FROM builds b ORDER BY id',
  );
  const found = rows.all();
  db.close();
  expect(found.map(({ id }) => id)).toEqual(readdirSync(join(root, 'result')).sort());
  for (const { rc, children } of found) expect(rc).toBe(children);
}

/** Makes one more result, from `base`. */
async function expectUsable(store: Store, base: string): Promise<void> {
  const id = idOf('made after the crash');
  expect(await store.build({ id, base }, writing({ after: 'x' }), never)).toEqual({ status: 'ok' });
  await store.delete(id);
}

describe('a process killed while it made a result', () => {
  const isMoved = (point: string) => BUILD_CHECKPOINTS.indexOf(point as 'result-moved') >= 5;

  it.each(['copying', ...BUILD_CHECKPOINTS.filter((point) => !isMoved(point))])(
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

  it.each(BUILD_CHECKPOINTS.filter(isMoved))(
    'at %s, after it was renamed, leaves it whole',
    async (point) => {
      await killAt(point, 'build', idOf('new'), idOf('base'));
      const store = await openStore();
      expectConsistent();
      const directory = await store.use(idOf('new'));
      expect(readFileSync(join(directory ?? '', 'rootfs/made'), 'utf8')).toBe('by the victim');
      await expectUsable(store, idOf('new'));
      store.close();
    },
  );

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

describe('a process killed while it removed a result', () => {
  it.each([
    ...REMOVAL_CHECKPOINTS.map((point) => ['delete', point] as const),
    ...REMOVAL_CHECKPOINTS.map((point) => ['prune', point] as const),
  ])('by %s, at %s, has removed it', async (operation, point) => {
    await killAt(point, operation, idOf('child'));
    const store = await openStore();
    expectConsistent();
    expect(await store.use(idOf('child'))).toBeUndefined();
    expect(await store.use(idOf('base'))).toBeDefined();
    await expectUsable(store, idOf('base'));
    store.close();
  });
});

describe('a process killed while it used a cache', () => {
  it.each([
    ['copying', 'old'],
    ...CACHE_CHECKPOINTS.map((point, i) => [
      point,
      i < CACHE_CHECKPOINTS.indexOf('cache-replaced') ? 'old' : 'new',
    ]),
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

/** What is known of a store from what a process said that worked on it. */
class Expected {
  /** Whether it is there; undefined where the process was killed while it changed that. */
  readonly results = new Map<string, boolean | undefined>();
  /** The contents that the cache may have. */
  cache = ['old'];

  hear(line: string): void {
    const [verb, ...words] = line.split(' ');
    const isThere = { making: undefined, made: true, removing: undefined, removed: false };
    if (verb === 'caching') this.cache.push(...words);
    else if (verb === 'cached') this.cache = words;
    else if (verb !== undefined && verb in isThere) {
      for (const id of words) {
        const wasThere = this.results.get(id);
        // What is there already is only looked at.
        if (verb === 'making' && wasThere === true) continue;
        if (verb === 'removing' && wasThere === false) continue;
        this.results.set(id, isThere[verb as keyof typeof isThere]);
      }
    }
  }

  /** Compares, and takes what it finds for what it did not know. */
  async check(store: Store): Promise<void> {
    for (const [id, isThere] of this.results) {
      const directory = await store.find(id);
      if (isThere !== undefined) expect(directory !== undefined, id).toBe(isThere);
      this.results.set(id, directory !== undefined);
      if (directory !== undefined && id !== idOf('base')) expectWhole(store, id, directory);
    }
    const cache = await store.openCache('c');
    const content = readFileSync(join(cache.directory, 'content'), 'utf8');
    expect(this.cache).toContain(content);
    if (content !== 'old') expect(readFileSync(join(cache.directory, 'again'), 'utf8')).toBe(content);
    this.cache = [content];
    await cache.release();
  }
}

function expectWhole(store: Store, id: string, directory: string): void {
  const parent = store.records().find((record) => record.id === id)?.parent;
  const namesIn = (path: string) => readdirSync(join(path, 'rootfs'));
  const inherited = parent === undefined ? [] : namesIn(join(root, 'result', parent));
  expect(namesIn(directory)).toEqual(expect.arrayContaining([...inherited, 'made', `made-${id}`]));
  for (const name of ['made', 'dir/made', `made-${id}`])
    expect(readFileSync(join(directory, 'rootfs', name), 'utf8')).toBe(id);
}

describe('a process killed anywhere', () => {
  const seed = Number(process.env['STORE_KILL_SEED'] ?? randomInt(2 ** 31));
  const ids = ['one', 'two', 'three', 'four', 'five'].map(idOf);

  /** Kills it at its `count`th checkpoint, or a moment later. */
  async function killAfter(count: number, victimSeed: number, expected: Expected): Promise<void> {
    const victim = spawn(
      process.execPath,
      [victimProgram, root, '', 'anything', String(victimSeed), ...ids],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    let left = count;
    for await (const line of createInterface({ input: victim.stdout })) {
      expected.hear(line);
      if (line.startsWith('at ') && --left === 0) victim.kill('SIGKILL');
    }
    expect(victim.signalCode ?? 'SIGKILL').toBe('SIGKILL');
  }

  it(
    `leaves a store in order, ${RANDOM_KILLS} times in a row (STORE_KILL_SEED=${seed})`,
    async () => {
      const expected = new Expected();
      expected.results.set(idOf('base'), true);
      for (let kill = 0; kill < RANDOM_KILLS; kill++) {
        await killAfter(1 + ((seed + kill * 7919) % 40), seed + kill, expected);
        const store = await openStore();
        expectConsistent();
        await expected.check(store);
        store.close();
      }
    },
    RANDOM_KILLS * 10_000,
  );
});
