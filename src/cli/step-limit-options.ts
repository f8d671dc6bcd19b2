import type { Options } from 'yargs';
import { ObuilderError } from '../errors.ts';
import type { StepLimits } from '../sandbox/step-limits.ts';
import { parseBytes } from './space-options.ts';

/** What each step may take, as people say it; `none` is without a limit. */
export interface StepLimitChoices {
  /** How long it runs: `90s`, `15m`, `6h` or `2d` (default `6h`). */
  readonly stepTimeout?: string | undefined;
  /** How much it prints: `500M` or a number of bytes (default `256M`). */
  readonly maxOutput?: string | undefined;
  /** Of all its processes together where there are cgroups, of each one elsewhere: as `maxOutput` (default `none`). */
  readonly memory?: string | undefined;
  /** Threads count as well (default 4096). */
  readonly processes?: number | string | undefined;
}

/** Far more than a build needs, far less than harms the machine. Nobody can know how much memory a compiler needs. */
const DEFAULTS = { stepTimeout: '6h', maxOutput: '256M', memory: 'none', processes: '4096' } as const;

/** @throws {ObuilderError} BAD_OPTION, naming the option */
export function stepLimits(choices: StepLimitChoices): StepLimits {
  const { stepTimeout, maxOutput, memory, processes } = choices;
  return {
    timeoutMs: limitOf(durationLimit, stepTimeout ?? DEFAULTS.stepTimeout),
    outputBytesMax: limitOf(sizeLimit('max-output'), maxOutput ?? DEFAULTS.maxOutput),
    memoryBytesMax: limitOf(sizeLimit('memory'), memory ?? DEFAULTS.memory),
    processesMax: limitOf(countLimit, String(processes ?? DEFAULTS.processes)),
  };
}

/** How one option is read. */
interface Limit {
  readonly option: string;
  /** Undefined for what it is not. */
  readonly parse: (given: string) => number | undefined;
  readonly kind: string;
  readonly examples: string;
}

function limitOf({ option, parse, kind, examples }: Limit, given: string): number | undefined {
  if (given === 'none') return undefined;
  const limit = parse(given);
  if (limit !== undefined && limit > 0) return limit;
  throw new ObuilderError('BAD_OPTION', `--${option}=${given}: not ${kind}`, {
    hint: `give one such as ${examples}, or none`,
  });
}

const MS_OF: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
/** A timer waits a little longer at most. */
const DAYS_MAX = 24;

const durationLimit: Limit = {
  option: 'step-timeout',
  kind: `a duration of at most ${DAYS_MAX} days`,
  examples: '90s, 15m or 6h',
  parse(given) {
    const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([smhd])$/.exec(given) ?? [];
    const ms = Math.ceil(Number(number) * (MS_OF[unit] ?? NaN));
    return ms <= DAYS_MAX * 86_400_000 ? ms : undefined;
  },
};

function sizeLimit(option: 'max-output' | 'memory'): Limit {
  return { option, kind: 'a size', examples: '500M or 2G', parse: parseBytes };
}

const countLimit: Limit = {
  option: 'processes',
  kind: 'a number of processes',
  examples: '4096',
  parse: (given) => (/^\d{1,9}$/.test(given) ? Number(given) : undefined),
};

/** yargs collects what is repeated. */
function oneLimit(option: string): (given: string | string[]) => string {
  return (given) => {
    if (typeof given === 'string') return given;
    throw new ObuilderError('BAD_OPTION', `--${option} is given twice`, { hint: 'give it once' });
  };
}

/** For commands that run steps of others. */
export const stepLimitFlags = {
  'step-timeout': {
    type: 'string',
    requiresArg: true,
    default: DEFAULTS.stepTimeout,
    describe: 'Stop a step that takes longer: 90s, 15m, 6h; or none',
    coerce: oneLimit('step-timeout'),
  },
  'max-output': {
    type: 'string',
    requiresArg: true,
    default: DEFAULTS.maxOutput,
    describe: 'Stop a step that prints more; or none',
    coerce: oneLimit('max-output'),
  },
  memory: {
    type: 'string',
    requiresArg: true,
    default: DEFAULTS.memory,
    describe: 'Memory for a step, all its processes together where there are cgroups: 4G; or none',
    coerce: oneLimit('memory'),
  },
  processes: {
    type: 'string',
    requiresArg: true,
    default: DEFAULTS.processes,
    describe: 'Processes and threads that a step may have at once; or none',
    coerce: oneLimit('processes'),
  },
} as const satisfies Record<string, Options>;

export interface StepLimitArguments {
  'step-timeout': string;
  'max-output': string;
  memory: string;
  processes: string;
}

export function stepLimitChoices(argv: StepLimitArguments): StepLimitChoices {
  const { 'step-timeout': stepTimeout, 'max-output': maxOutput, memory, processes } = argv;
  return { stepTimeout, maxOutput, memory, processes };
}
