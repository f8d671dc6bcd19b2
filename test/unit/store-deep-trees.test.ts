import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, expect, it } from 'vitest';
import { createCloneCopier } from '../../src/store/clone-copier.ts';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import type { Store } from '../../src/store/store.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';
import { createLoopDisk, removeLeftDisks, whyNoLoopDisks, type LoopDisk } from '../helpers/loop-disk.ts';

const MIB = 2 ** 20;
const builder = 7830;

/** Goes down through directories, making them, until the path is longer than any call takes; then does what is said. */
function atTheBottom(rootfs: string, then: string): string[] {
  const script = `
    process.chdir(process.argv[1]);
    for (let depth = 0; depth < 25; depth++) {
      try { fs.mkdirSync('d'.repeat(200)); } catch {}
      process.chdir('d'.repeat(200));
    }
    ${then}`;
  return ['-e', script, rootfs];
}

function makeDeepTree(directory: string): Promise<{ status: 'ok' }> {
  execFileSync(
    process.execPath,
    atTheBottom(join(directory, 'rootfs'), `fs.writeFileSync('deep', 'x'.repeat(${MIB}))`),
  );
  return Promise.resolve({ status: 'ok' });
}

let disk: LoopDisk;
let store: Store | undefined;
const processes: AbortController[] = [];

afterEach(() => {
  for (const each of processes.splice(0)) each.abort();
  store?.close();
  disk.remove();
});

async function openStore(kind: 'ext4' | 'xfs'): Promise<Store> {
  removeLeftDisks();
  disk = createLoopDisk(kind, kind === 'xfs' ? 320 : 40);
  const copier = kind === 'xfs' ? createCloneCopier() : createRsyncCopier();
  store = await createDirectoryStore({ root: join(disk.path, 'store'), copier });
  await store.build({ id: idOf('base'), base: undefined }, makeDeepTree, never);
  return store;
}

/** Starts a process that has something of the tree, and waits until it does. */
async function startHolder(rootfs: string, how: string): Promise<void> {
  const stop = new AbortController();
  processes.push(stop);
  const argv = atTheBottom(rootfs, `${how}; console.log('held'); setInterval(() => {}, 60_000);`);
  const child = spawn(process.execPath, argv, { signal: stop.signal, stdio: ['ignore', 'pipe', 'inherit'] });
  child.on('error', () => undefined); // ended
  await once(createInterface({ input: child.stdout }), 'line');
}

describe.skipIf(whyNoLoopDisks !== undefined)('a tree whose paths are longer than a call takes', () => {
  it.each([
    ['cloned', 'xfs'],
    ['copied', 'ext4'],
  ] as const)('is %s on %s, measured and removed as any other', async (_, kind) => {
    const deep = await openStore(kind);
    const request = { id: idOf('step'), base: idOf('base') };
    expect(await deep.build(request, writing({ more: 'more' }), never)).toEqual({ status: 'ok' });
    const result = join(disk.path, 'store/result', idOf('step'));
    const found = execFileSync('find', [result, '-name', 'deep', '-size', `${MIB}c`], { encoding: 'utf8' });
    expect(found.trim().length).toBeGreaterThan(4096);
    const { results, totalBytes } = await deep.usage();
    expect(results.get(idOf('step'))).toBeGreaterThan(MIB);
    expect(totalBytes).toBeGreaterThan(MIB);
    await deep.delete(idOf('base'));
    expect(deep.records()).toEqual([]);
  });

  it.each([
    ['has a file of it open for writing', `fs.openSync('deep', 'a')`],
    ['works in it', `process.setgid(${builder}); process.setuid(${builder})`],
  ])('is not saved as long as a process %s', async (_, how) => {
    const deep = await openStore('ext4');
    const fill = async (directory: string) => {
      await startHolder(join(directory, 'rootfs'), how);
      return { status: 'ok' } as const;
    };
    const outcome = await deep.build({ id: idOf('step'), base: idOf('base') }, fill, never);
    expect(outcome).toMatchObject({
      status: 'failed',
      message: expect.stringContaining('left open') as string,
    });
  });

  it('keeps no other tree from being saved when somebody works in it', async () => {
    const deep = await openStore('ext4');
    await startHolder(disk.path, `process.setgid(${builder}); process.setuid(${builder})`);
    const outcome = await deep.build({ id: idOf('other'), base: undefined }, writing({ file: 'x' }), never);
    expect(outcome).toEqual({ status: 'ok' });
  });
});
