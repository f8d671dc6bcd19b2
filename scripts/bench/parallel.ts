import type { CommandModule } from 'yargs';
import type * as Library from '../../src/index.ts';
import { ObuilderError } from '../../src/errors.ts';
import { createLinuxBuildUsers } from '../../src/sandbox/build-users-linux.ts';
import { Progress } from './progress.ts';
import { createScratch, type Scratch } from './scratch.ts';
import { medianOf, rotated, spreadOf, type Spread } from './statistics.ts';
import { formatFactor, textTable } from './table.ts';

/** Of the benchmark's own: their accounts are made and removed. */
const firstUid = 7778;
const usersMax = 2;
const SPEEDUP_MIN = 1.8;

interface ParallelArguments {
  runs: number;
  builds: number;
  json: boolean;
}

export const parallelCommand: CommandModule<object, ParallelArguments> = {
  command: 'parallel',
  describe: 'Measure how much sooner two build users than one finish builds that wait more than they compute',
  builder: (yargs) =>
    yargs
      .option('runs', { type: 'number', default: 3, describe: 'How often everything is measured' })
      .option('builds', { type: 'number', default: 8, describe: 'Builds that are started at once' })
      .option('json', { type: 'boolean', default: false, describe: 'Print JSON, for scripts' }),
  handler: async (argv) => {
    if (process.getuid?.() !== 0 || process.platform !== 'linux') {
      throw new ObuilderError('NOT_ROOT', 'building takes root, on Linux', { hint: 'run it with sudo' });
    }
    const report = await measure(argv);
    console.log(argv.json ? JSON.stringify(report, undefined, 2) : describeReport(report));
  },
};

interface Report {
  readonly builds: number;
  readonly seconds: readonly { readonly users: number; readonly spread: Spread }[];
  readonly speedup: number;
  readonly speedupMin: number;
}

/** As dependencies that are downloaded and locks that are waited for, with a little to compute. */
const WORK = 'sleep 1; for i in $(seq 2000); do :; done; echo done > ~/made';

async function measure({ runs, builds }: ParallelArguments): Promise<Report> {
  const scratch = createScratch();
  const progress = new Progress();
  const seconds = new Map<number, number[]>([
    [1, []],
    [usersMax, []],
  ]);
  try {
    for (const directory of ['prefix', 'context', 'state/images/base/local']) scratch.make(directory);
    await buildAll(scratch, usersMax, 'warm-up', usersMax); // makes the accounts and the base
    for (let run = 0; run < runs; run++) {
      for (const users of rotated([1, usersMax], run)) {
        progress.show(`run ${run + 1} of ${runs}: ${builds} builds by ${users}`);
        seconds.get(users)?.push(await buildAll(scratch, users, `${run}-${users}`, builds));
      }
    }
  } finally {
    progress.clear();
    await removeUsers(scratch);
    scratch.sweep();
  }
  const [one = [], two = []] = [seconds.get(1), seconds.get(usersMax)];
  return {
    builds,
    seconds: [...seconds].map(([users, all]) => ({ users, spread: spreadOf(all) })),
    speedup: medianOf(one) / medianOf(two),
    speedupMin: SPEEDUP_MIN,
  };
}

/** Seconds from the first build's start to the last one's end; the mount and the users are there before. */
async function buildAll(scratch: Scratch, users: number, label: string, builds: number): Promise<number> {
  const packageName = 'obuilder-fs'; // as another package has it: it starts its mounts from dist
  const { createBuilder } = (await import(packageName)) as typeof Library;
  const builder = await createBuilder({
    stateDir: scratch.path('state'),
    prefix: scratch.path('prefix'),
    homePath: scratch.path('home'),
    uid: firstUid,
    builders: users,
  });
  try {
    await buildOne(builder, scratch, `((from base) (env LABEL ${label}) (run (shell true)))`);
    const begun = performance.now();
    await Promise.all(
      Array.from({ length: builds }, (_, i) =>
        buildOne(
          builder,
          scratch,
          `((from base) (env LABEL ${label}-${i}) (run (shell ${JSON.stringify(WORK)})))`,
        ),
      ),
    );
    return (performance.now() - begun) / 1000;
  } finally {
    await builder.close();
  }
}

async function buildOne(builder: Library.EmbeddedBuilder, scratch: Scratch, spec: string): Promise<void> {
  const result = await builder.build(spec, { context: scratch.path('context') }).result;
  if (result.status === 'saved') return;
  throw new ObuilderError('BUILD_FAILED', `a build did not end well: ${JSON.stringify(result)}`);
}

async function removeUsers(scratch: Scratch): Promise<void> {
  const users = createLinuxBuildUsers({ homePath: scratch.path('home') });
  for (let i = 0; i < usersMax; i++) await users.remove(firstUid + i);
}

function describeReport({ builds, seconds, speedup, speedupMin }: Report): string {
  const rows = seconds.map(({ users, spread }) => [
    `${builds} builds by ${users} build user${users === 1 ? '' : 's'}`,
    ...[spread.median, spread.lower, spread.upper].map((one) => one.toFixed(2)),
  ]);
  const verdict = speedup >= speedupMin ? 'reached' : 'missed';
  return [
    textTable(['seconds', 'median', 'quartile', 'quartile'], rows),
    `two are ${formatFactor(speedup)} × as fast as one; target ${speedupMin} ×: ${verdict}`,
  ].join('\n');
}
