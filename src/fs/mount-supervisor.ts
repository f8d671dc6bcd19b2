import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { errnoCode, ObuilderError } from '../errors.ts';
import { lockFile, untilUnlocked, watchUntilUnlocked, type FileLock } from './file-lock.ts';
import { mountAt, OUR_FS_TYPE } from './mount-table.ts';
import { native } from './native.ts';
import { canonicalPrefix } from './prefix-path.ts';
import {
  createRunDirectory,
  liveRecord,
  prefixFiles,
  removeRecord,
  type MountRecord,
  type PrefixFiles,
} from './run-directory.ts';
import { listScoreboard } from './scoreboard.ts';

/**
 * Keeps prefixes mounted for builds. Each prefix is served by a mount process of its own, which outlives this process if other
 * builds use it: they share it under a lease, a flock that dies with its holder. The last one out ends the mount; if all are
 * killed, the mount process sees the lease come free and ends by itself. A dead mount is cleared before a new one is made.
 */
export interface PrefixLease {
  readonly record: MountRecord;
  /** Aborted when the mount process is gone, for whatever reason, before `close`. */
  readonly lost: AbortSignal;
  /** Gives the mount back; resolves when it is gone, if nobody else uses it. Idempotent. */
  close(): Promise<void>;
}

export interface PrefixLeaseRequest {
  readonly prefix: string;
  readonly subdirectory: string;
  readonly scoreboard: string;
  readonly stateDir: string;
  /** The command that starts a mount process, up to and without `mount`: e.g. [node, main.js]. */
  readonly program: readonly string[];
  /** Ends every process of the mapped uids: without their mount they would see the covered directory. */
  readonly endProcesses: (uids: readonly number[]) => Promise<void>;
}

/** @throws {ObuilderError} when the prefix cannot be mounted, or serves another scoreboard. */
export async function leasePrefix(request: PrefixLeaseRequest): Promise<PrefixLease> {
  const prefix = await canonicalPrefix(request.prefix);
  const files = prefixFiles(createRunDirectory(request.stateDir), prefix);
  const change = await lockFile(files.change, 'exclusive');
  try {
    const lease = await lockFile(files.lease, 'shared');
    try {
      const record = await liveOrNewMount({ ...request, prefix }, files);
      return heldLease(request, record, files, lease);
    } catch (error) {
      lease.release();
      throw error;
    }
  } finally {
    change.release();
  }
}

async function liveOrNewMount(request: PrefixLeaseRequest, files: PrefixFiles): Promise<MountRecord> {
  const live = liveRecord(files);
  if (live !== undefined) {
    checkSameScoreboard(live, request);
    return live;
  }
  await checkNotServed(request.prefix);
  await clearDeadMount(request.prefix, request.scoreboard, files, request.endProcesses);
  await startMountProcess(request, files);
  const record = liveRecord(files);
  if (record === undefined) throw mountDied(request.prefix, files);
  return record;
}

function checkSameScoreboard(live: MountRecord, request: PrefixLeaseRequest): void {
  if (live.scoreboard === request.scoreboard && live.subdirectory === request.subdirectory) return;
  const other =
    live.scoreboard === request.scoreboard
      ? `subdirectory ${live.subdirectory || '.'}`
      : `scoreboard ${live.scoreboard}`;
  throw new ObuilderError(
    'PREFIX_BUSY',
    `prefix ${request.prefix} is already mounted with ${other} (pid ${live.pid})`,
    {
      hint: `use --scoreboard=${live.scoreboard}, or unmount it: obuilder-fs unmount ${request.prefix}`,
    },
  );
}

/** Refuses a prefix that a mount process with another state directory serves: it is alive, though we have no record of it. */
async function checkNotServed(prefix: string): Promise<void> {
  const mounted = await mountAt(prefix);
  if (mounted?.fsType !== OUR_FS_TYPE) return;
  if (await isDead(prefix)) return;
  throw new ObuilderError(
    'PREFIX_BUSY',
    `prefix ${prefix} is already mounted by another obuilder-fs (${mounted.source})`,
    {
      hint: `unmount it first: umount ${prefix}, or use the --state-dir that it was mounted with`,
    },
  );
}

/** Whether nothing serves a mount any more. Opening the directory always asks the mount process; a stat may be answered by a cache. */
async function isDead(prefix: string): Promise<boolean> {
  try {
    await (await opendir(prefix)).close();
    return false;
  } catch (error) {
    return errnoCode(error) === 'ENOTCONN' || errnoCode(error) === 'ENXIO';
  }
}

/**
 * Takes away what a killed mount process left at `prefix`; nothing to do where it left nothing. The processes of mapped uids are
 * ended first: between here and the next mount they would see the covered directory.
 */
export async function clearDeadMount(
  prefix: string,
  scoreboard: string,
  files: PrefixFiles,
  endProcesses: (uids: readonly number[]) => Promise<void>,
): Promise<boolean> {
  let isCleared = false;
  while ((await mountAt(prefix))?.fsType === OUR_FS_TYPE) {
    if (!isCleared) await endProcesses(mappedUids(scoreboard));
    try {
      native().unmount(prefix, 'abort');
    } catch (error) {
      if (errnoCode(error) !== 'EINVAL') throw error; // EINVAL: gone meanwhile
    }
    isCleared = true;
  }
  removeRecord(files);
  return isCleared;
}

/** Uids with an entry of their own; root is never among them. */
function mappedUids(scoreboard: string): number[] {
  return listScoreboard(scoreboard, '')
    .map(({ name }) => Number(name))
    .filter((uid) => Number.isInteger(uid) && uid > 0);
}

async function startMountProcess(request: PrefixLeaseRequest, files: PrefixFiles): Promise<void> {
  const [command = '', ...args] = request.program;
  const mountArgs = [
    'mount',
    `${request.prefix}=${request.subdirectory || '.'}`,
    `--scoreboard=${request.scoreboard}`,
    `--state-dir=${request.stateDir}`,
    '--leased',
  ];
  await startInBackground([command, ...args, ...mountArgs], files.log);
}

/**
 * Starts `obuilder-fs mount …` in a session of its own, so that a terminal's Ctrl-C is not its end, and resolves when its mounts
 * answer. Its later words go to `log`.
 */
export async function startInBackground(argv: readonly string[], log: string): Promise<number> {
  const [command = '', ...args] = argv;
  const out = openSync(log, 'w', 0o600);
  const child = spawn(command, args, { detached: true, stdio: ['ignore', out, out, 'ipc'], cwd: '/' });
  closeSync(out);
  try {
    await untilReady(child, log);
  } finally {
    child.disconnect();
    child.unref();
  }
  return child.pid ?? 0;
}

/** What a mount process tells the process that started it. */
export type MountMessage =
  { type: 'ready' } | { type: 'failed'; code: string; message: string; hint?: string };

function untilReady(child: ChildProcess, log: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      reject(
        new ObuilderError(
          'MOUNT_FAILED',
          `the mount process ended at once (${signal ?? `exit status ${code ?? '?'}`})`,
          {
            hint: `its words are in ${log}`,
          },
        ),
      );
    });
    child.once('message', (message: MountMessage) => {
      if (message.type === 'ready') resolve();
      else
        reject(
          new ObuilderError(
            message.code,
            message.message,
            message.hint === undefined ? {} : { hint: message.hint },
          ),
        );
    });
  });
}

function mountDied(prefix: string, files: PrefixFiles): ObuilderError {
  return new ObuilderError('MOUNT_FAILED', `the mount process of ${prefix} died as soon as it served`, {
    hint: `its words are in ${files.log}`,
  });
}

function heldLease(
  request: PrefixLeaseRequest,
  record: MountRecord,
  files: PrefixFiles,
  lease: FileLock,
): PrefixLease {
  const lost = new AbortController();
  let closed: Promise<void> | undefined;
  // The mount process holds its lock for as long as it serves, and the kernel lets go of it when it dies.
  const ended = watchUntilUnlocked(files.serving);
  ended.then(
    () => {
      if (closed === undefined) lost.abort(new Error(`the mount of ${record.prefix} was lost`));
    },
    (error: unknown) => lost.abort(error),
  );
  const close = async () => {
    const change = await lockFile(files.change, 'exclusive');
    try {
      const isLast = lease.tryUpgrade();
      if (isLast && record.isLeased) await endMount(request, record, files);
    } finally {
      lease.release();
      change.release();
    }
  };
  return { record, lost: lost.signal, close: () => (closed ??= close()) };
}

async function endMount(request: PrefixLeaseRequest, record: MountRecord, files: PrefixFiles): Promise<void> {
  // Its lock is held, so the pid is still that process.
  if (liveRecord(files)?.pid === record.pid) process.kill(record.pid, 'SIGTERM');
  await untilUnlocked(files.serving);
  await clearDeadMount(record.prefix, request.scoreboard, files, request.endProcesses);
}
