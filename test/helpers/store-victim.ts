import { mkdirSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import type { TreeCopier } from '../../src/store/tree-copier.ts';

/**
 * A process to be killed: `store-victim.js ROOT POINT OPERATION ARGS…` works on a store and, at the checkpoint POINT
 * (or `copying`, as soon as a copy has begun), says "reached" and works no further.
 * With `anything SEED ID…` it makes and removes these results and changes a cache until it is killed, and says what it begins and ends.
 */
const [root = '', point = '', operation, first = '', second = ''] = process.argv.slice(2);
const never = new AbortController().signal;

/** At once: what was said before a kill must be heard. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

async function stopHere(): Promise<never> {
  say('reached');
  return await new Promise(() => setInterval(() => undefined, 60_000));
}

const rsync = createRsyncCopier(point === 'hardlink' ? 'hardlink' : 'copy');
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
    if (operation === 'anything') say(`at ${reached}`);
  },
});

async function build(id: string, base: string | undefined, content: string): Promise<void> {
  await store.build(
    { id, base },
    (directory) => {
      mkdirSync(join(directory, 'rootfs/dir'), { recursive: true });
      for (const name of ['made', 'dir/made', `made-${id}`])
        writeFileSync(join(directory, 'rootfs', name), content);
      return Promise.resolve({ status: 'ok' });
    },
    never,
  );
}

async function useCache(name: string, content: string): Promise<void> {
  const copy = await store.openCache(name);
  for (const file of ['content', 'again']) writeFileSync(join(copy.directory, file), content);
  await copy.release();
}

/** A random integer below `limit`, from mulberry32: a seed repeats what is done. */
function createRandom(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

async function doAnything(ids: readonly string[], random: (limit: number) => number): Promise<never> {
  for (;;) {
    const id = ids[random(ids.length)] ?? '';
    const records = store.records();
    const base = records[random(records.length + 1)]?.id;
    const content = String(random(1_000_000));
    const works = [() => makeOne(id, base), () => removeOne(id), pruneOne, () => changeCache(content)];
    await works[random(works.length)]?.();
  }
}

async function makeOne(id: string, base: string | undefined): Promise<void> {
  if (base === id) return;
  say(`making ${id}`);
  await build(id, base, id);
  say(`made ${id}`);
}

async function removeOne(id: string): Promise<void> {
  const doomed = descendants(id);
  say(`removing ${doomed.join(' ')}`);
  await store.delete(id);
  say(`removed ${doomed.join(' ')}`);
}

function descendants(id: string): string[] {
  const children = store.records().filter(({ parent }) => parent === id);
  return [...children.flatMap((child) => descendants(child.id)), id];
}

async function pruneOne(): Promise<void> {
  const tomorrow = new Date(Date.now() + 86_400_000);
  const [next] = store.prunable(tomorrow);
  if (next === undefined) return;
  say(`removing ${next}`);
  await store.prune(tomorrow, 1);
  say(`removed ${next}`);
}

async function changeCache(content: string): Promise<void> {
  say(`caching ${content}`);
  await useCache('c', content);
  say(`cached ${content}`);
}

switch (operation) {
  case 'build':
    await build(first, second, 'by the victim');
    break;
  case 'delete':
    await store.delete(first);
    break;
  case 'prune':
    await store.prune(new Date(Date.now() + 86_400_000), 1);
    break;
  case 'cache':
    await useCache(first, 'new');
    break;
  case 'anything':
    await doAnything(process.argv.slice(6), createRandom(Number(first)));
    break;
  default:
    throw new Error(`no operation ${operation ?? ''}`);
}
