import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier, type RsyncMode } from '../../src/store/rsync-copier.ts';
import { escapeCacheName } from '../../src/store/store-layout.ts';
import type { Store } from '../../src/store/store.ts';
import type { TreeCopier } from '../../src/store/tree-copier.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';
import { whyNoLoopDisks } from '../helpers/loop-disk.ts';

let root: string;
const opened: Store[] = [];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'store-'));
});

afterEach(() => {
  for (const store of opened.splice(0)) store.close();
  rmSync(root, { recursive: true, force: true });
});

async function openStore(copier: TreeCopier = createRsyncCopier()): Promise<Store> {
  const store = await createDirectoryStore({ root, copier });
  opened.push(store);
  return store;
}

async function save(
  store: Store,
  id: string,
  base?: string,
  files: Record<string, string> = {},
): Promise<void> {
  const outcome = await store.build({ id: idOf(id), base: base && idOf(base) }, writing(files), never);
  expect(outcome).toEqual({ status: 'ok' });
}

function query<T>(sql: string): T[] {
  const db = new Database(join(root, 'state/db/db.sqlite'));
  const rows = db.prepare<[], T>(sql).all();
  db.close();
  return rows;
}

function execute(sql: string): void {
  const db = new Database(join(root, 'state/db/db.sqlite'));
  db.pragma('foreign_keys = OFF');
  db.exec(sql);
  db.close();
}

describe('layout', () => {
  it("is OBuilder's, and only its owner's", async () => {
    chmodSync(root, 0o755);
    const store = await openStore();
    await save(store, 'a');
    expect(readdirSync(root).sort()).toEqual(['cache', 'cache-tmp', 'result', 'result-tmp', 'state']);
    for (const path of ['.', 'result', 'result-tmp', 'cache', 'cache-tmp', 'state', `result/${idOf('a')}`]) {
      expect(statSync(join(root, path)).mode & 0o7777, path).toBe(0o700);
    }
    expect(existsSync(join(root, 'state/db/db.sqlite'))).toBe(true);
  });

  it('refuses a root in which a directory is something else', async () => {
    symlinkSync('/tmp', join(root, 'result-tmp'));
    await expect(openStore()).rejects.toMatchObject({ code: 'STORE_LAYOUT' });
  });

  it.each([
    ['ok', 'c-ok'],
    ['123', 'c-123'],
    ['%20', 'c-%2520'],
    ['Az09-id.foo_orig', 'c-Az09-id.foo_orig'],
    ['\n', 'c-%a'],
    ['../x', 'c-..%2fx'],
  ])('escapes cache name %j as %s', (name, escaped) => {
    expect(escapeCacheName(name)).toBe(escaped);
  });
});

describe('index', () => {
  it('has the table that OBuilder makes', async () => {
    await openStore();
    const columns = query<{ name: string; type: string; notnull: number; pk: number }>(
      'SELECT name, type, "notnull", pk FROM pragma_table_info(\'builds\')',
    );
    expect(columns.map(({ name, type, notnull, pk }) => [name, type, notnull, pk])).toEqual([
      ['id', 'TEXT', 0, 1],
      ['created', 'DATETIME', 1, 0],
      ['used', 'DATETIME', 1, 0],
      ['rc', 'INTEGER', 1, 0],
      ['parent', 'TEXT', 0, 0],
    ]);
    expect(query("SELECT name FROM pragma_index_info('lru')")).toEqual([{ name: 'rc' }, { name: 'used' }]);
    expect(query('PRAGMA journal_mode')).toEqual([{ journal_mode: 'wal' }]);
  });

  it('counts children and keeps UTC seconds as text', async () => {
    const store = await openStore();
    await save(store, 'a');
    await save(store, 'b', 'a');
    await save(store, 'c', 'a');
    await store.delete(idOf('c'));
    const rows = query<{ id: string; rc: number; parent: string | null; created: string; used: string }>(
      'SELECT * FROM builds ORDER BY parent IS NOT NULL',
    );
    expect(rows.map(({ id, rc, parent }) => [id, rc, parent])).toEqual([
      [idOf('a'), 1, null],
      [idOf('b'), 0, idOf('a')],
    ]);
    for (const { created, used } of rows) {
      expect(created).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
      expect(Math.abs(Date.parse(`${used}Z`) - Date.now())).toBeLessThan(60_000);
    }
  });

  it('notes each use, so that prune takes the longest unused first', async () => {
    const store = await openStore();
    for (const id of ['a', 'b', 'c']) await save(store, id);
    execute(`UPDATE builds SET used = '2020-01-01 00:00:00' WHERE id = '${idOf('a')}';
             UPDATE builds SET used = '2021-01-01 00:00:00' WHERE id = '${idOf('b')}';
             UPDATE builds SET used = '2019-01-01 00:00:00' WHERE id = '${idOf('c')}';`);
    await store.use(idOf('c'));
    const removed: string[] = [];
    expect(await store.prune(new Date(Date.now() - 1000_000), 10, (id) => removed.push(id))).toBe(2);
    expect(removed).toEqual([idOf('a'), idOf('b')]);
  });

  it('is made anew for results that it does not know', async () => {
    (await openStore()).close();
    opened.pop();
    mkdirSync(join(root, 'result', idOf('known to nobody'), 'rootfs'), { recursive: true });
    const store = await openStore();
    expect(query('SELECT id, rc, parent FROM builds')).toEqual([
      { id: idOf('known to nobody'), rc: 0, parent: null },
    ]);
    expect(await store.prune(new Date(Date.now() + 86_400_000), 5)).toBe(1);
  });

  it('forgets results that are gone and counts again, whatever it said', async () => {
    const store = await openStore();
    for (const [id, base] of [
      ['a', undefined],
      ['b', 'a'],
      ['c', 'a'],
    ] as const)
      await save(store, id, base);
    store.close();
    opened.pop();
    rmSync(join(root, 'result', idOf('c')), { recursive: true });
    execute('UPDATE builds SET rc = 7');
    await openStore();
    expect(query('SELECT id, rc FROM builds ORDER BY rc')).toEqual([
      { id: idOf('b'), rc: 0 },
      { id: idOf('a'), rc: 1 },
    ]);
  });

  it('says how to go on when its file is no database', async () => {
    (await openStore()).close();
    opened.pop();
    for (const name of readdirSync(join(root, 'state/db'))) rmSync(join(root, 'state/db', name));
    writeFileSync(join(root, 'state/db/db.sqlite'), 'no database at all, '.repeat(100));
    await expect(openStore()).rejects.toMatchObject({ code: 'STORE_INDEX' });
  });
});

describe('opening', () => {
  it('clears away what a crash of OBuilder left: half results and stale cache copies', async () => {
    (await openStore()).close();
    opened.pop();
    mkdirSync(join(root, 'result-tmp', idOf('half'), 'rootfs'), { recursive: true });
    mkdirSync(join(root, 'cache-tmp', '3-opam-archives'));
    await openStore();
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
    expect(readdirSync(join(root, 'cache-tmp'))).toEqual([]);
  });

  it('leaves alone what another open store is working on', async () => {
    const store = await openStore();
    const cache = await store.openCache('c');
    await store.build(
      { id: idOf('a'), base: undefined },
      async (directory) => {
        await openStore();
        expect(existsSync(directory)).toBe(true);
        return { status: 'ok' };
      },
      never,
    );
    expect(existsSync(cache.directory)).toBe(true);
    await cache.release();
  });

  it('removes lock files once nobody else has the store open', async () => {
    const store = await openStore();
    await save(store, 'a');
    expect(readdirSync(join(root, 'state/locks'))).not.toEqual([]);
    const other = await openStore();
    expect(readdirSync(join(root, 'state/locks'))).not.toEqual([]);
    store.close();
    other.close();
    opened.length = 0;
    await openStore();
    expect(readdirSync(join(root, 'state/locks'))).toEqual([]);
  });

  it('follows no link out of what it removes', async () => {
    const outside = mkdtempSync(join(tmpdir(), 'outside-'));
    writeFileSync(join(outside, 'precious'), 'x');
    (await openStore()).close();
    opened.pop();
    mkdirSync(join(root, 'result-tmp', idOf('a')));
    symlinkSync(outside, join(root, 'result-tmp', idOf('a'), 'rootfs'));
    symlinkSync(outside, join(root, 'result-tmp', idOf('b')));
    symlinkSync(outside, join(root, 'cache-tmp', '0-x'));
    await openStore();
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
    expect(readdirSync(join(root, 'cache-tmp'))).toEqual([]);
    expect(readFileSync(join(outside, 'precious'), 'utf8')).toBe('x');
    rmSync(outside, { recursive: true });
  });

  it.skipIf(whyNoLoopDisks !== undefined)(
    'succeeds where something cannot be removed, and does so later',
    async () => {
      (await openStore()).close();
      opened.pop();
      const busy = join(root, 'result-tmp', '.removed-busy', 'mounted');
      mkdirSync(busy, { recursive: true });
      mkdirSync(join(root, 'result-tmp', '.removed-other'));
      execFileSync('mount', ['-t', 'tmpfs', 'test', busy]);
      try {
        await openStore();
        expect(readdirSync(join(root, 'result-tmp'))).toEqual(['.removed-busy']);
      } finally {
        execFileSync('umount', [busy]);
      }
      await openStore();
      expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
    },
  );
});

describe('a store that does not sync', () => {
  const notes = () => readdirSync(join(root, 'state')).filter((name) => name.startsWith('unsynced-'));

  async function openUnsynced(): Promise<Store> {
    const store = await createDirectoryStore({ root, copier: createRsyncCopier(), sync: false });
    opened.push(store);
    return store;
  }

  function closeAll(): void {
    for (const store of opened.splice(0)) store.close();
  }

  async function changeCache(store: Store, name: string): Promise<void> {
    const cache = await store.openCache(name);
    writeFileSync(join(cache.directory, 'x'), 'x');
    await cache.release();
  }

  it('loses what it saved since the machine last went down, and nothing else', async () => {
    await save(await openStore(), 'before');
    closeAll();
    const store = await openUnsynced();
    await save(store, 'since', 'before');
    await changeCache(store, 'c');
    closeAll();
    const [note = ''] = notes();
    const [, since = ''] = readFileSync(join(root, 'state', note), 'utf8').split('\n');
    writeFileSync(join(root, 'state', note), `another start of the machine\n${since}\n`);
    const reopened = await openStore();
    expect(reopened.records().map(({ id, childCount }) => [id, childCount])).toEqual([[idOf('before'), 0]]);
    expect(readdirSync(join(root, 'result'))).toEqual([idOf('before')]);
    expect(readdirSync(join(root, 'cache'))).toEqual([]);
    expect(notes()).toEqual([]);
  });

  it('keeps everything while the machine runs, and is as good as any once somebody else has opened it', async () => {
    const store = await openUnsynced();
    await save(store, 'a');
    await openStore();
    expect(notes()).toHaveLength(1);
    closeAll();
    expect((await openStore()).records()).toHaveLength(1);
    expect(notes()).toEqual([]);
  });
});

describe('sharing by hard links', () => {
  const sameSizeAndTime: (directory: string) => Promise<{ status: 'ok' }> = (directory) => {
    const file = join(directory, 'rootfs/changed');
    rmSync(file);
    writeFileSync(file, 'two');
    utimesSync(file, 1000, 1000);
    return Promise.resolve({ status: 'ok' });
  };

  it.each<[RsyncMode, boolean, string]>([
    ['copy', false, 'two'],
    ['hardlink', true, 'two'],
    // The price of not comparing contents, as the name says.
    ['hardlink_unsafe', true, 'one'],
  ])(
    '%s: unchanged files are shared: %s; a change that keeps size and time reads "%s"',
    async (mode, shared, read) => {
      const store = await openStore(createRsyncCopier(mode));
      await store.build(
        { id: idOf('base'), base: undefined },
        (directory) => {
          for (const name of ['same', 'changed']) {
            writeFileSync(join(directory, 'rootfs', name), 'one');
            utimesSync(join(directory, 'rootfs', name), 1000, 1000);
          }
          return Promise.resolve({ status: 'ok' });
        },
        never,
      );
      await store.build({ id: idOf('child'), base: idOf('base') }, sameSizeAndTime, never);
      const at = (id: string, path: string) => join(root, 'result', idOf(id), 'rootfs', path);
      expect(statSync(at('child', 'same')).ino === statSync(at('base', 'same')).ino).toBe(shared);
      expect(readFileSync(at('child', 'changed'), 'utf8')).toBe(read);
      expect(readFileSync(at('base', 'changed'), 'utf8')).toBe('one');
      expect(readdirSync(join(root, 'result', idOf('child')))).toEqual(['rootfs']);
    },
  );
});

describe('a copy that goes wrong', () => {
  it('is broken off when the build is cancelled, and nothing of it stays', async () => {
    const cancel = new AbortController();
    const rsync = createRsyncCopier();
    const store = await openStore({
      ...rsync,
      copy: (source, target, signal) => {
        const copying = rsync.copy(source, target, signal);
        cancel.abort();
        return copying;
      },
    });
    await save(store, 'base', undefined, { file: 'x' });
    const outcome = await store.build({ id: idOf('a'), base: idOf('base') }, writing({}), cancel.signal);
    expect(outcome).toEqual({ status: 'cancelled' });
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
    await expect(store.openCache('c', undefined, cancel.signal)).rejects.toThrow();
    expect(readdirSync(join(root, 'cache-tmp'))).toEqual([]);
  });

  it('fails the build with the reason, records nothing and lets the next try succeed', async () => {
    const rsync = createRsyncCopier();
    let isFull = true;
    const store = await openStore({
      ...rsync,
      copy: async (source, target, signal) => {
        if (isFull) throw new Error('No space left on device');
        await rsync.copy(source, target, signal);
      },
    });
    await save(store, 'base');
    const request = { id: idOf('a'), base: idOf('base') };
    await expect(store.build(request, writing({}), never)).rejects.toThrow('No space left');
    expect(readdirSync(join(root, 'result-tmp'))).toEqual([]);
    isFull = false;
    expect(await store.build(request, writing({}), never)).toEqual({ status: 'ok' });
  });
});
