import type { Options } from 'yargs';
import { ObuilderError } from '../errors.ts';
import type { DiskSpace } from '../store/store-space.ts';

/** How much of a disk is meant, as people say it: a part of it, or bytes. */
export type SpaceSize = { readonly percent: number } | { readonly bytes: number };

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Reads `10%`, `500M` or `20000000`. @throws {ObuilderError} BAD_OPTION, naming the option */
export function spaceSize(option: string): (given: string | string[]) => SpaceSize {
  return (given) => {
    const [, number, unit] = /^(\d+(?:\.\d+)?)(%|[KMGT]?)(?:iB)?$/.exec(String(given)) ?? [];
    const size = Number(number);
    if (unit === '%' && size <= 100) return { percent: size };
    const factor = unit === undefined ? undefined : UNITS[unit];
    if (number !== undefined && factor !== undefined) return { bytes: Math.ceil(size * factor) };
    throw new ObuilderError('BAD_OPTION', `--${option}=${String(given)}: neither a percentage nor a size`, {
      hint: 'give one such as 10%, 500M or 20G',
    });
  };
}

export function bytesOf(size: SpaceSize, { totalBytes }: DiskSpace): number {
  return 'bytes' in size ? size.bytes : Math.ceil((totalBytes * size.percent) / 100);
}

/** How a build uses its store. */
export const storeUseFlags = {
  'prune-threshold': {
    type: 'string',
    requiresArg: true,
    describe:
      'Keep so much of the store’s disk free (10% or 20G) by removing the longest unused results, before each step and while it runs',
    coerce: spaceSize('prune-threshold'),
  },
  sync: {
    type: 'boolean',
    default: true,
    describe:
      'Make results durable before they count as saved; --no-sync is faster, and drops them if the machine goes down (for CI)',
  },
} as const satisfies Record<string, Options>;

export interface StoreUseArguments {
  'prune-threshold': SpaceSize | undefined;
  sync: boolean;
}
