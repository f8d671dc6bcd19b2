import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { errnoCode } from '../../src/errors.ts';
import { chooseCopier } from '../../src/store/choose-copier.ts';
import { createDirectoryStore, type DirectoryStoreOptions } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import {
  BUILD_CHECKPOINTS,
  CACHE_CHECKPOINTS,
  REMOVAL_CHECKPOINTS,
  type Checkpoint,
} from '../../src/store/store-parts.ts';
import type { Store } from '../../src/store/store.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';
import { createLoopDisk, removeLeftDisks, whyNoLoopDisks, type LoopDisk } from '../helpers/loop-disk.ts';

const FILE_BYTES = 256 * 1024;
const tomorrow = new Date(Date.now() + 86_400_000);

let disk: LoopDisk;
const disks: LoopDisk[] = [];
let stores: Store[] = [];

function useDisk(made: LoopDisk): LoopDisk {
  disks.push(made);
  return made;
}

beforeEach(() => {
  removeLeftDisks();
});

afterEach(() => {
  vi.useRealTimers();
  for (const store of stores.splice(0)) store.close();
  for (const each of disks.splice(0)) each.remove();
});

async function open(on: LoopDisk, options: Partial<DirectoryStoreOptions> = {}): Promise<Store> {
  const root = join(on.path, 'store');
  const store = await createDirectoryStore({ root, copier: createRsyncCopier(), ...options });
  stores.push(store);
  return store;
}

function close(store: Store): void {
  stores = stores.filter((one) => one !== store);
  store.close();
}

const files = { one: 'x'.repeat(FILE_BYTES), two: 'y'.repeat(FILE_BYTES) };

async function save(store: Store, name: string, base?: string): Promise<void> {
  const request = { id: idOf(name), base: base && idOf(base) };
  expect(await store.build(request, writing({ ...files, [name]: name }), never)).toEqual({ status: 'ok' });
}

function expectConsistent(on: LoopDisk): void {
  const at = (path: string) => join(on.path, 'store', path);
  expect(readdirSync(at('result-tmp'))).toEqual([]);
  expect(readdirSync(at('cache-tmp'))).toEqual([]);
  const db = new Database(at('state/db/db.sqlite'), { readonly: true });
  const ids = db.prepare<[], string>('SELECT id FROM builds ORDER BY id').pluck().all();
  expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
  db.close();
  expect(ids).toEqual(readdirSync(at('result')).sort());
  for (const id of ids) {
    expect(readFileSync(at(`result/${id}/rootfs/one`), 'utf8')).toBe(files.one);
    expect(readFileSync(at(`result/${id}/rootfs/two`), 'utf8')).toBe(files.two);
  }
}

describe.skipIf(whyNoLoopDisks !== undefined)('a disk without any room', () => {
  beforeEach(async () => {
    disk = useDisk(createLoopDisk('ext4', 40));
    const store = await open(disk);
    await save(store, 'base');
    await save(store, 'child', 'base');
    const cache = await store.openCache('c');
    writeFileSync(join(cache.directory, 'content'), 'old');
    await cache.release();
    close(store);
  });

  /** Fills the disk when the store reaches `point`, and frees it again only when told to. */
  async function openFillingAt(point: Checkpoint): Promise<{ store: Store; free: () => void }> {
    let free: (() => void) | undefined;
    const store = await open(disk, {
      checkpoint: (reached) => {
        if (reached === point) free ??= disk.fill();
        return Promise.resolve();
      },
    });
    return { store, free: () => free?.() };
  }

  it.each(BUILD_CHECKPOINTS)(
    'from %s on ends a build with its reason, and the store is in order',
    async (point) => {
      const { store, free } = await openFillingAt(point);
      const request = { id: idOf('new'), base: idOf('base') };
      const outcome = await store
        .build(request, writing({ new: 'new' }), never)
        .catch((error: unknown) => error);
      if (outcome instanceof Error) {
        expect(errnoCode(outcome), outcome.message).toBe('DISK_FULL');
        expect(outcome.message).toContain('the disk of the store is full');
      } else expect(outcome).toEqual({ status: 'ok' });
      close(store);
      const next = await open(disk);
      expectConsistent(disk);
      expect(existsSync(join(disk.path, 'store/result', idOf('new')))).toBe(!(outcome instanceof Error));
      free();
      expect((await next.build(request, writing({ new: 'new' }), never)).status).toMatch(/ok|loaded/);
    },
  );

  it.each(CACHE_CHECKPOINTS)('from %s on loses neither a cache nor the store', async (point) => {
    const { store, free } = await openFillingAt(point);
    const use = async () => {
      const cache = await store.openCache('c');
      writeFileSync(join(cache.directory, 'content'), 'new');
      await cache.release();
    };
    await use().catch((error: unknown) => {
      expect(errnoCode(error)).toMatch(/ENOSPC|DISK_FULL|COMMAND_FAILED/);
    });
    free();
    close(store);
    const next = await open(disk);
    expectConsistent(disk);
    const cache = await next.openCache('c');
    expect(readFileSync(join(cache.directory, 'content'), 'utf8')).toMatch(/^(old|new)$/);
    await cache.release();
  });

  it.each(REMOVAL_CHECKPOINTS)('from %s on does not stop a prune', async (point) => {
    const { store } = await openFillingAt(point);
    expect(await store.prune(tomorrow, 1)).toBe(1);
    close(store);
    await open(disk);
    expectConsistent(disk);
    expect(readdirSync(join(disk.path, 'store/result'))).toEqual([idOf('base')]);
  });

  it('is pruned by a process that opens the store only then, whose reserve is made again', async () => {
    disk.fill();
    expect(disk.freeBytes()).toBe(0);
    const store = await open(disk);
    expect(await store.prune(tomorrow, 10)).toBe(2);
    expect(disk.freeBytes()).toBeGreaterThan(FILE_BYTES);
    close(store);
    disks[0]?.fill();
    await open(disk);
    expectConsistent(disk);
  });

  it('still has its results to build from', async () => {
    const free = disk.fill();
    const store = await open(disk);
    expect(await store.use(idOf('child'))).toBeDefined();
    const build = store.build({ id: idOf('new'), base: idOf('base') }, writing({ new: 'x' }), never);
    await expect(build).rejects.toMatchObject({ code: 'DISK_FULL' });
    free();
    await save(store, 'new', 'base');
  });

  it('tells a step that fails on it why', async () => {
    const store = await open(disk);
    const outcome = await store.build(
      { id: idOf('new'), base: undefined },
      () => {
        disk.fill();
        return Promise.resolve({ status: 'failed', message: '"cc" failed with exit status 1' });
      },
      never,
    );
    expect(outcome).toEqual({
      status: 'failed',
      message: '"cc" failed with exit status 1 (the disk of the store is full)',
    });
  });

  it('tells a step why it failed that made room again before it ended', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const store = await open(disk);
    const outcome = await store.build(
      { id: idOf('new'), base: undefined },
      async () => {
        const free = disk.fill();
        await vi.advanceTimersByTimeAsync(1_000);
        free();
        return { status: 'failed', message: '"ld" failed with exit status 1' };
      },
      never,
    );
    expect(outcome).toMatchObject({
      message: '"ld" failed with exit status 1 (the disk of the store is full)',
    });
  });

  it('tells a step whose one file was too large for it what its log says', async () => {
    const store = await open(disk);
    const outcome = await store.build(
      { id: idOf('new'), base: undefined },
      (directory) => {
        const large = join(directory, 'rootfs/large');
        const { status, stderr } = spawnSync('fallocate', ['-l', '1G', large]);
        rmSync(large);
        writeFileSync(join(directory, 'log'), Buffer.concat([Buffer.alloc(100_000, 'x'), stderr]));
        return Promise.resolve({ status: 'failed', message: `failed with exit status ${status}` });
      },
      never,
    );
    expect(disk.freeBytes()).toBeGreaterThan(2 ** 20);
    expect(outcome).toMatchObject({
      message: 'failed with exit status 1 (its log says: No space left on device)',
    });
  });

  it('is told to who would make a new store on it', async () => {
    disk.fill();
    const root = join(disk.path, 'another-store');
    await expect(createDirectoryStore({ root, copier: createRsyncCopier() })).rejects.toMatchObject({
      code: 'DISK_FULL',
    });
  });
});

describe.skipIf(whyNoLoopDisks !== undefined)('a full disk of another kind', () => {
  it.each([
    ['xfs', 'clone', 320],
    ['btrfs', 'btrfs', 256],
  ] as const)('%s with the copier %s can be pruned, too', async (fileSystem, kind, mebibytes) => {
    disk = useDisk(createLoopDisk(fileSystem, mebibytes));
    const openKind = async () => {
      const directory = join(disk.path, 'store');
      return await open(disk, { copier: await chooseCopier({ kind, directory, rsyncMode: 'copy' }) });
    };
    const store = await openKind();
    await save(store, 'base');
    await save(store, 'child', 'base');
    close(store);
    disk.fill();
    const full = await openKind();
    await expect(
      full.build({ id: idOf('new'), base: idOf('base') }, writing(files), never),
    ).rejects.toMatchObject({
      code: 'DISK_FULL',
    });
    expect(await full.prune(tomorrow, 10)).toBe(2);
    close(full);
    await openKind();
    expectConsistent(disk);
    expect(readdirSync(join(disk.path, 'store/result'))).toEqual([]);
  });
});

describe.skipIf(whyNoLoopDisks !== undefined)('a power failure', () => {
  it.each(['ext4', 'xfs'] as const)(
    'on %s loses nothing that was saved, and shows nothing else',
    async (kind) => {
      disk = useDisk(createLoopDisk(kind, kind === 'xfs' ? 320 : 48));
      const seen: { readonly point: Checkpoint; readonly after: LoopDisk }[] = [];
      const looked = ['result-filled', 'result-indexed', 'result-moved'];
      const store = await open(disk, {
        checkpoint: (point) => {
          if (looked.includes(point)) seen.push({ point, after: useDisk(disk.afterPowerLoss()) });
          return Promise.resolve();
        },
      });
      await save(store, 'base');
      const saved = useDisk(disk.afterPowerLoss());
      for (const { point, after } of seen) {
        const reopened = await open(after);
        expectConsistent(after);
        if (point !== 'result-moved') expect(await reopened.find(idOf('base')), point).toBeUndefined();
      }
      const reopened = await open(saved);
      expectConsistent(saved);
      expect(await reopened.find(idOf('base'))).toBeDefined();
      expect(reopened.records().map(({ id }) => id)).toEqual([idOf('base')]);
    },
  );

  it('keeps what a cache became', async () => {
    disk = useDisk(createLoopDisk('ext4', 48));
    const store = await open(disk);
    const cache = await store.openCache('c');
    mkdirSync(join(cache.directory, 'deep'));
    writeFileSync(join(cache.directory, 'deep/content'), files.one);
    await cache.release();
    const reopened = await open(useDisk(disk.afterPowerLoss()));
    const again = await reopened.openCache('c');
    expect(readFileSync(join(again.directory, 'deep/content'), 'utf8')).toBe(files.one);
    await again.release();
  });
});
