import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import { storeContract } from './store-contract.ts';

for (const mode of ['copy', 'hardlink', 'hardlink_unsafe'] as const) {
  storeContract(`rsync, ${mode}`, (root) => createDirectoryStore({ root, copier: createRsyncCopier(mode) }));
}
