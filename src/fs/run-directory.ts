import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { tryLockFile } from './file-lock.ts';
import type { Backing } from './native.ts';

/**
 * What a mount process tells about one prefix that it serves. The record stands for a live mount exactly while the process
 * holds the `serving` lock beside it; a record without the lock is what a killed process left.
 */
export interface MountRecord {
  readonly prefix: string;
  readonly pid: number;
  readonly scoreboard: string;
  /** Of an entry's directory; '' for the directory itself. */
  readonly subdirectory: string;
  /** Directory shown to callers without an entry; '' for the covered one. */
  readonly unmapped: string;
  readonly cache: 'auto' | 'none';
  readonly mapOwner: boolean;
  readonly backing: Backing;
  /** Name of the hidden directory below the prefix in which root finds the trees' own roots. */
  readonly doorsName: string;
  /** Whether the mount ends by itself when no build holds a lease on it. */
  readonly isLeased: boolean;
  readonly startedAt: string;
}

/** The files of one prefix in the run directory (root's, 0700). */
export interface PrefixFiles {
  readonly record: string;
  /** Held exclusively by the mount process for as long as it serves. */
  readonly serving: string;
  /** Held shared by every build that uses the mount. */
  readonly lease: string;
  /** Held while a mount is made, cleared or given back. */
  readonly change: string;
  readonly log: string;
  /** Where the mount process tells its statistics. Short: the path of a socket must be. */
  readonly statistics: string;
}

/** @throws {ObuilderError} STATE_DIR_UNUSABLE */
export function createRunDirectory(stateDir: string): string {
  const directory = join(stateDir, 'run');
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o755 });
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new ObuilderError(
      'STATE_DIR_UNUSABLE',
      `state directory ${stateDir} cannot be made: ${errnoCode(cause) ?? 'unknown error'}`,
      { hint: 'name a directory that root can write, with --state-dir', cause },
    );
  }
  return directory;
}

export function prefixFiles(runDirectory: string, prefix: string): PrefixFiles {
  const digest = createHash('sha256').update(prefix).digest('hex').slice(0, 12);
  const base = join(runDirectory, `${prefix.replaceAll('/', '-').slice(1, 60)}-${digest}`);
  return {
    record: `${base}.json`,
    serving: `${base}.serving`,
    lease: `${base}.lease`,
    change: `${base}.change`,
    log: `${base}.log`,
    statistics: join(runDirectory, `${digest}.sock`),
  };
}

export function writeRecord(files: PrefixFiles, record: MountRecord): void {
  const fresh = `${files.record}.${process.pid}.new`;
  writeFileSync(fresh, `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(fresh, files.record);
}

export function removeRecord(files: PrefixFiles): void {
  rmSync(files.record, { force: true });
}

/** The record of the mount that serves a prefix now; undefined when none does. */
export function liveRecord(files: PrefixFiles): MountRecord | undefined {
  const record = readRecord(files.record);
  if (record === undefined) return undefined;
  const unheld = tryLockFile(files.serving, 'shared');
  if (unheld === undefined) return record;
  unheld.release();
  return undefined;
}

/** Whether the mount of this record is served still, and by its own process. */
export function isServedBy(record: MountRecord, files: PrefixFiles): boolean {
  return liveRecord(files)?.doorsName === record.doorsName;
}

/** Tells the mount process of a record; one that is gone hears nothing. Its lock is held, so the pid is still that process. */
export function signalServing(record: MountRecord, files: PrefixFiles, signal: NodeJS.Signals): void {
  if (isServedBy(record, files)) process.kill(record.pid, signal);
}

/** Every record of the run directory, live or left behind; none where there is no run directory yet. */
export function readRecords(runDirectory: string): { record: MountRecord; isLive: boolean }[] {
  let names: string[];
  try {
    names = readdirSync(runDirectory);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return [];
    throw error;
  }
  const records: { record: MountRecord; isLive: boolean }[] = [];
  for (const name of names.filter((file) => file.endsWith('.json')).sort()) {
    const record = readRecord(join(runDirectory, name));
    if (record === undefined) continue;
    const isLive = liveRecord(prefixFiles(runDirectory, record.prefix)) !== undefined;
    records.push({ record, isLive });
  }
  return records;
}

// Records are replaced by rename: one that does not parse is not ours.
function readRecord(path: string): MountRecord | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as MountRecord;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}
