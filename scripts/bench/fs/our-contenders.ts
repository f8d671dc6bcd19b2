import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { ObuilderError } from '../../../src/errors.ts';
import { readStatistics } from '../../../src/fs/mount-statistics.ts';
import {
  createRunDirectory,
  liveRecord,
  prefixFiles,
  type PrefixFiles,
} from '../../../src/fs/run-directory.ts';
import { treeDoor } from '../../../src/fs/tree-door.ts';
import { unmountNow } from '../scratch.ts';
import { CALLERS, type CallerNumber } from './data-set.ts';
import { hasIoUring, setIoUring } from './io-uring.ts';
import type { Contender } from './contender.ts';
import { asCaller } from './plain-contenders.ts';

const mainProgram = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));

interface Serving {
  readonly name: string;
  readonly description: string;
  readonly entered: 'tree' | 'shared';
  readonly cache: 'auto' | 'none';
  readonly backing: 'handles' | 'paths';
  /** Whether requests come by io_uring where the kernel has that, rather than by the device. */
  readonly byIoUring: boolean;
}

const WAYS = [
  { name: 'tree', description: 'the tree root of a step', entered: 'tree', cache: 'auto' },
  { name: 'shared', description: 'the prefix that tells callers apart', entered: 'shared', cache: 'auto' },
  { name: 'none', description: 'the tree root, names not cached', entered: 'tree', cache: 'none' },
  { name: 'none-shared', description: 'the prefix, names not cached', entered: 'shared', cache: 'none' },
] as const;

const MEANS = [
  { suffix: '', description: '', backing: 'handles', byIoUring: false },
  { suffix: '-paths', description: ', on paths', backing: 'paths', byIoUring: false },
  { suffix: '-uring', description: ', by io_uring', backing: 'handles', byIoUring: true },
] as const;

/** Ours in every way that it can be met, by several means: the plain names are those on file handles, as they are met unless root has enabled io_uring. */
export const ourContenders: readonly Contender[] = MEANS.flatMap(({ suffix, description, ...means }) =>
  WAYS.map((way) =>
    ours({
      ...way,
      ...means,
      name: way.name + suffix,
      description: `ours: ${way.description}${description}`,
    }),
  ),
);

function ours(serving: Serving): Contender {
  return {
    name: serving.name,
    kind: 'ours',
    description: serving.description,
    async open({ scratch }) {
      if (serving.byIoUring && !hasIoUring())
        throw new ObuilderError('CONTENDER_MISSING', 'this kernel has no FUSE over io_uring');
      const [prefix, scoreboard, stateDir] = ['mounts', 'scoreboards', 'state'].map((kind) =>
        scratch.make(`${kind}/${serving.name}`),
      ) as [string, string, string];
      pointCallers(scoreboard, scratch.path('data'));
      const ioUring = setIoUring(serving.byIoUring);
      const { pid, ended } = await mount(serving, { prefix, scoreboard, stateDir }).finally(() =>
        ioUring.setBack(),
      );
      const files = prefixFiles(createRunDirectory(stateDir), prefix);
      return {
        root: () => prefix,
        command: (caller, argv) =>
          serving.entered === 'shared' ? asCaller(caller, argv) : throughTreeRoot(files, caller, argv),
        pid,
        countTrips: () => countTrips(files.statistics),
        async close() {
          unmountNow(prefix);
          await ended;
        },
      };
    },
  };
}

function pointCallers(scoreboard: string, data: string): void {
  CALLERS.forEach((uid, caller) => {
    try {
      symlinkSync(join(data, String(caller)), join(scoreboard, String(uid)));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error; // pointed by an earlier run
    }
  });
}

interface MountPlaces {
  readonly prefix: string;
  readonly scoreboard: string;
  readonly stateDir: string;
}

/** Serves until it is unmounted. */
async function mount(
  { cache, backing }: Serving,
  { prefix, scoreboard, stateDir }: MountPlaces,
): Promise<{ pid: number; ended: Promise<unknown> }> {
  const options = [
    `--scoreboard=${scoreboard}`,
    `--state-dir=${stateDir}`,
    `--cache=${cache}`,
    `--backing=${backing}`,
  ];
  const child = spawn(process.execPath, [mainProgram, 'mount', prefix, ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true, // Ctrl-C is for the benchmark, which unmounts
  });
  const ended = once(child, 'exit');
  const lastWords = text(child.stderr);
  const isServing = await Promise.race([
    once(child.stdout, 'data').then(() => true),
    ended.then(() => false),
  ]);
  if (isServing && child.pid !== undefined) return { pid: child.pid, ended };
  const [reason = ''] = (await lastWords).trim().split('\n');
  const how = `the mount process ended with ${child.exitCode ?? child.signalCode ?? 'no status'}`;
  throw new ObuilderError('CONTENDER_MISSING', reason || how, { hint: 'run npm run build' });
}

/** As `obuilder-fs exec` does it, without a Node process that would still be ending while its command is measured. */
function throughTreeRoot(files: PrefixFiles, caller: CallerNumber, argv: readonly string[]): string[] {
  const record = liveRecord(files);
  if (record === undefined) {
    throw new ObuilderError('MOUNT_LOST', 'the mount process has ended', { hint: 'see what it logged' });
  }
  const door = treeDoor(record, CALLERS[caller], CALLERS[caller]);
  const bindAndRun = 'mount --bind -- "$1" "$2" && shift 2 && exec "$@"';
  return [
    ...['unshare', '--mount', '--propagation', 'private', '--', '/bin/sh', '-c', bindAndRun, 'enter'],
    ...[door, record.prefix],
    ...asCaller(caller, argv),
  ];
}

async function countTrips(socket: string): Promise<number> {
  const counts = await readStatistics(socket);
  if (counts === undefined) {
    throw new ObuilderError('MOUNT_SILENT', 'the mount process does not tell its statistics', {
      hint: 'see whether it lives: it is a child of this benchmark',
    });
  }
  return counts.reduce((sum, { operations }) => sum + operations, 0);
}
