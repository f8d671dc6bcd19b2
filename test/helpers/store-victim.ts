import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import type { TreeCopier } from '../../src/store/tree-copier.ts';

/**
 * A process to be killed: `store-victim.ts ROOT POINT OPERATION ARGS…` works on a store and, at the checkpoint POINT
 * (or `copying`, as soon as a copy has begun), says "reached" and works no further.
 */
const [root = '', point = '', operation, first = '', second = ''] = process.argv.slice(2);

async function stopHere(): Promise<never> {
  process.stdout.write('reached\n');
  return await new Promise(() => setInterval(() => undefined, 60_000));
}

const rsync = createRsyncCopier();
const copier: TreeCopier = {
  ...rsync,
  async copy(source, target, signal) {
    const copying = rsync.copy(source, target, signal);
    if (point === 'copying') await stopHere();
    await copying;
  },
};
const store = await createDirectoryStore({
  root,
  copier,
  checkpoint: async (reached) => {
    if (reached === point) await stopHere();
  },
});

switch (operation) {
  case 'build':
    await store.build(
      { id: first, base: second },
      (directory) => {
        writeFileSync(join(directory, 'rootfs/made'), 'by the victim');
        return Promise.resolve({ status: 'ok' });
      },
      new AbortController().signal,
    );
    break;
  case 'delete':
    await store.delete(first);
    break;
  case 'cache': {
    const copy = await store.openCache(first);
    writeFileSync(join(copy.directory, 'content'), 'new');
    await copy.release();
    break;
  }
  default:
    throw new Error(`no operation ${operation ?? ''}`);
}
