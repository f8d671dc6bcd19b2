import { readFileSync } from 'node:fs';
import { errnoCode, ObuilderError } from '../../../src/errors.ts';
import type { Progress } from '../progress.ts';
import { rotated } from '../statistics.ts';
import { runClients } from './client.ts';
import type { Contender, OpenContender } from './contender.ts';
import type { DataSet } from './data-set.ts';
import type { Sample } from './summary.ts';
import { callersOf, takesPart, type Workload } from './workloads.ts';

export interface Plan {
  readonly data: DataSet;
  readonly contenders: readonly Contender[];
  readonly workloads: readonly Workload[];
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly progress: Progress;
}

export interface Measured {
  readonly samples: Sample[];
  /** Contenders, or single workloads of theirs, that could not be measured, with the reason. */
  readonly missing: Map<string, string>;
  /** How much the tree's mount process had grown at the end of the largest walk, in each run. */
  readonly growthMiB: number[];
}

/**
 * Each run mounts every contender anew, then gives each workload to all of them, beginning with another one each time. So what
 * is compared was measured within seconds.
 */
export async function measure(plan: Plan): Promise<Measured> {
  const measured: Measured = { samples: [], missing: new Map(), growthMiB: [] };
  for (let run = 0; run < plan.runs; run++) {
    const opened = await openAll(plan, run, measured.missing);
    try {
      for (const [number, workload] of plan.workloads.entries()) {
        for (const [contender, open] of rotated([...opened], run + number)) {
          if (!takesPart(workload, contender.name)) continue;
          plan.signal.throwIfAborted();
          plan.progress.show(`run ${run + 1} of ${plan.runs}: ${workload.name}, ${contender.name}`);
          await measureOne(plan, { run, workload, contender, open }, measured);
        }
      }
    } finally {
      await Promise.all([...opened.values()].map((open) => open.close()));
    }
  }
  return measured;
}

async function openAll(
  { contenders, data, workloads, signal, progress }: Plan,
  run: number,
  missing: Map<string, string>,
): Promise<Map<Contender, OpenContender>> {
  const opened = new Map<Contender, OpenContender>();
  for (const contender of rotated(contenders, run)) {
    if (missing.has(contender.name) || !workloads.some((one) => takesPart(one, contender.name))) continue;
    signal.throwIfAborted();
    progress.show(`run ${run + 1}: mounting ${contender.name}`);
    try {
      opened.set(contender, await contender.open(data));
    } catch (error) {
      if (!(error instanceof ObuilderError)) throw error;
      missing.set(contender.name, error.message);
    }
  }
  return opened;
}

interface Turn {
  readonly run: number;
  readonly workload: Workload;
  readonly contender: Contender;
  readonly open: OpenContender;
}

async function measureOne(plan: Plan, turn: Turn, measured: Measured): Promise<void> {
  const { run, workload, contender, open } = turn;
  const place = `${workload.name}, ${contender.name}`;
  if (measured.missing.has(place)) return;
  const commands = callersOf(workload).map((caller) => {
    const client = [plan.data.client, ...workload.client(plan.data, open.root(caller), caller)];
    return open.command(caller, client);
  });
  const idleMiB = open.pid === undefined ? 0 : residentMiB(open.pid);
  try {
    for (const { took, before, after } of await runClients(commands, () => readMarks(open), plan.signal)) {
      const figure = workload.callers === 2 ? `two-${took.figure}` : took.figure;
      measured.samples.push({
        ...{ run, figure, contender: contender.name },
        nsPerOperation: (took.ns * commands.length) / took.operations,
        cpuUsPerOperation: perOperation(took.operations, before.cpuUs, after.cpuUs),
        tripsPerOperation: perOperation(took.operations, before.trips, after.trips),
      });
    }
  } catch (error) {
    if (!(error instanceof ObuilderError)) throw error;
    measured.missing.set(place, error.message);
  }
  if (workload.contenders === 'tree' && open.pid !== undefined) {
    measured.growthMiB.push(residentMiB(open.pid) - idleMiB);
  }
}

interface Marks {
  readonly cpuUs: number | undefined;
  readonly trips: number | undefined;
}

async function readMarks(open: OpenContender): Promise<Marks> {
  return {
    cpuUs: open.pid === undefined ? undefined : cpuTimeUs(open.pid),
    trips: await open.countTrips?.(),
  };
}

function perOperation(operations: number, before?: number, after?: number): number | undefined {
  return before === undefined || after === undefined ? undefined : (after - before) / operations;
}

/** Linux counts it in hundredths of a second for every program. */
const US_PER_TICK = 10_000;

/** What all threads of a process have used; undefined once it is gone. */
function cpuTimeUs(pid: number): number | undefined {
  const stat = readProc(`/proc/${pid}/stat`);
  // The second field, the command, may hold anything; the third is the first after its bracket.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields === undefined ? undefined : (Number(fields[11]) + Number(fields[12])) * US_PER_TICK;
}

function residentMiB(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readProc(`/proc/${pid}/status`) ?? '')?.[1];
  return Number(kib ?? 0) / 1024;
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT' || errnoCode(error) === 'ESRCH') return undefined;
    throw error;
  }
}
