import { join } from 'node:path';
import { errnoCode } from '../errors.ts';
import { OUR_FS_TYPE, readMountTable } from './mount-table.ts';
import { readStatistics } from './mount-statistics.ts';
import type { Backing, TreeCounts } from './native.ts';
import { prefixFiles, readRecords, type MountRecord } from './run-directory.ts';
import { listScoreboard, type ScoreboardEntry } from './scoreboard.ts';

/** One mounted prefix as `obuilder-fs status` shows it. */
export interface MountStatus {
  readonly prefix: string;
  /**
   * `silent`: its process lives and does not answer; `dead`: mounted, but its process is gone; `lost`: a record without a mount;
   * `unknown`: ours, but of another state directory.
   */
  readonly state: 'serving' | 'silent' | 'dead' | 'lost' | 'unknown';
  readonly pid: number | undefined;
  readonly scoreboard: string;
  readonly subdirectory: string;
  readonly unmapped: string | undefined;
  readonly cache: 'auto' | 'none' | undefined;
  readonly mapOwner: boolean;
  readonly backing: Backing | undefined;
  readonly entries: readonly EntryStatus[];
  /** Of the covered directory, or what is shown in its place. */
  readonly others: TreeCounters | undefined;
}

export type TreeCounters = Omit<TreeCounts, 'entry'>;

export interface EntryStatus {
  /** A uid, or `default`. */
  readonly uid: string;
  readonly target: string;
  /** What the uid sees at the prefix. */
  readonly tree: string;
  readonly isUsable: boolean;
  readonly problem: string | undefined;
  /** What was counted since the mount was made; undefined for a tree that nobody has used. */
  readonly counters: TreeCounters | undefined;
}

/** Every mount of ours in this mount namespace, and every record of one. Never touches a mount. */
export async function readMountStatus(stateDir: string): Promise<MountStatus[]> {
  const mounted = (await readMountTable()).filter(({ fsType }) => fsType === OUR_FS_TYPE);
  const runDirectory = join(stateDir, 'run');
  const records = readRecords(runDirectory);
  const isMounted = (prefix: string) => mounted.some(({ mountPoint }) => mountPoint === prefix);
  const recorded = await Promise.all(
    records.map(async ({ record, isLive }): Promise<MountStatus> => {
      if (!isLive) {
        const state = isMounted(record.prefix) ? 'dead' : 'lost';
        return { ...statusOf(record, []), state, pid: undefined };
      }
      const counts = await readStatistics(prefixFiles(runDirectory, record.prefix).statistics);
      const state = counts === undefined ? 'silent' : 'serving';
      return { ...statusOf(record, counts ?? []), state, pid: record.pid };
    }),
  );
  const others = mounted
    .filter(({ mountPoint }) => !records.some(({ record }) => record.prefix === mountPoint))
    .map(({ mountPoint, source }): MountStatus => unknownMount(mountPoint, source));
  return [...recorded, ...others];
}

function statusOf(record: MountRecord, counts: readonly TreeCounts[]): Omit<MountStatus, 'state' | 'pid'> {
  return {
    prefix: record.prefix,
    scoreboard: record.scoreboard,
    subdirectory: record.subdirectory || '.',
    unmapped: record.unmapped === '' ? undefined : record.unmapped,
    cache: record.cache,
    mapOwner: record.mapOwner,
    backing: record.backing,
    entries: readEntries(record, counts),
    others: countersOf(counts, ''),
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
    backing: undefined,
    entries: [],
    others: undefined,
  };
}

// A scoreboard that is gone or unsafe makes every entry unusable; the mount answers EACCES by itself then.
function readEntries(
  { scoreboard, subdirectory, prefix }: MountRecord,
  counts: readonly TreeCounts[],
): EntryStatus[] {
  try {
    return listScoreboard(scoreboard, subdirectory, prefix).map((entry) => ({
      ...entryStatus(entry, subdirectory),
      counters: countersOf(counts, entry.name),
    }));
  } catch (error) {
    if (errnoCode(error)?.startsWith('SCOREBOARD_') === true) return [];
    throw error;
  }
}

function countersOf(counts: readonly TreeCounts[], name: string): TreeCounters | undefined {
  const found = counts.find(({ entry }) => entry === name);
  if (found === undefined) return undefined;
  const { generation, operations, errors, openFiles, cachedNodes } = found;
  return { generation, operations, errors, openFiles, cachedNodes };
}

function entryStatus(
  { name, target, problem }: ScoreboardEntry,
  subdirectory: string,
): Omit<EntryStatus, 'counters'> {
  const tree = target === '' ? '' : join(target, subdirectory);
  return { uid: name, target, tree, isUsable: problem === undefined, problem };
}
