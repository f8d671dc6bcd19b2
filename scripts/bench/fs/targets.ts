import { formatFactor } from '../table.ts';
import type { Samples } from './summary.ts';

/** What the file system has promised to reach, and how to tell from one benchmark whether it has. */
export interface Target {
  readonly name: string;
  /** Undefined when what it compares was not measured. */
  readonly value: (samples: Samples, growth: Growth | undefined) => Measured | undefined;
  readonly limit: number;
  readonly sense: 'at most' | 'at least' | 'exactly';
}

interface Measured {
  readonly value: number;
  /** What it was compared with, in a word. */
  readonly against: string;
}

/** How much memory the mount process gained by a walk of the large tree. */
export interface Growth {
  readonly memoryMiB: number;
}

export interface Verdict {
  readonly target: string;
  readonly asked: string;
  readonly measured: string;
  readonly against: string;
  readonly isMet: boolean | undefined;
}

const CACHING_PEERS = ['bindfs', 'mergerfs', 'passthrough', 'passthrough_fh', 'passthrough_ll'];
const THREE_PEERS = ['bindfs', 'mergerfs', 'passthrough_ll'];
const CHANGES = ['create', 'rename', 'unlink'];

export const targets: readonly Target[] = [
  ...['stat', 'walk', 'walk-again', 'missing'].map((figure) => slowdown(figure, 'tree', CACHING_PEERS, 1.15)),
  speedup('open', 'tree', THREE_PEERS, 1.5),
  {
    name: 'requests per stat, shared',
    value: (samples) => alone(samples.summary('stat', 'shared')?.tripsPerOperation),
    limit: 1,
    sense: 'exactly',
  },
  slowdown('lookup', 'shared', ['one-file'], 1.3),
  slowdown('open', 'shared', THREE_PEERS, 1),
  ...['tree', 'shared'].flatMap((ours) => CHANGES.map((figure) => slowdown(figure, ours, THREE_PEERS, 1))),
  ...['stat', 'open', 'missing'].flatMap((figure) => [
    speedup(figure, 'none', ['bindfs-off'], 2),
    speedup(figure, 'none', ['passthrough-off'], 1.5),
  ]),
  ...CHANGES.flatMap((figure) => [
    speedup(figure, 'none', ['bindfs-off'], 1.3),
    speedup(figure, 'none', ['passthrough-off'], 1.3),
  ]),
  speedup('read-warm', 'tree', ['native'], 0.9),
  speedup('read-cold', 'tree', ['native'], 0.8),
  speedup('write', 'tree', ['native'], 0.6),
  slowdown('compile', 'tree', ['native'], 1.05),
  slowdown('compile', 'shared', ['native'], 1.15),
  slowdown('compile', 'none', ['native'], 1.5),
  slowdown('two-compile', 'tree', ['native'], 1.15),
  slowdown('two-compile', 'shared', ['native'], 2),
  {
    name: 'walk of ten times the files, tree: time per file',
    value: (samples) =>
      compared(
        samples.ratioOfFigures(
          { figure: 'grow-large', contender: 'tree' },
          { figure: 'grow-small', contender: 'tree' },
        ),
        'the smaller walk',
      ),
    limit: 1.25,
    sense: 'at most',
  },
  {
    name: 'memory gained by that walk, MiB',
    value: (_, growth) => alone(growth?.memoryMiB),
    limit: 64,
    sense: 'at most',
  },
];

export function judge(target: Target, samples: Samples, growth: Growth | undefined): Verdict {
  const measured = target.value(samples, growth);
  const asked = `${target.sense} ${target.limit}`;
  if (measured === undefined) {
    return { target: target.name, asked, measured: '—', against: '—', isMet: undefined };
  }
  return {
    target: target.name,
    asked,
    measured: formatFactor(measured.value),
    against: measured.against,
    isMet: isMet(target, measured.value),
  };
}

function isMet({ sense, limit }: Target, value: number): boolean {
  switch (sense) {
    case 'at most':
      return value <= limit;
    case 'at least':
      return value >= limit;
    case 'exactly':
      // A figure's last RELEASE may be counted in the next one.
      return Math.abs(value - limit) < 0.01;
  }
}

/** How many times as long as the fastest of the others. */
function slowdown(figure: string, ours: string, others: readonly string[], limit: number): Target {
  return {
    name: `${figure}, ${ours}: time`,
    value: (samples) => {
      const against = samples.fastest(figure, others);
      return against === undefined ? undefined : compared(samples.ratio(figure, ours, against), against);
    },
    limit,
    sense: 'at most',
  };
}

/** How many times as fast as the fastest of the others. */
function speedup(figure: string, ours: string, others: readonly string[], limit: number): Target {
  return {
    name: `${figure}, ${ours}: speed`,
    value: (samples) => {
      const against = samples.fastest(figure, others);
      return against === undefined ? undefined : compared(samples.ratio(figure, against, ours), against);
    },
    limit,
    sense: 'at least',
  };
}

function compared(value: number | undefined, against: string): Measured | undefined {
  return value === undefined ? undefined : { value, against };
}

function alone(value: number | undefined): Measured | undefined {
  return compared(value, '');
}
