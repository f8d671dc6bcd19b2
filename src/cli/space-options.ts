import type { Options } from 'yargs';
import { ObuilderError } from '../errors.ts';
import type { DiskSpace } from '../store/store-space.ts';

/** How much of a disk is meant, as people say it: a part of it, or bytes. */
export type SpaceSize = { readonly percent: number } | { readonly bytes: number };

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Reads `10%`, `500M` or `20000000`. @throws {ObuilderError} BAD_OPTION, naming the option */
export function spaceSize(option: string): (given: string | string[]) => SpaceSize {
  return (given) => {
    const [, percent] = /^(\d+(?:\.\d+)?)%$/.exec(String(given)) ?? [];
    if (percent !== undefined && Number(percent) <= 100) return { percent: Number(percent) };
    const bytes = parseBytes(String(given));
    if (bytes !== undefined) return { bytes };
    throw new ObuilderError('BAD_OPTION', `--${option}=${String(given)}: neither a percentage nor a size`, {
      hint: 'give one such as 10%, 500M or 20G',
    });
  };
}

/** Reads `500M`, `1.5GiB` or `20000000`; undefined for what is no size. */
export function parseBytes(given: string): number | undefined {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([KMGT]?)(?:iB)?$/.exec(given) ?? [];
  return number === undefined ? undefined : Math.ceil(Number(number) * (UNITS[unit] ?? NaN));
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
