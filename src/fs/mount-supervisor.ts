import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoCode, ObuilderError } from '../errors.ts';
import { lockFile, untilUnlocked, watchUntilUnlocked, type FileLock } from './file-lock.ts';
import { withMountCapabilities } from './mount-capabilities.ts';
import { answers, PROBE_TIMES, watchAnswers, type ProbeTimes } from './mount-probe.ts';
import { mountAt, OUR_FS_TYPE } from './mount-table.ts';
import { native } from './native.ts';
import { canonicalPrefix } from './prefix-path.ts';
import {
  createRunDirectory,
  isServedBy,
  liveRecord,
  prefixFiles,
  removeRecord,
  type MountRecord,
  type PrefixFiles,
  signalServing,
} from './run-directory.ts';
import { listScoreboard } from './scoreboard.ts';

/**
 * Keeps prefixes mounted for builds. Each prefix is served by a mount process of its own, which outlives this process if other
 * builds use it: they share it under a lease, a flock that dies with its holder. The last one out ends the mount; if all are
 * killed, the mount process sees the lease come free and ends by itself.
 *
 * While a lease is held, its holder watches the mount: one whose process died is cleared and replaced at once, one that does not
 * answer is killed first. Of several holders exactly one does it. The lease of a lost mount stays with its holder, so that the new one
 * lives; whoever wants to use the new one takes a lease on it, then closes the old.
 */
export interface PrefixLease {
  readonly record: MountRecord;
  /** Aborted when the mount process is gone, for whatever reason, before `close`. */
  readonly lost: AbortSignal;
  /** Whether it is gone now: `lost` follows a moment later. */
  isLost(): boolean;
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
  /** When a mount process counts as hung. */
  readonly probe?: ProbeTimes;
}

/** @throws {ObuilderError} when the prefix cannot be mounted, or serves another scoreboard. */
export async function leasePrefix(request: PrefixLeaseRequest): Promise<PrefixLease> {
  const prefix = await canonicalPrefix(request.prefix);
  const files = prefixFiles(createRunDirectory(request.stateDir), prefix);
  const change = await lockFile(files.change, 'exclusive');
  try {
    const lease = await lockFile(files.lease, 'shared');
    try {
      const canonical = { ...request, prefix };
      const record = await liveOrNewMount(canonical, files);
      return heldLease(canonical, record, files, lease);
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
  if (!(await answers(prefix, PROBE_TIMES.deadlineMs))) return false;
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
    '--map-owner', // results belong to one build user, and serve all
    '--leased',
  ];
  await startInBackground([command, ...args, ...mountArgs], files.log);
}

/**
 * Starts `obuilder-fs mount …` in a session of its own, so that a terminal's Ctrl-C is not its end, and resolves when its mounts
 * answer. Its later words go to `log`.
 */
export async function startInBackground(argv: readonly string[], log: string): Promise<number> {
  const [command = '', ...args] = withMountCapabilities(argv);
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
  const closing = new AbortController();
  let closed: Promise<void> | undefined;
  const onLost = () => lost.abort(new Error(`the mount of ${record.prefix} was lost`));
  guardMount({ request, files, onLost, closing: closing.signal }, record).catch((error: unknown) => {
    onLost();
    const why = error instanceof Error ? error.message : String(error);
    console.error(`obuilder-fs: the mount of ${record.prefix} is not replaced: ${why}`);
  });
  const close = async () => {
    closing.abort();
    const change = await lockFile(files.change, 'exclusive');
    try {
      const live = liveRecord(files);
      const isLast = lease.tryUpgrade();
      if (isLast && (live ?? record).isLeased) await endMount(request, live, files);
    } finally {
      lease.release();
      change.release();
    }
  };
  return {
    record,
    lost: lost.signal,
    isLost: () => lost.signal.aborted || !isServedBy(record, files),
    close: () => (closed ??= close()),
  };
}

interface Guard {
  readonly request: PrefixLeaseRequest;
  readonly files: PrefixFiles;
  readonly onLost: () => void;
  /** Aborted when the lease is given back. */
  readonly closing: AbortSignal;
}

/** A mount that lives shorter than this is replaced only after as long: one that dies at once must not keep the machine busy. */
const SHORT_LIFE_MS = 1_000;

/** Replaces the mount, and what replaced it, whenever it is lost. Keeps no process from ending but while it replaces. */
async function guardMount(guard: Guard, first: MountRecord): Promise<void> {
  let record: MountRecord | undefined = first;
  while (record !== undefined) {
    const since = Date.now();
    await untilLost(guard, record);
    if (guard.closing.aborted) return;
    guard.onLost();
    if (Date.now() - since < SHORT_LIFE_MS && record !== first) await delay(SHORT_LIFE_MS);
    record = await replaceMountPatiently(guard);
  }
}

async function untilLost({ request, files, closing }: Guard, record: MountRecord): Promise<void> {
  const over = new AbortController();
  // The mount process holds its lock for as long as it serves, and the kernel lets go of it when it dies.
  const ended = watchUntilUnlocked(files.serving);
  // Who is late to the lock finds it with the next mount's process.
  const isServing = () => isServedBy(record, files);
  const replaced = watchAnswers(
    record.prefix,
    request.probe ?? PROBE_TIMES,
    isServing,
    AbortSignal.any([over.signal, closing]),
  ).then(async (isFine) => {
    if (isFine) return;
    signalServing(record, files, 'SIGKILL');
    while (isServing() && !closing.aborted) await delay(20);
  });
  try {
    await Promise.race([ended, replaced]);
  } finally {
    over.abort();
  }
}

const REPLACEMENTS_MAX = 5;

/** As `replaceMount`, again where that fails: the new process may have been killed before it served. */
async function replaceMountPatiently(guard: Guard): Promise<MountRecord | undefined> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await replaceMount(guard);
    } catch (error) {
      if (attempt === REPLACEMENTS_MAX) throw error;
      await delay(SHORT_LIFE_MS);
    }
  }
}

/** The mount that serves now, a new one unless another holder has made it; undefined when the lease was given back meanwhile. */
async function replaceMount({ request, files, closing }: Guard): Promise<MountRecord | undefined> {
  const change = await lockFile(files.change, 'exclusive');
  try {
    return closing.aborted ? undefined : await liveOrNewMount(request, files);
  } finally {
    change.release();
  }
}

/** Ends the mount process, if there still is one, and takes away what is left of its mount. */
async function endMount(
  request: PrefixLeaseRequest,
  record: MountRecord | undefined,
  files: PrefixFiles,
): Promise<void> {
  if (record !== undefined) {
    signalServing(record, files, 'SIGTERM');
    const { deadlineMs } = request.probe ?? PROBE_TIMES;
    const impatience = setTimeout(() => signalServing(record, files, 'SIGKILL'), deadlineMs);
    await untilUnlocked(files.serving);
    clearTimeout(impatience);
  }
  await clearDeadMount(request.prefix, request.scoreboard, files, request.endProcesses);
}
