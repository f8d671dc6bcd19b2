import { randomBytes } from 'node:crypto';
import { lstatSync } from 'node:fs';
import type { Server } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { errnoCode, ObuilderError } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import { lockFile, tryLockFile, type FileLock } from './file-lock.ts';
import { keepMountCapabilities } from './mount-capabilities.ts';
import { native, type Backing } from './native.ts';
import { mountOptions } from './mount-options.ts';
import {
  canonicalPrefix,
  checkFuse,
  checkMountable,
  checkOutside,
  checkRoot,
  type PrefixRequest,
} from './prefix-path.ts';
import {
  createRunDirectory,
  liveRecord,
  prefixFiles,
  removeRecord,
  writeRecord,
  type MountRecord,
  type PrefixFiles,
} from './run-directory.ts';
import { serveStatistics } from './mount-statistics.ts';
import { checkScoreboard } from './scoreboard.ts';

/** What `obuilder-fs mount` takes. */
export interface MountRequest {
  readonly prefixes: readonly PrefixRequest[];
  readonly scoreboard: string;
  /** Directory for callers without an entry, instead of the covered one. */
  readonly unmapped: string | undefined;
  readonly cache: 'auto' | 'none';
  readonly mapOwner: boolean;
  readonly backing: Backing;
  /** As after -o; they win over the defaults. */
  readonly mountOptions: readonly string[];
  readonly stateDir: string;
  /** End when no build holds a lease on the prefix: for mounts that builds made. */
  readonly isLeased: boolean;
}

/** Mounts that this process serves. */
export interface ServedMounts {
  readonly records: readonly MountRecord[];
  /** Resolves when every mount is gone, by whomever. */
  readonly ended: Promise<void>;
  /**
   * Takes the mounts away: from new callers at once, and when nobody uses them any more for good. `force` fails what is still
   * under way. Answers the prefixes that are out of sight but still in use: only this process's end takes those from their users.
   */
  unmount(force: boolean): string[];
}

/** An answer to a stat of the root takes microseconds; this is for a machine that is drowning. */
const PROBE_DEADLINE_MS = 30_000;

interface ServedPrefix {
  readonly record: MountRecord;
  readonly files: PrefixFiles;
  readonly lock: FileLock;
  /** `detached`: out of sight but in use; what is at the prefix now, and its record and lock, may be another process's. */
  state: 'reserved' | 'mounted' | 'detached' | 'ended';
  statistics?: Server | undefined;
}

/**
 * Mounts every prefix and serves them from this process, which must never touch them itself (a process that waits for its own
 * mount cannot even be killed). Resolves when each answers; on any failure nothing is left mounted.
 */
export async function serveMounts(request: MountRequest): Promise<ServedMounts> {
  checkRoot('mounting');
  checkFuse();
  mountOptions(request.mountOptions, request.scoreboard);
  checkScoreboard(request.scoreboard);
  checkUnmapped(request.unmapped);
  await checkPrefixes(request);
  process.chdir('/'); // a working directory in a prefix would be one that this process serves itself
  const runDirectory = createRunDirectory(request.stateDir);
  const served: ServedPrefix[] = [];
  const ends: Promise<void>[] = [];
  const unmount = (force: boolean) => unmountAll(served, force);
  const atExit = () => unmountAll(served, true);
  process.on('exit', atExit);
  keepMountCapabilities();
  try {
    for (const prefix of request.prefixes) {
      const mount = await reservePrefix(request, prefix, runDirectory);
      served.push(mount);
      ends.push(startServing(request, mount));
      await probe(mount.record.prefix);
      mount.statistics = serveStatistics(mount.files.statistics, mount.record.prefix);
      writeRecord(mount.files, mount.record);
      if (request.isLeased) endWithLease(mount);
    }
  } catch (error) {
    unmount(true);
    await Promise.all(ends);
    for (const { lock } of served) lock.release();
    process.off('exit', atExit);
    throw error;
  }
  const ended = Promise.all(ends).then(() => {
    process.off('exit', atExit);
  });
  return { records: served.map(({ record }) => record), ended, unmount };
}

async function checkPrefixes(request: MountRequest): Promise<void> {
  const prefixes = await Promise.all(request.prefixes.map(({ prefix }) => canonicalPrefix(prefix)));
  const twice = prefixes.find((prefix, i) => prefixes.indexOf(prefix) !== i);
  if (twice !== undefined) {
    throw new ObuilderError('BAD_PREFIX', `prefix ${twice} is named twice`, {
      hint: 'name each prefix once',
    });
  }
  const needed = new Map([
    ['scoreboard', request.scoreboard],
    ['--state-dir', request.stateDir],
  ]);
  if (request.unmapped !== undefined) needed.set('--unmapped', request.unmapped);
  checkOutside(prefixes, needed);
}

function checkUnmapped(directory: string | undefined): void {
  if (directory === undefined || lstatSync(directory, { throwIfNoEntry: false })?.isDirectory() === true)
    return;
  throw new ObuilderError('UNMAPPED_MISSING', `--unmapped ${directory} is not a directory`, {
    hint: 'name the directory that uids without an entry are to see',
  });
}

async function reservePrefix(
  request: MountRequest,
  wanted: PrefixRequest,
  runDirectory: string,
): Promise<ServedPrefix> {
  const prefix = await canonicalPrefix(wanted.prefix);
  const files = prefixFiles(runDirectory, prefix);
  await checkMountable(prefix);
  const lock = await reserveLock(files);
  if (lock === undefined) {
    const holder = liveRecord(files);
    throw new ObuilderError(
      'PREFIX_BUSY',
      `prefix ${prefix} is being served by pid ${holder?.pid ?? 'unknown'}`,
      {
        hint: `wait for it to end, or: obuilder-fs unmount --force ${prefix}`,
      },
    );
  }
  const record: MountRecord = {
    prefix,
    pid: process.pid,
    scoreboard: request.scoreboard,
    subdirectory: wanted.subdirectory,
    unmapped: request.unmapped ?? '',
    cache: request.cache,
    mapOwner: request.mapOwner,
    backing: request.backing,
    doorsName: `.obuilder-fs.${randomBytes(16).toString('hex')}`,
    isLeased: request.isLeased,
    startedAt: new Date().toISOString(),
  };
  return { record, files, lock, state: 'reserved' };
}

// Whoever looks whether a mount lives holds the lock for an instant, which must not pass for a mount.
async function reserveLock(files: PrefixFiles): Promise<FileLock | undefined> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const lock = tryLockFile(files.serving, 'exclusive');
    if (lock !== undefined || liveRecord(files) !== undefined) return lock;
    await setTimeout(10);
  }
  return undefined;
}

/** Mounts one prefix. The promise resolves when its mount is gone. */
function startServing(request: MountRequest, mount: ServedPrefix): Promise<void> {
  const { record } = mount;
  return new Promise((resolve) => {
    const onEnded = () => {
      if (mount.state !== 'detached') giveBack(mount);
      mount.state = 'ended';
      resolve();
    };
    try {
      native().startMount(
        {
          prefix: record.prefix,
          covered: record.unmapped,
          scoreboard: record.scoreboard,
          subdirectory: record.subdirectory,
          mapOwner: record.mapOwner,
          backing: record.backing,
          doorsName: record.doorsName,
          cacheNames: record.cache === 'auto',
          mountOptions: mountOptions(request.mountOptions, record.scoreboard),
          source: record.scoreboard,
        },
        onEnded,
      );
      mount.state = 'mounted';
    } catch (cause) {
      throw mountFailed(record.prefix, cause);
    }
  });
}

function mountFailed(prefix: string, cause: unknown): ObuilderError {
  const code = errnoCode(cause) ?? 'unknown error';
  const call = (cause as { syscall?: string }).syscall;
  if (code === 'EOPNOTSUPP') {
    return new ObuilderError('NO_HANDLES', `prefix ${prefix}: its file system has no file handles`, {
      hint: 'use a prefix on ext4, XFS, btrfs or tmpfs, or --unmapped with a directory there',
      cause,
    });
  }
  if (call === 'fuse_session_new') {
    return new ObuilderError('BAD_MOUNT_OPTION', `prefix ${prefix}: libfuse refuses a mount option`, {
      hint: 'see the line above, and mount.fuse3(8) for what -o takes',
      cause,
    });
  }
  return new ObuilderError(
    'MOUNT_FAILED',
    `prefix ${prefix} cannot be mounted: ${call ?? 'mount'} failed with ${code}`,
    {
      hint:
        code === 'EPERM'
          ? 'the container or sandbox must allow mount(2) (CAP_SYS_ADMIN)'
          : 'see dmesg for the reason',
      cause,
    },
  );
}

// From another process: this one must not touch what it serves.
async function probe(prefix: string): Promise<void> {
  try {
    await runCommand(['/bin/ls', '-d', `${prefix}/.`], { signal: AbortSignal.timeout(PROBE_DEADLINE_MS) });
  } catch (cause) {
    throw new ObuilderError('MOUNT_SILENT', `prefix ${prefix} was mounted but does not answer`, {
      hint: 'see dmesg; on macOS approve the macFUSE extension in System Settings',
      cause,
    });
  }
}

function unmountAll(served: readonly ServedPrefix[], force: boolean): string[] {
  return served
    .filter((mount) => mount.state === 'detached' || (mount.state === 'mounted' && !unmountOne(mount, force)))
    .map(({ record }) => record.prefix);
}

/** Answers whether nothing is left in use. A mount that is in use is hidden at once and ends with its last user. */
function unmountOne(mount: ServedPrefix, force: boolean): boolean {
  try {
    native().unmount(mount.record.prefix, force ? 'abort' : 'idle');
    return true;
  } catch (error) {
    if (errnoCode(error) === 'EINVAL') return true; // somebody else has taken it away
    if (errnoCode(error) !== 'EBUSY') throw error;
  }
  native().unmount(mount.record.prefix, 'detach');
  // It can be mounted anew now; what it still serves is out of sight.
  mount.state = 'detached';
  giveBack(mount);
  return false;
}

function giveBack({ files, lock, statistics }: ServedPrefix): void {
  statistics?.close(); // takes its socket away, which is the successor's place once the lock is free
  removeRecord(files);
  lock.release();
}

// When every build that used the mount is gone, however it went, the kernel grants the lease to us.
function endWithLease(mount: ServedPrefix): void {
  const wait = async () => {
    const lease = await lockFile(mount.files.lease, 'exclusive');
    if (mount.state === 'mounted') unmountOne(mount, false);
    lease.release();
  };
  wait().catch((error: unknown) => {
    console.error(`obuilder-fs: the lease on ${mount.record.prefix} cannot be watched:`, error);
  });
}
