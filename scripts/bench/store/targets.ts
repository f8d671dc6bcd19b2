import type { Samples } from '../fs/summary.ts';
import type { Verdict } from '../fs/targets.ts';
import { formatFactor } from '../table.ts';

/** What the steps of one benchmark gave. */
export interface StoreFigures {
  readonly samples: Samples;
  /** By contender: the disk after the steps, as multiples of the base alone. */
  readonly disk: ReadonlyMap<string, number>;
}

interface Target {
  readonly name: string;
  readonly against: string;
  /** Undefined when it was not measured. */
  readonly value: (figures: StoreFigures) => number | undefined;
  readonly sense: 'at most' | 'at least';
  readonly limit: number;
}

/** The contender that the others are held against. */
export const OLD_FLOW = 'old flow';
export const CACHED = { figure: 'cached build', contender: 'ours' } as const;

const targets: readonly Target[] = [
  speedup('rsync', 2.2),
  speedup('clone', 8),
  speedup('btrfs', 100),
  disk('clone'),
  disk('btrfs'),
  {
    name: 'cached build, ms',
    against: '',
    value: ({ samples }) => {
      const summary = samples.summary(CACHED.figure, CACHED.contender);
      return summary && summary.nsPerOperation.median / 1e6;
    },
    sense: 'at most',
    limit: 100,
  },
];

/** How each of the store's targets was met. */
export function judgeStore(figures: StoreFigures): Verdict[] {
  return targets.map(({ name, against, value, sense, limit }) => {
    const [measured, asked] = [value(figures), `${sense} ${limit}`];
    if (measured === undefined) return { target: name, asked, measured: '—', against, isMet: undefined };
    const isMet = sense === 'at most' ? measured <= limit : measured >= limit;
    return { target: name, asked, measured: formatFactor(measured), against, isMet };
  });
}

function speedup(contender: string, limit: number): Target {
  return {
    name: `step, ${contender}: speed`,
    against: OLD_FLOW,
    value: ({ samples }) => samples.ratio('step', OLD_FLOW, contender),
    sense: 'at least',
    limit,
  };
}

function disk(contender: string): Target {
  return {
    name: `disk after the steps, ${contender}`,
    against: 'one tree',
    value: (figures) => figures.disk.get(contender),
    sense: 'at most',
    limit: 1.1,
  };
}
