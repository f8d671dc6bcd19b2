import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { ObuilderError } from '../../src/errors.ts';
import { describeMissing, verdictTable } from './fs/report.ts';
import { Samples, type Sample } from './fs/summary.ts';
import type { Verdict } from './fs/targets.ts';
import { rotated } from './statistics.ts';
import { prepareCachedBuild } from './store/cached-build.ts';
import type { ContenderHost, StepContender } from './store/contender.ts';
import { mountLoopDisk, type DiskKind } from './store/loop-disk.ts';
import { openOldFlow } from './store/old-flow.ts';
import { openStore } from './store/our-stores.ts';
import { CACHED, judgeStore, OLD_FLOW } from './store/targets.ts';
import { TREE_SIZES, type TreeSizeName } from './store/tree.ts';
import {
  checkHost,
  checkRuns,
  describeMachine,
  outDirectory,
  withSurroundings,
  type Surroundings,
} from './surroundings.ts';
import { formatFactor, formatNs, textTable } from './table.ts';

/** Fewer prove nothing; a small benchmark is for those who only want to see. */
const RUNS_MIN = 7;
const RUNS_SMALL = 3;
const STEPS = 20;

interface StoreArguments {
  runs: number | undefined;
  size: TreeSizeName;
  sync: boolean;
  out: string | undefined;
}

export const storeCommand: CommandModule<object, StoreArguments> = {
  command: 'store',
  describe: "Measure a step's result in our stores against what OBuilder v0.5 did around a step on macOS",
  builder: (yargs) =>
    yargs
      .option('runs', {
        type: 'number',
        describe: `How often everything is measured (default ${RUNS_MIN}, or ${RUNS_SMALL} for a smaller size)`,
      })
      .option('size', {
        choices: Object.keys(TREE_SIZES) as TreeSizeName[],
        default: 'full' as const,
        describe: 'How large the tree is',
      })
      .option('sync', {
        type: 'boolean',
        default: true,
        describe: 'Our stores wait for the disk, as they do by default; the old flow never does',
      })
      .option('out', { type: 'string', describe: 'Directory for store.json (default: a new one)' }),
  handler: async (argv) => {
    checkHost('store');
    const runs = checkRuns(argv.runs ?? (argv.size === 'full' ? RUNS_MIN : RUNS_SMALL), RUNS_MIN);
    await withSurroundings(async (surroundings) => {
      const measured = await measure({ ...argv, runs }, surroundings);
      surroundings.progress.clear();
      publish({ ...argv, runs }, measured);
    });
  },
};

type Chosen = StoreArguments & { readonly runs: number };

interface Measured {
  readonly samples: readonly Sample[];
  readonly disk: ReadonlyMap<string, number>;
  readonly missing: ReadonlyMap<string, string>;
}

/** In each run every contender makes one step, right after each other. */
async function measure(chosen: Chosen, surroundings: Surroundings): Promise<Measured> {
  const { scratch, progress, signal } = surroundings;
  const { contenders, missing } = await openContenders(chosen, surroundings);
  const samples: Sample[] = [];
  const disk = new Map<string, number>();
  try {
    const cached = await prepareCachedBuild(scratch.path('cached'), STEPS, signal);
    for (let run = -1; run < chosen.runs; run++) {
      progress.show(run < 0 ? 'warming up' : `run ${run + 1} of ${chosen.runs}`);
      const taken = await measureRun(contenders, run + 1);
      const nsPerOperation = await nsOf(() => cached.build());
      if (run >= 0)
        samples.push(...[...taken, { ...CACHED, nsPerOperation }].map((one) => ({ run, ...one })));
    }
    for (const contender of contenders) {
      progress.show(`${STEPS} steps of ${contender.name}`);
      const trees = await contender.diskAfter?.(STEPS);
      if (trees !== undefined) disk.set(contender.name, trees);
    }
  } finally {
    for (const contender of contenders) contender.close();
  }
  return { samples, disk, missing };
}

async function measureRun(
  contenders: readonly StepContender[],
  turn: number,
): Promise<Omit<Sample, 'run'>[]> {
  const taken = [];
  for (const contender of rotated(contenders, turn)) {
    const nsPerOperation = await nsOf(() => contender.step(turn));
    await contender.undo(turn);
    taken.push({ figure: 'step', contender: contender.name, nsPerOperation });
  }
  return taken;
}

async function nsOf(action: () => Promise<void>): Promise<number> {
  const begun = performance.now();
  await action();
  return (performance.now() - begun) * 1e6;
}

interface Entrant {
  readonly name: string;
  readonly diskKind: DiskKind;
  readonly open: (host: ContenderHost) => Promise<StepContender>;
}

const ENTRANTS: readonly Entrant[] = [
  { name: OLD_FLOW, diskKind: 'ext4', open: openOldFlow },
  { name: 'rsync', diskKind: 'ext4', open: (host) => openStore('rsync', host) },
  { name: 'clone', diskKind: 'xfs', open: (host) => openStore('clone', host) },
  { name: 'btrfs', diskKind: 'btrfs', open: (host) => openStore('btrfs', host) },
];

/** One whose file system or program is not to be had here is missing, and says why. */
async function openContenders(
  { size: sizeName, sync }: Chosen,
  { scratch, progress, signal }: Surroundings,
): Promise<{ contenders: StepContender[]; missing: Map<string, string> }> {
  const size = TREE_SIZES[sizeName];
  const disks = new Map<DiskKind, string>();
  const contenders: StepContender[] = [];
  const missing = new Map<string, string>();
  for (const { name, diskKind, open } of ENTRANTS) {
    progress.show(`making the tree for ${name}`);
    try {
      const disk = disks.get(diskKind) ?? (await mountLoopDisk(scratch, diskKind, diskMebibytes(size)));
      disks.set(diskKind, disk);
      contenders.push(await open({ disk, size, sync, signal }));
    } catch (error) {
      if (!(error instanceof ObuilderError)) throw error;
      missing.set(name, error.message);
    }
  }
  return { contenders, missing };
}

/** The old flow has its base, its copy and its home there, and the rsync store two trees more. */
function diskMebibytes({ mebibytes }: { readonly mebibytes: number }): number {
  return 8 * mebibytes + 1024;
}

function publish({ runs, size, sync, out }: Chosen, { samples: all, disk, missing }: Measured): void {
  const machine = describeMachine();
  const samples = new Samples(all);
  const verdicts = judgeStore({ samples, disk });
  const json = {
    ...{ machine, size, tree: TREE_SIZES[size], runs, sync, steps: STEPS, samples: all },
    ...{ disk: Object.fromEntries(disk), missing: Object.fromEntries(missing), verdicts },
  };
  const file = join(outDirectory(out), 'store.json');
  writeFileSync(file, `${JSON.stringify(json, undefined, 1)}\n`);
  const { files, mebibytes } = TREE_SIZES[size];
  console.log(
    `${size} size, ${files} files, ${mebibytes} MiB, ${runs} runs, ${sync ? 'sync' : 'no sync'}; ${machine}\n`,
  );
  console.log(describeReport({ samples, disk, missing, verdicts }));
  console.log(`\n${file}`);
  if (size !== 'full')
    console.log('The targets are for the full size: what a step costs besides its copy weighs more here.');
  if (runs < RUNS_MIN) console.log(`Fewer than ${RUNS_MIN} runs: a figure may be chance.`);
}

interface Report {
  readonly samples: Samples;
  readonly disk: ReadonlyMap<string, number>;
  readonly missing: ReadonlyMap<string, string>;
  readonly verdicts: readonly Verdict[];
}

function describeReport({ samples, disk, missing, verdicts }: Report): string {
  return [
    stepTable(samples, disk),
    cachedLine(samples),
    describeMissing(missing),
    `Targets\n${verdictTable(verdicts)}`,
  ]
    .filter((part) => part !== '')
    .join('\n');
}

function stepTable(samples: Samples, disk: ReadonlyMap<string, number>): string {
  const rows = ENTRANTS.flatMap(({ name }) => {
    const summary = samples.summary('step', name);
    if (summary === undefined) return [];
    const { median, lower, upper } = summary.nsPerOperation;
    const faster = samples.ratio('step', OLD_FLOW, name);
    const trees = disk.get(name);
    const cells = [
      name,
      formatNs(median),
      `${formatNs(lower)} … ${formatNs(upper)}`,
      faster === undefined ? '—' : formatFactor(faster),
      trees === undefined ? '—' : `${trees.toFixed(2)} trees`,
    ];
    return [cells];
  });
  const header = ['step', 'median', 'quartiles', `× ${OLD_FLOW}`, `disk after ${STEPS} steps`];
  return `${textTable(header, rows)}\n`;
}

function cachedLine(samples: Samples): string {
  const summary = samples.summary(CACHED.figure, CACHED.contender);
  if (summary === undefined) return '';
  return `cached build of ${STEPS} steps: ${formatNs(summary.nsPerOperation.median)}\n`;
}
