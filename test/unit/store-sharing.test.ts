import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createDirectoryStore, type DirectoryStoreOptions } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import { verifyStore } from '../../src/store/store-verify.ts';
import type { Store } from '../../src/store/store.ts';
import { gate, idOf, never, writing } from '../contracts/store-contract.ts';
import { compiled } from '../helpers/compiled.ts';

const SCRATCH = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const copier = createRsyncCopier();
const tomorrow = new Date(Date.now() + 86_400_000);

let programs: string;
let victimProgram: string;
let root: string;
const opened: Store[] = [];
const victims: ChildProcess[] = [];

beforeAll(() => {
  programs = mkdtempSync(join(SCRATCH, 'store-victim-'));
  victimProgram = compiled('test/helpers/store-victim.ts', programs);
});

afterAll(() => rmSync(programs, { recursive: true, force: true }));

beforeEach(() => {
  root = mkdtempSync(join(SCRATCH, 'store-'));
});

afterEach(async () => {
  for (const victim of victims.splice(0)) await kill(victim);
  closeAll();
  rmSync(root, { recursive: true, force: true });
});

async function openStore(options: Partial<DirectoryStoreOptions> = {}): Promise<Store> {
  const store = await createDirectoryStore({ root, copier, ...options });
  opened.push(store);
  return store;
}

function closeAll(): void {
  for (const store of opened.splice(0)) store.close();
}

async function save(store: Store, name: string, base?: string): Promise<void> {
  const request = { id: idOf(name), base: base && idOf(base) };
  expect(await store.build(request, writing({ [name]: name }), never)).toEqual({ status: 'ok' });
}

/** Another process, up to `point` of an operation. */
async function startVictim(point: string, ...operation: string[]): Promise<ChildProcess> {
  const victim = spawn(process.execPath, [victimProgram, root, point, ...operation], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  victims.push(victim);
  await once(victim.stdout, 'data');
  return victim;
}

async function kill(victim: ChildProcess): Promise<void> {
  if (victim.exitCode !== null || victim.signalCode !== null) return;
  victim.kill('SIGKILL');
  await once(victim, 'close');
}

describe('a store that another process works on', () => {
  it('tells who makes the result that is waited for, and goes on when that one dies', async () => {
    const store = await openStore();
    await save(store, 'base');
    const victim = await startVictim('result-begun', 'build', idOf('new'), idOf('base'));
    const told: string[] = [];
    const waits = gate();
    const hear = (what: string) => {
      told.push(what);
      waits.open();
    };
    const build = store.build({ id: idOf('new'), base: idOf('base'), onWait: hear }, writing({}), never);
    await waits.opened;
    expect(told).toEqual([
      expect.stringMatching(
        new RegExp(
          `^another process that is making this result \\(pid ${victim.pid}, since \\d\\d:\\d\\d:\\d\\d\\)$`,
        ),
      ),
    ]);
    await kill(victim);
    expect(await build).toEqual({ status: 'ok' });
  });

  it.runIf(process.platform === 'linux')('tells who uses the result that is to be deleted', async () => {
    const store = await openStore();
    await save(store, 'base');
    const victim = await startVictim('result-begun', 'build', idOf('new'), idOf('base'));
    await expect(store.delete(idOf('base'))).rejects.toMatchObject({
      code: 'RESULT_BUSY',
      message: `${idOf('base')}: a build is using this result (pid ${victim.pid})`,
    });
    await kill(victim);
    await store.delete(idOf('base'));
  });

  it('is paused when its step has ended, however it ended', async () => {
    const store = await openStore();
    await save(store, 'base');
    const victim = await startVictim('result-filled', 'build', idOf('new'), idOf('base'));
    const waits = gate();
    let holders = '';
    const pausing = store.pause((who) => {
      holders = who;
      waits.open();
    }, never);
    await waits.opened;
    if (process.platform === 'linux') expect(holders).toBe(`pid ${victim.pid}`);
    await kill(victim);
    const paused = await pausing;
    expect(await paused?.sweep()).toBe(1);
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
    const waiting = gate();
    const told: string[] = [];
    const hear = (what: string) => {
      told.push(what);
      waiting.open();
    };
    const build = store.build({ id: idOf('new'), base: idOf('base'), onWait: hear }, writing({}), never);
    await waiting.opened;
    expect(told).toEqual([
      expect.stringMatching(/^the store, which is paused \(this process, since [\d:]+\)$/),
    ]);
    paused?.resume();
    expect(await build).toEqual({ status: 'ok' });
  });

  it('lets go of a pause that is no longer wanted', async () => {
    const store = await openStore();
    await save(store, 'base');
    await startVictim('result-filled', 'build', idOf('new'), idOf('base'));
    const cancel = new AbortController();
    expect(await store.pause(() => cancel.abort(), cancel.signal)).toBeUndefined();
    await save(store, 'other', 'base');
  });
});

describe('automatic pruning', () => {
  function age(...names: string[]): void {
    const db = new Database(join(root, 'state/db/db.sqlite'));
    for (const name of names)
      db.prepare("UPDATE builds SET used = '2020-01-01 00:00:00' WHERE id = ?").run(idOf(name));
    db.close();
  }

  it('makes room before a step, but keeps what was used just now, is held or is built from', async () => {
    const store = await openStore();
    for (const name of ['base', 'old', 'held', 'used']) await save(store, name);
    age('base', 'old', 'held');
    const hold = await store.hold(idOf('held'));
    const removed: string[] = [];
    const greedy = await openStore({
      autoPrune: { freeBytesMin: ({ totalBytes }) => 2 * totalBytes, removed: (id) => removed.push(id) },
    });
    await save(greedy, 'new', 'base');
    expect(removed).toEqual([idOf('old')]);
    hold?.release();
  });

  it('goes on while a step runs', async () => {
    const store = await openStore();
    await save(store, 'old');
    let isShort = false;
    const pruned = gate();
    const watching = await openStore({
      autoPrune: { freeBytesMin: ({ totalBytes }) => (isShort ? 2 * totalBytes : 0), removed: pruned.open },
    });
    const outcome = await watching.build(
      { id: idOf('new'), base: undefined },
      async () => {
        age('old');
        isShort = true;
        await pruned.opened;
        return { status: 'ok' };
      },
      never,
    );
    expect(outcome).toEqual({ status: 'ok' });
    expect(await store.find(idOf('old'))).toBeUndefined();
  });
});

describe('a store that OBuilder wrote', () => {
  /** As HEAD (2026) and v0.5 (2022) do: the same table, rows whose parent is gone, caches under their own names. */
  function writeAsObuilder(leftBehind: Record<string, string>): void {
    for (const directory of ['result', 'result-tmp', 'cache', 'cache-tmp', 'state/db', 'state/sandbox'])
      mkdirSync(join(root, directory), { recursive: true });
    const db = new Database(join(root, 'state/db/db.sqlite'));
    db.pragma('journal_mode = WAL');
    db.exec(`CREATE TABLE IF NOT EXISTS builds (
                id       TEXT PRIMARY KEY,
                created  DATETIME NOT NULL,
                used     DATETIME NOT NULL,
                rc       INTEGER  NOT NULL,
                parent   TEXT,
                FOREIGN KEY (parent) REFERENCES builds (id) ON DELETE RESTRICT
              )`);
    db.exec('CREATE INDEX IF NOT EXISTS lru ON builds (rc, used)');
    db.pragma('foreign_keys = OFF');
    const insert = db.prepare('INSERT INTO builds VALUES (?, ?, ?, ?, ?)');
    insert.run(idOf('base'), '2022-11-01 10:00:00', '2022-11-05 10:00:00', 1, null);
    insert.run(idOf('step'), '2022-11-01 10:01:00', '2022-11-04 10:00:00', 0, idOf('base'));
    insert.run(idOf('orphan'), '2022-11-01 10:02:00', '2022-11-03 10:00:00', 0, idOf('gone'));
    insert.run(idOf('lost'), '2022-11-01 10:03:00', '2022-11-02 10:00:00', 0, idOf('base'));
    db.close();
    for (const name of ['base', 'step', 'orphan']) {
      mkdirSync(join(root, 'result', idOf(name), 'rootfs'), { recursive: true });
      writeFileSync(join(root, 'result', idOf(name), 'rootfs', name), name);
      writeFileSync(join(root, 'result', idOf(name), 'env'), '((env ((PATH /bin))))');
      writeFileSync(join(root, 'result', idOf(name), 'log'), `log of ${name}\n`);
    }
    for (const [path, content] of Object.entries(leftBehind)) {
      mkdirSync(join(root, path, '..'), { recursive: true });
      writeFileSync(join(root, path), content);
    }
  }

  it('is opened: its results, times and parents stay, what a crash left goes', async () => {
    writeAsObuilder({
      [`result-tmp/${idOf('half')}/rootfs/x`]: 'x',
      'cache-tmp/3-opam-archives/x': 'x',
      'cache/opam-archives/kept': 'kept',
      'state/sandbox/x': 'runc’s',
    });
    const store = await openStore();
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
    expect(readdirSync(join(root, 'cache-tmp'))).toEqual([]);
    expect(store.records()).toEqual([
      expect.objectContaining({ id: idOf('orphan'), parent: idOf('gone'), childCount: 0 }),
      expect.objectContaining({ id: idOf('step'), parent: idOf('base'), childCount: 0 }),
      expect.objectContaining({ id: idOf('base'), childCount: 1, usedAt: new Date('2022-11-05T10:00:00Z') }),
    ]);
    await save(store, 'new', 'step');
    const made = join(root, 'result', idOf('new'));
    expect(readdirSync(join(made, 'rootfs')).sort()).toEqual(['new', 'step']);
    expect(readFileSync(join(made, 'env'), 'utf8')).toBe('((env ((PATH /bin))))');
    const cache = await store.openCache('opam-archives');
    expect(readFileSync(join(cache.directory, 'kept'), 'utf8')).toBe('kept');
    await cache.release();
    expect(await store.prune(tomorrow, 10)).toBe(4);
  });

  it('may be opened by OBuilder again: it finds the table as it left it', async () => {
    writeAsObuilder({});
    await save(await openStore(), 'new', 'step');
    closeAll();
    const db = new Database(join(root, 'state/db/db.sqlite'));
    const lru = 'SELECT id FROM builds WHERE rc = 0 AND used < ? ORDER BY used ASC LIMIT ?';
    expect(db.prepare(lru).pluck().all('2099-01-01 00:00:00', 1)).toEqual([idOf('orphan')]);
    expect(db.prepare('SELECT rc FROM builds WHERE id = ?').pluck().get(idOf('step'))).toBe(1);
    db.close();
  });
});

describe('verify', () => {
  const verify = async (dryRun: boolean) => {
    const problems = await verifyStore({ root, copier }, { dryRun });
    return problems.map(({ kind, what, isRepaired }) => [kind, what, isRepaired]);
  };

  beforeEach(async () => {
    const store = await openStore();
    for (const [name, base] of [['a'], ['b', 'a'], ['c', 'a']] as const) await save(store, name, base);
    closeAll();
  });

  it('finds nothing in a store that is in order', async () => {
    expect(await verify(true)).toEqual([]);
    expect(await verify(false)).toEqual([]);
  });

  it('tells what is wrong, changes nothing in a dry run, and puts it right otherwise', async () => {
    const db = new Database(join(root, 'state/db/db.sqlite'));
    db.exec(`UPDATE builds SET rc = 7 WHERE id = '${idOf('a')}'`);
    db.exec(`DELETE FROM builds WHERE id = '${idOf('b')}'`);
    db.close();
    rmSync(join(root, 'result', idOf('c')), { recursive: true });
    mkdirSync(join(root, 'result', idOf('no rootfs')));
    mkdirSync(join(root, 'result', 'my notes'));
    mkdirSync(join(root, 'result-tmp', idOf('half')));
    mkdirSync(join(root, 'cache-tmp/0-c-x'));
    const wrong = [
      ['wrong-count', idOf('a')],
      ['row-without-result', idOf('c')],
      ['result-without-row', idOf('b')],
      ['result-without-row', idOf('no rootfs')],
      ['result-damaged', idOf('no rootfs')],
      ['leftover', `result-tmp/${idOf('half')}`],
      ['leftover', 'cache-tmp/0-c-x'],
    ];
    const sorted = (problems: unknown[][]) => problems.map(String).sort();
    expect(sorted(await verify(true))).toEqual(
      sorted([...wrong, ['stranger', 'result/my notes']].map((one) => [...one, false])),
    );
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([idOf('half')]);
    expect(sorted(await verify(false))).toEqual(
      sorted([...wrong.map((one) => [...one, true]), ['stranger', 'result/my notes', false]]),
    );
    expect(await verify(true)).toEqual([['stranger', 'result/my notes', false]]);
    expect(
      (await openStore())
        .records()
        .map(({ id }) => id)
        .sort(),
    ).toEqual([idOf('a'), idOf('b')].sort());
  });

  it('makes a damaged index anew and keeps the old one', async () => {
    const index = join(root, 'state/db/db.sqlite');
    writeFileSync(index, 'no database at all, '.repeat(100));
    expect(await verify(true)).toEqual([['index-damaged', 'state/db/db.sqlite', false]]);
    expect(await verify(false)).toEqual([['index-damaged', 'state/db/db.sqlite', true]]);
    expect((await openStore()).records()).toHaveLength(3);
    expect(readdirSync(join(root, 'state/db')).some((name) => name.includes('.damaged-'))).toBe(true);
  });

  it('leaves alone what somebody is at work on', async () => {
    const store = await openStore();
    await store.build(
      { id: idOf('new'), base: idOf('a') },
      async () => {
        expect(await verify(false)).toEqual([]);
        expect(readdirSync(join(root, 'result-tmp'))).toEqual([idOf('new')]);
        return { status: 'ok' };
      },
      never,
    );
  });
});
