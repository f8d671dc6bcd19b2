import { chownSync, lstatSync, mkdirSync } from 'node:fs';
import { opendir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { leasePrefix, type PrefixLease, type PrefixLeaseRequest } from '../fs/mount-supervisor.ts';
import { clearScoreboardEntry, createScoreboard, setScoreboardEntry } from '../fs/scoreboard.ts';
import { treeDoor } from '../fs/tree-door.ts';
import type { OpenPrefixView, PrefixView } from './prefix-view.ts';

/** A prefix that is mounted when the first step needs it, and given back by `close`. */
export interface MountedPrefix extends PrefixView {
  close(): Promise<void>;
}

/** Shows build users their trees through the mount: points the scoreboard at what each step works on. */
export function createMountedPrefix(request: PrefixLeaseRequest): MountedPrefix {
  let leased: Promise<PrefixLease> | undefined;

  // One after the other: callers at once share a lease.
  function lease(): Promise<PrefixLease> {
    return (leased = renewed(leased));
  }

  async function renewed(before: Promise<PrefixLease> | undefined): Promise<PrefixLease> {
    const current = await before?.catch(() => undefined);
    if (current !== undefined && !current.isLost()) return current;
    createScoreboard(request.scoreboard);
    try {
      return await leasePrefix(request);
    } finally {
      await current?.close(); // not before: the last one out would end the mount that has replaced the lost one
    }
  }

  return {
    async mapsOwners() {
      return (await lease()).record.mapOwner;
    },

    async open(uid, rootfs): Promise<OpenPrefixView> {
      const mount = await lease();
      const { record, lost } = mount;
      ensureTree(rootfs, request.subdirectory);
      setScoreboardEntry(request.scoreboard, String(uid), rootfs);
      const door = treeDoor(record, uid, uid);
      await checkDoor(door, mount);
      return {
        treeDoor: door,
        lost,
        isLost: () => hasDied(mount),
        close() {
          clearScoreboardEntry(request.scoreboard, String(uid));
          return Promise.resolve();
        },
      };
    },

    async close() {
      const current = await leased?.catch(() => undefined);
      await current?.close();
    },
  };
}

/** A base image without a tree gets an empty one, its owner's: the file system refuses an entry that leads to none. */
function ensureTree(rootfs: string, subdirectory: string): void {
  const tree = join(rootfs, subdirectory);
  if (lstatSync(tree, { throwIfNoEntry: false }) !== undefined) return;
  const { uid, gid } = lstatSync(rootfs);
  mkdirSync(tree, { mode: 0o755 });
  chownSync(tree, uid, gid);
}

/** What a call ends with whose mount process dies, before or while it is answered (the last one: by io_uring). */
const CUT_OFF = new Set(['ENOTCONN', 'ECONNABORTED', 'ECANCELED']);

function isCutOff(error: unknown): boolean {
  return CUT_OFF.has(errnoCode(error) ?? '');
}

/** A killed process is cut off a moment before its lock is free, so the mount is asked: opening a directory always asks the process. */
async function hasDied(mount: PrefixLease): Promise<boolean> {
  try {
    await (await opendir(mount.record.prefix)).close();
  } catch (error) {
    if (isCutOff(error)) return true;
  }
  return mount.isLost();
}

/** A mount that died is told by `lost`; anything else wrong with the tree is told here, before the step meets it. */
async function checkDoor(door: string, mount: PrefixLease): Promise<void> {
  try {
    await stat(door);
  } catch (cause) {
    // Its connection is cut a moment before a killed process is seen to be gone.
    if (isCutOff(cause)) await untilLost(mount);
    if (mount.isLost()) return;
    throw new ObuilderError(
      'TREE_UNUSABLE',
      `the step's tree cannot be shown at ${mount.record.prefix}: ${errnoCode(cause) ?? 'unknown error'}`,
      {
        hint: 'its "local" must be a directory; see: obuilder-fs status',
        cause,
      },
    );
  }
}

function untilLost({ lost }: PrefixLease): Promise<void> {
  return new Promise((resolve) => {
    if (lost.aborted) resolve();
    else lost.addEventListener('abort', () => resolve(), { once: true });
  });
}
