import { chmod, lstat, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import type { OpenPrefixView, PrefixView } from './prefix-view.ts';

/**
 * Makes sure that `path`, where a step will see its own files, is an empty directory of root's: made 0755 where missing.
 * What anybody put there, a person's home above all, is left alone.
 * @throws {ObuilderError} HOME_IN_USE when something else is there; it says what.
 */
export async function ensurePlace(path: string): Promise<void> {
  const found = await whatIsAt(path);
  if (found === 'an empty directory of root') return;
  if (found !== undefined) {
    throw new ObuilderError('HOME_IN_USE', `${path}: must be an empty directory of root, it is ${found}`, {
      hint: 'choose another --home-path, or move away what is there',
    });
  }
  await mkdir(dirname(path), { recursive: true });
  try {
    await mkdir(path);
  } catch (error) {
    if (errnoCode(error) === 'EEXIST') return ensurePlace(path); // made by another process meanwhile
    throw error;
  }
  await chmod(path, 0o755); // whatever the umask
}

async function whatIsAt(path: string): Promise<string | undefined> {
  try {
    const stat = await lstat(path);
    if (stat.isSymbolicLink()) return 'a symbolic link';
    if (!stat.isDirectory()) return 'not a directory';
    if (stat.uid !== 0) return `owned by uid ${stat.uid}`;
    return (await readdir(path)).length > 0 ? 'not empty' : 'an empty directory of root';
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** How steps come to find their trees at the home path. */
export interface HomePlacement {
  /**
   * `namespace`: the step's own mount namespace will show it there, to any number of steps at once. `moved`: it is there, for everybody to
   * see, one step's at a time. `redirected`: a mount shows each build user its own.
   */
  readonly kind: 'namespace' | 'moved' | 'redirected';
  /**
   * For a step of `uid`, which the caller has claimed.
   * @throws {ObuilderError} HOME_IN_USE when something that is not ours is at the home path; HOME_EXPOSED when it is moved to where others write.
   */
  place(rootfs: string, uid: number): Promise<PlacedHome>;
}

export interface PlacedHome {
  /** Where the tree is meanwhile. */
  readonly tree: string;
  /** The mount that shows it, if one does: when it dies, what the step saw cannot be trusted. */
  readonly view?: OpenPrefixView;
  /** Puts the tree back where it was. Nobody who could change it is left. */
  readonly takeBack: () => Promise<void>;
}

/** Of a step in a namespace of its own, where its tree is bound over the home path. */
export const placedByNamespace: HomePlacement = {
  kind: 'namespace',
  place: (rootfs) => Promise.resolve({ tree: rootfs, takeBack: () => Promise.resolve() }),
};

/**
 * Without namespaces, for one build user: the tree itself is moved to the home path, in no time, or copied there and back where that is
 * on another file system. What is placed is named in `journal` first, so that whoever comes after a killed process puts it back.
 */
export function createMovedHome(options: { homePath: string; journal: string }): HomePlacement {
  return {
    kind: 'moved',
    async place(rootfs) {
      await putBackPlaced(options.journal);
      await ensurePlace(options.homePath);
      await refuseSharedParent(options.homePath);
      const isNear = await onOneFileSystem(rootfs, dirname(options.homePath));
      return isNear ? placeByRename(rootfs, options) : placeByCopy(rootfs, options);
    },
  };
}

/** Its owner could put something else in its place there, and what a build user owns there is taken for a leftover. */
async function refuseSharedParent(homePath: string): Promise<void> {
  const parent = dirname(homePath);
  const { uid, mode } = await stat(parent);
  if (uid === 0 && (mode & 0o022) === 0) return;
  throw new ObuilderError('HOME_EXPOSED', `${homePath}: others than root may write in ${parent}`, {
    hint: 'choose another --home-path, in a directory of root alone',
  });
}

/** Without namespaces, for several build users: the home path is a prefix too, of whole trees, which tells callers apart. */
export function createRedirectedHome(homePath: string, prefixView: PrefixView): HomePlacement {
  return {
    kind: 'redirected',
    async place(rootfs, uid) {
      await ensurePlace(homePath);
      const view = await prefixView.open(uid, rootfs);
      return { tree: rootfs, view, takeBack: () => view.close() };
    },
  };
}

async function onOneFileSystem(one: string, other: string): Promise<boolean> {
  return (await lstat(one)).dev === (await lstat(other)).dev;
}

/** What a journal tells. A moved tree is known by its inode: what else is at the home path is not ours. */
interface PlacedTree {
  readonly kind: 'moved' | 'copied';
  readonly rootfs: string;
  readonly homePath: string;
  readonly inode: string;
}

interface MovedHomeOptions {
  readonly homePath: string;
  readonly journal: string;
}

/** rename(2) replaces an empty directory. */
async function placeByRename(rootfs: string, { homePath, journal }: MovedHomeOptions): Promise<PlacedHome> {
  await note(journal, { kind: 'moved', rootfs, homePath, inode: await inodeOf(rootfs) });
  await rename(rootfs, homePath);
  return {
    tree: homePath,
    async takeBack() {
      await rename(homePath, rootfs);
      await ensurePlace(homePath);
      await rm(journal);
    },
  };
}

async function placeByCopy(rootfs: string, { homePath, journal }: MovedHomeOptions): Promise<PlacedHome> {
  await note(journal, { kind: 'copied', rootfs, homePath, inode: await inodeOf(homePath) });
  await runCommand(copyCommand(rootfs, homePath));
  return {
    tree: homePath,
    async takeBack() {
      await runCommand(copyBackCommand(homePath, rootfs));
      await empty(homePath);
      await rm(journal);
    },
  };
}

/** Both directories exist. */
export function copyCommand(from: string, to: string): string[] {
  return ['rsync', '-aHq', '--delete', '--', `${from}/`, `${to}/`];
}

/** To where it came from. By content: a file of the same size that was changed within the same second is taken for the same by rsync. */
export function copyBackCommand(from: string, to: string): string[] {
  return ['rsync', '-aHq', '--checksum', '--delete', '--', `${from}/`, `${to}/`];
}

async function empty(homePath: string): Promise<void> {
  await runCommand(['rm', '-rf', '--', homePath]);
  await ensurePlace(homePath);
}

/** Durable before anything is moved. */
async function note(journal: string, placed: PlacedTree): Promise<void> {
  const fresh = `${journal}.new`;
  const file = await open(fresh, 'w', 0o600);
  try {
    await file.writeFile(JSON.stringify(placed));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(fresh, journal);
}

/** Undoes what a killed process has placed. Its tree goes back, or away where nobody waits for it any more. */
export async function putBackPlaced(journal: string): Promise<void> {
  const placed = await readJournal(journal);
  if (placed === undefined) return;
  const { kind, rootfs, homePath, inode } = placed;
  if ((await inodeOf(homePath)) === inode) {
    if (kind === 'copied' || !(await canGoBack(rootfs))) await empty(homePath);
    else await rename(homePath, rootfs);
  }
  await rm(journal);
}

async function readJournal(journal: string): Promise<PlacedTree | undefined> {
  try {
    return JSON.parse(await readFile(journal, 'utf8')) as PlacedTree;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whether its place is still there, and free. */
async function canGoBack(rootfs: string): Promise<boolean> {
  return (await inodeOf(rootfs)) === '' && (await inodeOf(dirname(rootfs))) !== '';
}

/** Device and inode; '' for what is not there. */
async function inodeOf(path: string): Promise<string> {
  try {
    const { dev, ino } = await lstat(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return '';
    throw error;
  }
}
