import { randomUUID } from 'node:crypto';
import { open, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../os/exec.ts';
import { isResultId } from './store-layout.ts';
import { discard, type StoreParts } from './store-parts.ts';

const PREFIX = 'unsynced-';

/** What a process that does not sync leaves in `state` for as long as what it saved may be lost with the machine. */
interface Note {
  readonly path: string;
  /** Which start of the machine it belongs to. */
  readonly boot: string;
  readonly since: Date;
}

/** Says, durably, that what is saved from now on may be half there after the machine went down. */
export async function noteUnsynced(parts: StoreParts): Promise<void> {
  const file = await open(join(parts.layout.state, `${PREFIX}${randomUUID()}`), 'wx', 0o600);
  try {
    await file.writeFile(`${await bootId()}\n${new Date().toISOString()}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await parts.copier.settle(parts.layout.state);
}

/**
 * Removes what was saved without sync before the machine last went down: it may be damaged, and nothing tells. What was saved so since
 * is made durable when nobody has the store open any more (`isAlone`), and its notes go.
 */
export async function settleUnsynced(parts: StoreParts, isAlone: boolean): Promise<void> {
  const boot = await bootId();
  const notes = await readNotes(parts);
  const lost = notes.filter((note) => note.boot !== boot);
  if (lost.length > 0) {
    await removeSince(parts, new Date(Math.min(...lost.map(({ since }) => since.getTime()))));
    for (const { path } of lost) await rm(path, { force: true });
  }
  const kept = notes.filter((note) => note.boot === boot);
  if (!isAlone || kept.length === 0) return;
  await parts.copier.settle(parts.layout.root);
  for (const { path } of kept) await rm(path, { force: true });
}

async function readNotes({ layout }: StoreParts): Promise<Note[]> {
  const names = (await readdir(layout.state)).filter((name) => name.startsWith(PREFIX));
  return await Promise.all(
    names.map(async (name) => {
      const path = join(layout.state, name);
      const [boot = '', since = ''] = (await readFile(path, 'utf8')).split('\n');
      // One that was not finished was written when nothing had been saved yet.
      return { path, boot, since: since === '' ? new Date(8.64e15) : new Date(since) };
    }),
  );
}

/** By the times of the directories themselves: the index may have lost rows, too. A rename renews them. */
async function removeSince(parts: StoreParts, since: Date): Promise<void> {
  const { layout, copier, index } = parts;
  for (const name of (await readdir(layout.results)).filter(isResultId)) {
    if (!(await isChangedSince(layout.result(name), since))) continue;
    await discard(copier, layout.result(name), layout.resultsTmp);
    index.remove(name);
  }
  for (const name of await readdir(layout.caches)) {
    const path = layout.cache(name);
    if (await isChangedSince(path, since)) await discard(copier, path, layout.cachesTmp);
  }
}

async function isChangedSince(path: string, since: Date): Promise<boolean> {
  return (await stat(path)).ctime >= since;
}

async function bootId(): Promise<string> {
  if (process.platform === 'linux') return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  return (await runCommand(['sysctl', '-n', 'kern.bootsessionuuid'])).stdout.trim();
}
