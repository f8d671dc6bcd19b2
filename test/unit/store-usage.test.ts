import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import { native } from '../../src/fs/native.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';
import { createLoopDisk, removeLeftDisks, whyNoLoopDisks } from '../helpers/loop-disk.ts';

const MIB = 2 ** 20;
const big = 'x'.repeat(MIB);

let scratch: string;

beforeEach(() => {
  // Not in memory: what a file takes there is not what it takes on a disk.
  scratch = mkdtempSync('/var/tmp/store-usage-');
});

afterEach(() => rmSync(scratch, { recursive: true, force: true }));

describe('what a tree takes', () => {
  it('counts a file with two names once, as shared only when a name is elsewhere', async () => {
    mkdirSync(join(scratch, 'tree/deep'), { recursive: true });
    writeFileSync(join(scratch, 'tree/twice'), big);
    linkSync(join(scratch, 'tree/twice'), join(scratch, 'tree/deep/again'));
    const alone = await native().measureTree(join(scratch, 'tree'));
    expect(alone).toMatchObject({ files: 2, sharedBytes: 0 });
    expect(alone.bytes).toBeGreaterThanOrEqual(MIB);
    expect(alone.bytes).toBeLessThan(1.5 * MIB);
    linkSync(join(scratch, 'tree/twice'), join(scratch, 'elsewhere'));
    expect((await native().measureTree(join(scratch, 'tree'))).sharedBytes).toBeGreaterThanOrEqual(MIB);
  });

  it('fails when there is none', async () => {
    await expect(native().measureTree(join(scratch, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it.skipIf(whyNoLoopDisks !== undefined)('knows what clones share', async () => {
    removeLeftDisks();
    const disk = createLoopDisk('xfs', 320);
    try {
      mkdirSync(join(disk.path, 'tree'));
      for (const name of ['original', 'own']) writeFileSync(join(disk.path, 'tree', name), big);
      execFileSync('cp', ['--reflink=always', join(disk.path, 'tree/original'), join(disk.path, 'clone')]);
      execFileSync('sync', ['-f', disk.path]);
      const { bytes, sharedBytes } = await native().measureTree(join(disk.path, 'tree'));
      expect(sharedBytes).toBe(MIB);
      expect(bytes).toBeGreaterThanOrEqual(2 * MIB);
    } finally {
      disk.remove();
    }
  });
});

describe('the usage of a store', () => {
  it('tells of each result what it takes, and how much of that others share', async () => {
    const root = join(scratch, 'store');
    const store = await createDirectoryStore({ root, copier: createRsyncCopier('hardlink') });
    await store.build({ id: idOf('base'), base: undefined }, writing({ one: big, two: big }), never);
    await store.build({ id: idOf('child'), base: idOf('base') }, writing({ two: `${big}y` }), never);
    const { results, sharedByResults, totalBytes } = await store.usage();
    store.close();
    for (const id of ['base', 'child']) {
      expect(results.get(idOf(id))).toBeGreaterThanOrEqual(2 * MIB);
      expect(sharedByResults.get(idOf(id))).toBe(MIB);
    }
    expect(totalBytes).toBeGreaterThanOrEqual(3 * MIB);
  });
});
