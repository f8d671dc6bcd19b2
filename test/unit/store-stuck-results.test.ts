import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createBtrfsCopier } from '../../src/store/btrfs-copier.ts';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import type { Store } from '../../src/store/store.ts';
import { verifyStore } from '../../src/store/store-verify.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';
import { createLoopDisk, removeLeftDisks, whyNoLoopDisks, type LoopDisk } from '../helpers/loop-disk.ts';

const TOP_SUBVOLUME = '5';

let disk: LoopDisk;
let store: Store;

describe.skipIf(whyNoLoopDisks !== undefined)('a result that cannot be removed', () => {
  beforeEach(async () => {
    removeLeftDisks();
    disk = createLoopDisk('btrfs', 256);
    store = await createDirectoryStore(options());
    for (const name of ['stuck', 'other', 'another']) {
      await store.build({ id: idOf(name), base: undefined }, writing({ name }), never);
    }
    // btrfs deletes no subvolume that would be mounted by default.
    setDefault(join(disk.path, 'store/result', idOf('stuck')));
  });

  afterEach(() => {
    store.close();
    disk.remove();
  });

  function options() {
    return { root: join(disk.path, 'store'), copier: createBtrfsCopier() };
  }

  function setDefault(...subvolume: string[]): void {
    execFileSync('btrfs', ['subvolume', 'set-default', ...subvolume]);
  }

  it('is named by a prune when the others are gone, and keeps no store from opening', async () => {
    const removed: string[] = [];
    const tomorrow = new Date(Date.now() + 86_400_000);
    await expect(store.prune(tomorrow, 10, (id) => removed.push(id))).rejects.toMatchObject({
      code: 'NOT_REMOVED',
      message: expect.stringContaining(`result-tmp/.removed-${idOf('stuck')}`) as string,
    });
    expect(removed.sort()).toEqual([idOf('other'), idOf('another')].sort());
    store.close();
    store = await createDirectoryStore(options());
    expect(store.records()).toEqual([]);
    const again = await store.build({ id: idOf('stuck'), base: undefined }, writing({ file: 'x' }), never);
    expect(again).toEqual({ status: 'ok' });
  });

  it('is told by store verify, which removes it once it can', async () => {
    await expect(store.delete(idOf('stuck'))).rejects.toMatchObject({ code: 'NOT_REMOVED' });
    const leftover = {
      kind: 'leftover',
      what: expect.stringContaining(`.removed-${idOf('stuck')}`) as string,
    };
    expect(await verifyStore(options(), { dryRun: false })).toMatchObject([
      { ...leftover, isRepaired: false },
    ]);
    setDefault(TOP_SUBVOLUME, disk.path);
    expect(await verifyStore(options(), { dryRun: false })).toMatchObject([
      { ...leftover, isRepaired: true },
    ]);
    expect(await verifyStore(options(), { dryRun: true })).toEqual([]);
  });
});
