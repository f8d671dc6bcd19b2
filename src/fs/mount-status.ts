import { join } from 'node:path';
import { errnoCode } from '../errors.ts';
import { OUR_FS_TYPE, readMountTable } from './mount-table.ts';
import { readRecords, type MountRecord } from './run-directory.ts';
import { listScoreboard, type ScoreboardEntry } from './scoreboard.ts';

/** One mounted prefix as `obuilder-fs status` shows it. */
export interface MountStatus {
  readonly prefix: string;
  /** `dead`: mounted, but its process is gone; `lost`: a record without a mount; `unknown`: ours, but of another state directory. */
  readonly state: 'serving' | 'dead' | 'lost' | 'unknown';
  readonly pid: number | undefined;
  readonly scoreboard: string;
  readonly subdirectory: string;
  readonly unmapped: string | undefined;
  readonly cache: 'auto' | 'none' | undefined;
  readonly mapOwner: boolean;
  readonly entries: readonly EntryStatus[];
}

export interface EntryStatus {
  /** A uid, or `default`. */
  readonly uid: string;
  readonly target: string;
  /** What the uid sees at the prefix. */
  readonly tree: string;
  readonly isUsable: boolean;
  readonly problem: string | undefined;
}

/** Every mount of ours in this mount namespace, and every record of one. Never touches a mount. */
export async function readMountStatus(stateDir: string): Promise<MountStatus[]> {
  const mounted = (await readMountTable()).filter(({ fsType }) => fsType === OUR_FS_TYPE);
  const records = readRecords(join(stateDir, 'run'));
  const isMounted = (prefix: string) => mounted.some(({ mountPoint }) => mountPoint === prefix);
  const recorded = records.map(({ record, isLive }): MountStatus => {
    const state = isLive ? 'serving' : isMounted(record.prefix) ? 'dead' : 'lost';
    return { ...statusOf(record), state, pid: isLive ? record.pid : undefined };
  });
  const others = mounted
    .filter(({ mountPoint }) => !records.some(({ record }) => record.prefix === mountPoint))
    .map(({ mountPoint, source }): MountStatus => unknownMount(mountPoint, source));
  return [...recorded, ...others];
}

function statusOf(record: MountRecord): Omit<MountStatus, 'state' | 'pid'> {
  return {
    prefix: record.prefix,
    scoreboard: record.scoreboard,
    subdirectory: record.subdirectory || '.',
    unmapped: record.unmapped === '' ? undefined : record.unmapped,
    cache: record.cache,
    mapOwner: record.mapOwner,
    entries: readEntries(record.scoreboard, record.subdirectory),
  };
}

function unknownMount(prefix: string, scoreboard: string): MountStatus {
  return {
    prefix,
    state: 'unknown',
    pid: undefined,
    scoreboard,
    subdirectory: '?',
    unmapped: undefined,
    cache: undefined,
    mapOwner: false,
    entries: [],
  };
}

// A scoreboard that is gone or unsafe makes every entry unusable; the mount answers EACCES by itself then.
function readEntries(scoreboard: string, subdirectory: string): EntryStatus[] {
  try {
    return listScoreboard(scoreboard, subdirectory).map((entry) => entryStatus(entry, subdirectory));
  } catch (error) {
    if (errnoCode(error)?.startsWith('SCOREBOARD_') === true) return [];
    throw error;
  }
}

function entryStatus({ name, target, problem }: ScoreboardEntry, subdirectory: string): EntryStatus {
  const tree = target === '' ? '' : join(target, subdirectory);
  return { uid: name, target, tree, isUsable: problem === undefined, problem };
}
