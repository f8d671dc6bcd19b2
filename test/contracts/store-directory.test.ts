import { afterAll, beforeAll, describe } from 'vitest';
import { createBtrfsCopier } from '../../src/store/btrfs-copier.ts';
import { createCloneCopier } from '../../src/store/clone-copier.ts';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import { createLoopDisk, whyNoLoopDisks, type LoopDisk } from '../helpers/loop-disk.ts';
import { storeContract } from './store-contract.ts';
import { treeCopierContract } from './tree-copier-contract.ts';

for (const mode of ['copy', 'hardlink', 'hardlink_unsafe'] as const) {
  storeContract(`rsync, ${mode}`, (root) => createDirectoryStore({ root, copier: createRsyncCopier(mode) }));
}
describe.skipIf(whyNoLoopDisks !== undefined)('owners and device files', () => {
  treeCopierContract('rsync', createRsyncCopier);
});

const onDisks = [
  { name: 'clone on XFS', disk: 'xfs', createCopier: createCloneCopier },
  { name: 'clone on btrfs', disk: 'btrfs', createCopier: createCloneCopier },
  { name: 'btrfs', disk: 'btrfs', createCopier: createBtrfsCopier },
] as const;

describe.skipIf(whyNoLoopDisks !== undefined).each(onDisks)('$name', ({ name, disk, createCopier }) => {
  let loop: LoopDisk;
  beforeAll(() => {
    loop = createLoopDisk(disk, 512);
  });
  afterAll(() => loop.remove());

  storeContract(
    name,
    (root) => createDirectoryStore({ root, copier: createCopier() }),
    () => loop.path,
  );
  treeCopierContract(name, createCopier, () => loop.path);
});
