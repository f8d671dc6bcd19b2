import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ObuilderError } from '../errors.ts';

/** What the addon offers. Failed system calls throw Error {code, errno, syscall, path}. */
export interface NativeAddon {
  /** Mounts and serves from threads of this process; `onEnded` is called once when the mount is gone, by whomever. */
  startMount(options: NativeMountOptions, onEnded: () => void): void;
  /** `idle` fails with EBUSY while it is used; `detach` hides it at once; `abort` fails what is under way, then detaches. */
  unmount(prefix: string, mode: 'idle' | 'detach' | 'abort'): void;
  /** What was counted for each tree of a mount that this process serves. */
  statistics(prefix: string): TreeCounts[];
  /** Every entry of a scoreboard as the file system judges it; `problem` is empty when the entry is usable. */
  readScoreboard(
    scoreboard: string,
    subdirectory: string,
    prefix: string,
  ): { name: string; target: string; problem: string }[];
  /** Gives up every other capability, for the calling thread and the threads it makes from now on. Linux. */
  keepCapabilities(numbers: readonly number[]): void;
  /** Whether the lock was taken (flock LOCK_NB). */
  flockTry(fd: number, exclusive: boolean): boolean;
  /**
   * Files below `root` that somebody can write to now, at most `countMax`, relative to it. Fails with EOPNOTSUPP where neither
   * descriptors nor mappings can be told so. Linux.
   */
  filesOpenForWriting(root: string, countMax: number): Promise<string[]>;
  /** What the tree at `root` takes on disk, without other file systems in it. Fails with ENOENT when it is not there. */
  measureTree(root: string): Promise<TreeUsage>;
  /** Resolves once the lock is held; waits on a thread of its own, which keeps the process from ending only if told to. */
  flockWait(fd: number, exclusive: boolean, keepsProcess: boolean): Promise<void>;
  /**
   * Fills the existing empty directory `target` with a copy of `source` whose files share their storage with the originals, or with
   * `isCopy` (on Linux alone) do not, on threads of its own. Fails with EXDEV between file systems and EOPNOTSUPP where the file system
   * cannot share; with ECANCELED when cancelled.
   */
  cloneTree(source: string, target: string, isCopy: boolean): NativeClone;
  /**
   * Resolves to a descriptor of a mount namespace like this one but for the owners of these trees; the caller closes it. Rejects
   * with EINVAL, EPERM, ENOSYS or ENOSPC where kernel, file system or machine do not allow it.
   */
  openMappedNamespace(trees: readonly MappedTree[]): Promise<number>;
}

/** A directory whose files are shown as another owner's: those of the stored ids, and what the shown ids make is stored as theirs. */
export interface MappedTree {
  readonly path: string;
  readonly storedUid: number;
  readonly storedGid: number;
  readonly shownUid: number;
  readonly shownGid: number;
}

/** A clone that is under way. */
export interface NativeClone {
  readonly finished: Promise<void>;
  cancel(): void;
}

export interface TreeUsage {
  readonly files: number;
  /** What others share counts in full; a file with several names once. */
  readonly bytes: number;
  /** The part of `bytes` that stays when the tree goes: files with names elsewhere, and storage that other files share. */
  readonly sharedBytes: number;
}

/** What happened in one tree since it was first used. */
export interface TreeCounts {
  /** The scoreboard entry that leads to it; '' for the covered directory. */
  readonly entry: string;
  /** How many generations (views, that is, with node ids of their own) it has had. */
  readonly generation: number;
  readonly operations: number;
  /** Operations that failed, other than for want of a name. */
  readonly errors: number;
  readonly openFiles: number;
  /** Files that the kernel knows now. */
  readonly cachedNodes: number;
}

/**
 * `auto` is `handles` where the file system has file handles, else `paths`. `descriptors` holds one open for each known file.
 */
export const BACKINGS = ['auto', 'handles', 'descriptors', 'paths'] as const;
export type Backing = (typeof BACKINGS)[number];

export interface NativeMountOptions {
  prefix: string;
  /** Directory that callers without an entry see; '' for the one that the mount covers. */
  covered: string;
  scoreboard: string;
  /** Of an entry's directory; '' for that directory itself. */
  subdirectory: string;
  mapOwner: boolean;
  /** How files are known while no descriptor of them is open. */
  backing: Backing;
  /** Unguessable name of the hidden directory in which root finds the trees' own roots. */
  doorsName: string;
  cacheNames: boolean;
  mountOptions: string[];
  /** What the mount table shows as the device. */
  source: string;
}

let loaded: NativeAddon | undefined;

/** The addon, from prebuilds/ or a build of this machine. Works from src/ and from dist/. */
export function native(): NativeAddon {
  if (loaded !== undefined) return loaded;
  const require = createRequire(import.meta.url);
  const packageRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  try {
    const load = require('node-gyp-build') as (root: string) => NativeAddon;
    loaded = load(process.env['OBUILDER_FS_PREBUILD'] ?? packageRoot);
  } catch (cause) {
    const [reason] = (cause as Error).message.split('\n');
    throw new ObuilderError('ADDON_MISSING', `the native addon does not load: ${reason ?? ''}`, {
      hint: `build it with "npm run build:native" in ${packageRoot} (it needs cmake, a C++20 compiler and libfuse3-dev)`,
      cause,
    });
  }
  return loaded;
}
