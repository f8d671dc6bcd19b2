import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CommandModule } from 'yargs';
import { ObuilderError } from '../../src/errors.ts';
import { runCommand } from '../../src/os/exec.ts';
import { barChart } from './chart.ts';
import type { Contender } from './fs/contender.ts';
import { makeDataSet, makeGrowingTrees } from './fs/data-set.ts';
import { measure, type Measured } from './fs/measure.ts';
import { ourContenders } from './fs/our-contenders.ts';
import { peerContenders } from './fs/peers.ts';
import { bind, native } from './fs/plain-contenders.ts';
import { chartGroups, describeReport, type Report } from './fs/report.ts';
import { Samples } from './fs/summary.ts';
import { judge, targets } from './fs/targets.ts';
import { workloads, type Workload } from './fs/workloads.ts';
import type { Scratch } from './scratch.ts';
import { medianOf } from './statistics.ts';
import {
  checkHost,
  checkRuns,
  describeMachine,
  outDirectory,
  withSurroundings,
  type Surroundings,
} from './surroundings.ts';

/** Fewer prove nothing; a small benchmark is for those who only want to see. */
const RUNS_MIN = 7;
const RUNS_SMALL = 3;
const contenders: readonly Contender[] = [native, bind, ...ourContenders, ...peerContenders];

interface FsArguments {
  runs: number | undefined;
  only: string | undefined;
  mounts: string | undefined;
  size: 'small' | 'full';
  out: string | undefined;
}

export const fsCommand: CommandModule<object, FsArguments> = {
  command: 'fs',
  describe: 'Measure the file system against native directories and other FUSE file systems',
  builder: (yargs) =>
    yargs
      .option('runs', {
        type: 'number',
        describe: `How often everything is measured (default ${RUNS_MIN}, or ${RUNS_SMALL} for the small size)`,
      })
      .option('only', {
        type: 'string',
        describe: `Workloads: ${workloads.map(({ name }) => name).join(', ')}`,
      })
      .option('mounts', {
        type: 'string',
        describe: `Contenders: ${contenders.map(({ name }) => name).join(', ')}`,
      })
      .option('size', {
        choices: ['small', 'full'] as const,
        default: 'full' as const,
        describe: 'How much work',
      })
      .option('out', { type: 'string', describe: 'Directory for fs.json and fs.svg (default: a new one)' }),
  handler: async (argv) => {
    checkHost('fs');
    const chosen = choose(argv);
    await withSurroundings(async (surroundings) => {
      const measured = await run(chosen, surroundings);
      surroundings.progress.clear();
      publish(chosen, reportOf(chosen, measured), { measured, out: outDirectory(argv.out) });
    });
  },
};

interface Chosen {
  readonly runs: number;
  readonly sizeName: 'small' | 'full';
  readonly contenders: readonly Contender[];
  readonly workloads: readonly Workload[];
}

function choose(argv: FsArguments): Chosen {
  return {
    runs: checkRuns(argv.runs ?? (argv.size === 'small' ? RUNS_SMALL : RUNS_MIN), RUNS_MIN),
    sizeName: argv.size,
    contenders: named(contenders, argv.mounts, '--mounts'),
    workloads: named(workloads, argv.only, '--only'),
  };
}

function named<Item extends { readonly name: string }>(
  items: readonly Item[],
  list: string | undefined,
  option: string,
): readonly Item[] {
  if (list === undefined) return items;
  const names = list.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !items.some((item) => item.name === name));
  if (unknown === undefined) return items.filter(({ name }) => names.includes(name));
  throw new ObuilderError('BAD_USAGE', `${option}: there is no ${unknown}`, {
    hint: `choose from ${items.map(({ name }) => name).join(', ')}`,
  });
}

async function run(chosen: Chosen, { scratch, progress, signal }: Surroundings): Promise<Measured> {
  progress.show('making the data');
  const data = await makeDataSet(scratch, await compileClient(scratch), chosen.sizeName);
  if (chosen.workloads.some(({ name }) => name === 'grow')) await makeGrowingTrees(data);
  return measure({ ...chosen, data, signal, progress });
}

async function compileClient(scratch: Scratch): Promise<string> {
  const client = join(scratch.make('bin'), 'client');
  const source = fileURLToPath(new URL('fs/client.cc', import.meta.url));
  await runCommand(['g++', '-std=c++20', '-O2', source, '-o', client]);
  return client;
}

function reportOf(chosen: Chosen, { samples: all, missing, growthMiB }: Measured): Report {
  const samples = new Samples(all);
  const growth = growthMiB.length === 0 ? undefined : { memoryMiB: medianOf(growthMiB) };
  return { ...chosen, samples, missing, verdicts: targets.map((target) => judge(target, samples, growth)) };
}

function publish(
  { runs, sizeName }: Chosen,
  report: Report,
  { measured, out }: { measured: Measured; out: string },
): void {
  const machine = describeMachine();
  const title = `${sizeName} size, ${runs} runs; ${machine}`;
  const { samples, growthMiB } = measured;
  const missing = Object.fromEntries(report.missing);
  const json = { machine, size: sizeName, runs, samples, growthMiB, missing, verdicts: report.verdicts };
  const [jsonFile, chartFile] = [join(out, 'fs.json'), join(out, 'fs.svg')];
  writeFileSync(jsonFile, `${JSON.stringify(json, undefined, 1)}\n`);
  writeFileSync(chartFile, barChart(`File system: ${title}`, chartGroups(report)));
  console.log(`${title}\n\n${describeReport(report)}\n\n${jsonFile}\n${chartFile}`);
  if (runs < RUNS_MIN) console.log(`Fewer than ${RUNS_MIN} runs: a figure may be chance.`);
}
