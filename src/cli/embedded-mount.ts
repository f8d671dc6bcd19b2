import { resolve } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { lockFile, untilUnlocked, watchUntilUnlocked, type FileLock } from '../fs/file-lock.ts';
import { startInBackground } from '../fs/mount-supervisor.ts';
import { native, type Backing } from '../fs/native.ts';
import { canonicalPrefix, checkRoot, parsePrefixRequest } from '../fs/prefix-path.ts';
import {
  createRunDirectory,
  isServedBy,
  liveRecord,
  prefixFiles,
  signalServing,
  type MountRecord,
  type PrefixFiles,
} from '../fs/run-directory.ts';
import { createScoreboard } from '../fs/scoreboard.ts';
import { mountArguments } from './commands/mount.ts';
import { hostOptions } from './host-options.ts';
import { programArgv } from './program.ts';

const PATIENCE_MS = 2000;

/** What `obuilder-fs mount` takes, with the same defaults. */
export interface MountOptions {
  /** PREFIX[=SUBDIR] each; SUBDIR (default `local`, `.` for none) is where an entry's tree is in its directory. */
  readonly prefixes: readonly string[];
  /** Root's directory of links UID -> DIRECTORY (default: `scoreboard` in the state directory, made where missing). */
  readonly scoreboard?: string;
  /** What uids without an entry see (default: what the mount covers). */
  readonly unmapped?: string;
  readonly cache?: 'auto' | 'none';
  readonly backing?: Backing;
  readonly mapOwner?: boolean;
  /** As after -o. */
  readonly mountOptions?: readonly string[];
  readonly stateDir?: string;
  /** Unmounts by force. */
  readonly signal?: AbortSignal;
}

/** Prefixes that a process of their own serves, for as long as this process lives. */
export interface Mount {
  /** As the mount table has them. */
  readonly prefixes: readonly string[];
  /** Of the mount process. */
  readonly pid: number;
  /** Resolves when the mount process is gone, by whomever. It keeps no process from ending. */
  readonly ended: Promise<void>;
  /**
   * Takes the mounts away and resolves when the mount process is gone. `force`: also while they are used; what is under way fails.
   * @throws {ObuilderError} PREFIX_IN_USE
   */
  unmount(options?: { readonly force?: boolean }): Promise<void>;
}

interface ServedPrefix {
  readonly prefix: string;
  readonly files: PrefixFiles;
}

/**
 * Mounts prefixes and sends every caller to its own tree; answers when all of them do. They are never served from this process: a process
 * that looks into its own mount would wait for itself. When this process dies, however it does, the mounts go.
 * @throws {ObuilderError} when a prefix cannot be mounted; then none is.
 */
export async function createMount(options: MountOptions): Promise<Mount> {
  checkRoot('mounting');
  const { stateDir, scoreboard } = hostOptions(options);
  if (options.scoreboard === undefined) createScoreboard(scoreboard);
  const served = await servedPrefixes(options.prefixes, stateDir);
  const leases = await leaseAll(served);
  const release = () => leases.forEach((lease) => lease.release());
  try {
    const pid = await startInBackground(commandFor(options, stateDir, scoreboard), served[0].files.log);
    const mounted = served.flatMap(mountedPrefix);
    const ended = Promise.all(served.map(({ files }) => watchUntilUnlocked(files.serving))).then(release);
    const unmount: Mount['unmount'] = async ({ force = false } = {}) => {
      await Promise.all(mounted.map((one) => endMounted(one, force)));
    };
    const unmountAtOnce = () => void unmount({ force: true }).catch(() => undefined);
    if (options.signal?.aborted === true) unmountAtOnce();
    else options.signal?.addEventListener('abort', unmountAtOnce, { once: true });
    return { prefixes: served.map(({ prefix }) => prefix), pid, ended, unmount };
  } catch (error) {
    release();
    throw error;
  }
}

async function servedPrefixes(
  given: readonly string[],
  stateDir: string,
): Promise<[ServedPrefix, ...ServedPrefix[]]> {
  const runDirectory = createRunDirectory(stateDir);
  const prefixes = await Promise.all(given.map((one) => canonicalPrefix(parsePrefixRequest(one).prefix)));
  const [first, ...others] = prefixes.map((prefix) => ({ prefix, files: prefixFiles(runDirectory, prefix) }));
  if (first !== undefined) return [first, ...others];
  throw new ObuilderError('BAD_PREFIX', 'no prefix to mount', { hint: 'give at least one' });
}

/** The mount process ends a mount when nobody holds its lease. */
async function leaseAll(served: readonly ServedPrefix[]): Promise<FileLock[]> {
  return await Promise.all(served.map(({ files }) => lockFile(files.lease, 'shared')));
}

function commandFor(options: MountOptions, stateDir: string, scoreboard: string): string[] {
  const args = mountArguments({
    prefix: [...options.prefixes],
    scoreboard,
    unmapped: options.unmapped === undefined ? undefined : resolve(options.unmapped),
    cache: options.cache ?? 'auto',
    'map-owner': options.mapOwner ?? false,
    backing: options.backing ?? 'auto',
    o: [...(options.mountOptions ?? [])],
    'state-dir': stateDir,
  });
  return [...programArgv(), ...args, '--leased'];
}

interface MountedPrefix extends ServedPrefix {
  readonly record: MountRecord;
}

/** Nothing when it has ended since it was mounted. */
function mountedPrefix(served: ServedPrefix): MountedPrefix[] {
  const record = liveRecord(served.files);
  return record === undefined ? [] : [{ ...served, record }];
}

/** Without its mounts a mount process that works ends at once. */
async function endMounted({ prefix, files, record }: MountedPrefix, force: boolean): Promise<void> {
  if (isServedBy(record, files)) takeAway(prefix, force);
  const kill = () => signalServing(record, files, 'SIGKILL');
  const hung = force ? setTimeout(kill, PATIENCE_MS) : undefined;
  await untilUnlocked(files.serving);
  clearTimeout(hung);
}

function takeAway(prefix: string, force: boolean): void {
  try {
    native().unmount(prefix, force ? 'abort' : 'idle');
  } catch (cause) {
    if (errnoCode(cause) === 'EINVAL') return; // gone meanwhile
    if (errnoCode(cause) !== 'EBUSY') throw cause;
    throw new ObuilderError('PREFIX_IN_USE', `prefix ${prefix} is in use`, {
      hint: 'end what uses it, or unmount by force',
      cause,
    });
  }
}
