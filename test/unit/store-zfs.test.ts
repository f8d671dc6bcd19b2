import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ObuilderError } from '../../src/errors.ts';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import type { Store } from '../../src/store/store.ts';
import { verifyStore } from '../../src/store/store-verify.ts';
import { openZfsCopier } from '../../src/store/zfs-copier.ts';
import { gate, idOf, never, storeContract, writing } from '../contracts/store-contract.ts';
import { DATASET, RecordedZfs } from '../helpers/recorded-zfs.ts';

// The commands are recorded and done with directories: whether ZFS itself does as zfs(8) says is not tested here.

storeContract('zfs, by its recorded commands', async (root) => {
  const { run } = new RecordedZfs(root);
  return await createDirectoryStore({ root, copier: await openZfsCopier({ mountPoint: root, run }) });
});

let scratch: string;
let zfs: RecordedZfs;
const opened: Store[] = [];

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'store-zfs-'));
  zfs = new RecordedZfs(join(scratch, 'pool'));
});

afterEach(() => {
  closeAll();
  rmSync(scratch, { recursive: true, force: true });
});

function closeAll(): void {
  for (const store of opened.splice(0)) store.close();
}

function openCopier() {
  return openZfsCopier({ mountPoint: zfs.mountPoint, run: zfs.run });
}

async function openStore(sync = true): Promise<Store> {
  const store = await createDirectoryStore({ root: zfs.mountPoint, copier: await openCopier(), sync });
  opened.push(store);
  return store;
}

async function save(store: Store, name: string, base?: string, files: Record<string, string> = {}) {
  return await store.build({ id: idOf(name), base: base && idOf(base) }, writing(files), never);
}

/** The commands that changed something since the last call; results by their names, random parts left out. */
function changes(...names: string[]): string[] {
  return zfs.changes.splice(0).map((command) => {
    const plain = command.replaceAll(/-[0-9a-f]{8}-[0-9a-f-]{27}/g, '').replaceAll(`${DATASET}/`, '');
    return names.reduce((text, name) => text.replaceAll(idOf(name), name), plain);
  });
}

describe('the commands', () => {
  it('of opening a new store make its two datasets, and of opening it again nothing', async () => {
    await openStore();
    expect(changes()).toEqual(['create result', 'create result-tmp']);
    closeAll();
    await openStore();
    expect(changes()).toEqual([]);
  });

  it('of saving a result: it is durable, then has its snapshot, then its name', async () => {
    const store = await openStore();
    changes();
    await save(store, 'base');
    expect(changes('base')).toEqual([
      'create result-tmp/base',
      'zpool sync tank',
      'snapshot result-tmp/base@snap',
      'rename -f result-tmp/base result/base',
    ]);
  });

  it('of a step clone the snapshot of its base, and copy nothing', async () => {
    const store = await openStore();
    await save(store, 'base', undefined, { file: 'content' });
    changes();
    await save(store, 'step', 'base', { other: 'more' });
    expect(changes('base', 'step')).toEqual([
      'clone result/base@snap result-tmp/step',
      'zpool sync tank',
      'snapshot result-tmp/step@snap',
      'rename -f result-tmp/step result/step',
    ]);
    const rootfs = join(zfs.mountPoint, 'result', idOf('step'), 'rootfs');
    expect(readFileSync(join(rootfs, 'file'), 'utf8')).toBe('content');
  });

  it('of a step that fails destroy its clone and leave its base alone', async () => {
    const store = await openStore();
    await save(store, 'base');
    changes();
    const failed = { status: 'failed', message: 'no' } as const;
    await store.build({ id: idOf('step'), base: idOf('base') }, () => Promise.resolve(failed), never);
    expect(changes('base', 'step')).toEqual([
      'clone result/base@snap result-tmp/step',
      'rename -f result-tmp/step result-tmp/.removed-step',
      'destroy -r -f result-tmp/.removed-step',
    ]);
    expect(zfs.hasSnapshot(`${DATASET}/result/${idOf('base')}`)).toBe(true);
  });

  it('of keeping what a failed step left and looking at it move its clone and clone that', async () => {
    const store = await openStore();
    await save(store, 'base');
    const keep = async () => {
      await store.keepFailed(idOf('step'));
      return { status: 'failed', message: 'no' } as const;
    };
    await store.build({ id: idOf('step'), base: idOf('base') }, keep, never);
    expect(changes('base', 'step').at(-1)).toBe('rename -f result-tmp/step result-tmp/failed-step');
    for (const snapshots of [['snapshot result-tmp/failed-step@snap'], []]) {
      await store.withCopy({ id: idOf('step') }, () => Promise.resolve({ status: 'ok' }), never);
      expect(
        changes('step').map((change) => change.replace(/[0-9a-f]{64}(-[0-9a-f-]{36})?/g, 'COPY')),
      ).toEqual([
        ...snapshots,
        'clone result-tmp/failed-step@snap result-tmp/COPY',
        'rename -f result-tmp/COPY result-tmp/.removed-COPY',
        'destroy -r -f result-tmp/.removed-COPY',
      ]);
    }
  });

  it('of deleting a result destroy those made from it first, as ZFS asks', async () => {
    const store = await openStore();
    await save(store, 'base');
    await save(store, 'step', 'base');
    changes();
    await store.delete(idOf('base'));
    expect(changes('base', 'step')).toEqual([
      'rename -f result/step result-tmp/.removed-step',
      'destroy -r -f result-tmp/.removed-step',
      'rename -f result/base result-tmp/.removed-base',
      'destroy -r -f result-tmp/.removed-base',
    ]);
  });

  it('wait for no disk in a store without sync', async () => {
    const store = await openStore(false);
    changes();
    await save(store, 'base');
    expect(changes('base')).not.toContain('zpool sync tank');
  });

  it('are none for caches, which are plain directories', async () => {
    const store = await openStore();
    changes();
    const cache = await store.openCache('opam');
    writeFileSync(join(cache.directory, 'archive'), 'x');
    await cache.release();
    const again = await store.openCache('opam');
    expect(readdirSync(again.directory)).toEqual(['archive']);
    await again.release();
    expect(changes().filter((command) => command !== 'zpool sync tank')).toEqual([]);
  });

  it('are none for a copy that is cancelled before it begins', async () => {
    const copier = await openCopier();
    changes();
    const unit = (name: string) => join(zfs.mountPoint, 'result-tmp', name);
    await expect(copier.copy(unit('a'), unit('b'), AbortSignal.abort())).rejects.toThrow();
    expect(changes()).toEqual([]);
  });
});

it('a new result is of nobody else, though zfs makes datasets that all may read', async () => {
  const copier = await openCopier();
  const unit = join(zfs.mountPoint, 'result-tmp', 'unit');
  await copier.create(unit);
  expect(statSync(unit).mode & 0o7777).toBe(0o700);
});

describe('after a kill', () => {
  /** From that command on nothing is done any more. */
  function dieAt(command: RegExp): void {
    let isDead = false;
    zfs.intercept = (asked) => {
      isDead ||= command.test(asked);
      if (isDead) throw new ObuilderError('COMMAND_FAILED', 'killed here');
    };
  }

  async function reopen(): Promise<Store> {
    closeAll();
    zfs.intercept = () => undefined;
    return await openStore();
  }

  it.each([
    ['before it is cloned', /^clone/],
    ['before its snapshot', /^snapshot/],
    ['between its snapshot and its name', /^rename .*result\//],
  ])('%s, a result is not there, nothing is left of it, and it can be made', async (_, command) => {
    const store = await openStore();
    await save(store, 'base');
    dieAt(command);
    await expect(save(store, 'step', 'base')).rejects.toMatchObject({ code: 'COMMAND_FAILED' });
    const again = await reopen();
    expect(await again.find(idOf('step'))).toBeUndefined();
    expect(readdirSync(join(zfs.mountPoint, 'result-tmp'))).toEqual([]);
    expect(zfs.datasets()).toHaveLength(4); // the pool's, the store's two, the base
    expect(await save(again, 'step', 'base')).toEqual({ status: 'ok' });
  });

  it('a clone that was left does not keep its base from being deleted by another process', async () => {
    const store = await openStore();
    const other = await openStore();
    await save(store, 'base');
    dieAt(/^snapshot/);
    await expect(save(store, 'step', 'base')).rejects.toMatchObject({ code: 'COMMAND_FAILED' });
    zfs.intercept = () => undefined;
    await other.delete(idOf('base'));
    expect(zfs.datasets()).toHaveLength(3);
  });

  it('what it left of a step is not destroyed by who removes its base, once somebody makes the step anew', async () => {
    const store = await openStore();
    for (const name of ['base', 'another base']) await save(store, name);
    const [destroying, goOn] = [gate(), gate()];
    const run: typeof zfs.run = async (argv, options) => {
      if (argv[1] === 'destroy') {
        destroying.open();
        await goOn.opened;
      }
      return await zfs.run(argv, options);
    };
    const copier = await openZfsCopier({ mountPoint: zfs.mountPoint, run });
    const remover = await createDirectoryStore({ root: zfs.mountPoint, copier });
    opened.push(remover);
    dieAt(/^snapshot/);
    await expect(save(store, 'step', 'base')).rejects.toMatchObject({ code: 'COMMAND_FAILED' });
    zfs.intercept = () => undefined;
    const removal = remover.delete(idOf('base'));
    await destroying.opened;
    const outcome = await store.build(
      { id: idOf('step'), base: idOf('another base') },
      async (directory) => {
        goOn.open();
        await removal;
        return await writing({ file: 'made anew' })(directory);
      },
      never,
    );
    expect(outcome).toEqual({ status: 'ok' });
  });

  it('a result that was half deleted does not keep its base from being deleted', async () => {
    const store = await openStore();
    const other = await openStore();
    await save(store, 'base');
    await save(store, 'step', 'base');
    dieAt(/^destroy/);
    await expect(store.delete(idOf('step'))).rejects.toMatchObject({ code: 'NOT_REMOVED' });
    zfs.intercept = () => undefined;
    await other.delete(idOf('base'));
    expect(zfs.datasets()).toHaveLength(3);
  });

  it('a base and a result made from it, both half deleted, are gone when the store is next opened', async () => {
    const store = await openStore();
    await save(store, 'base');
    await save(store, 'step', 'base');
    for (const name of ['step', 'base']) {
      dieAt(/^destroy/);
      await expect(store.delete(idOf(name))).rejects.toMatchObject({ code: 'NOT_REMOVED' });
    }
    await reopen();
    expect(zfs.datasets()).toHaveLength(3);
  });
});

describe('a clone that a person made of a result', () => {
  const own = `${DATASET}/own`;
  const clone = (name: string) => zfs.run(['zfs', 'clone', `${DATASET}/result/${idOf(name)}@snap`, own]);
  const refused = {
    code: 'NOT_REMOVED',
    message: expect.stringContaining('dependent clones') as string,
  };

  it('is never destroyed with it', async () => {
    const store = await openStore();
    await save(store, 'base');
    await clone('base');
    await expect(store.delete(idOf('base'))).rejects.toMatchObject(refused);
    expect(zfs.datasets()).toContain(own);
  });

  it('keeps no other result from being pruned', async () => {
    const store = await openStore();
    for (const name of ['cloned', 'other', 'another']) await save(store, name);
    await clone('cloned');
    const removed: string[] = [];
    const tomorrow = new Date(Date.now() + 86_400_000);
    await expect(store.prune(tomorrow, 10, (id) => removed.push(id))).rejects.toMatchObject(refused);
    expect(removed.sort()).toEqual([idOf('other'), idOf('another')].sort());
    expect(store.records()).toEqual([]);
  });

  it('does not keep the store from opening, and is told by store verify until it is gone', async () => {
    const store = await openStore();
    await save(store, 'base');
    await clone('base');
    await expect(store.delete(idOf('base'))).rejects.toMatchObject(refused);
    closeAll();
    const verify = async () =>
      await verifyStore({ root: zfs.mountPoint, copier: await openCopier() }, { dryRun: false });
    const leftover = { kind: 'leftover', what: expect.stringContaining('.removed-') as string };
    expect(await verify()).toEqual([expect.objectContaining({ ...leftover, isRepaired: false })]);
    await zfs.run(['zfs', 'destroy', own]);
    expect(await verify()).toEqual([expect.objectContaining({ ...leftover, isRepaired: true })]);
    expect(zfs.datasets()).toHaveLength(3);
  });
});

describe('opening', () => {
  it('takes away a half result of OBuilder, which has no snapshot, and keeps the whole ones', async () => {
    const store = await openStore();
    await save(store, 'whole');
    closeAll();
    const half = `${DATASET}/result/${idOf('half')}`;
    await zfs.run(['zfs', 'create', half]);
    const again = await openStore();
    expect(zfs.datasets()).not.toContain(half);
    expect(await again.find(idOf('half'))).toBeUndefined();
    expect(await again.find(idOf('whole'))).toBeDefined();
  });

  it('says that ZFS is missing, and what to do', async () => {
    const run = () => Promise.reject(new ObuilderError('COMMAND_MISSING', 'zfs: no such command'));
    await expect(openZfsCopier({ mountPoint: '/tank', run })).rejects.toMatchObject({
      code: 'STORE_KIND',
      message: 'zfs store at /tank: there is no command zfs',
      hint: expect.stringContaining('zpool import') as string,
    });
  });

  it.each([
    ['a directory that no dataset is mounted at', 'tank\t/elsewhere\tyes\n'],
    ['a dataset that is not mounted', 'tank\t/tank\tno\n'],
  ])('refuses %s', async (_, stdout) => {
    const run = () => Promise.resolve({ exitCode: 0, stdout, stderr: '' });
    await expect(openZfsCopier({ mountPoint: '/tank', run })).rejects.toMatchObject({
      code: 'STORE_KIND',
      message: 'zfs store at /tank: no dataset of zfs is mounted there',
    });
  });
});

it('what zfs refuses is told in its own words', async () => {
  const copier = await openCopier();
  const unit = (name: string) => join(zfs.mountPoint, 'result', name);
  await expect(copier.copy(unit('none'), unit('new'), never)).rejects.toMatchObject({
    code: 'COMMAND_FAILED',
    message: expect.stringContaining('result/none@snap') as string,
  });
});
