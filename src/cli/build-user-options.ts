import { ObuilderError } from '../errors.ts';

/** A machine's build users, the owner of its results first. */
export type BuildUids = readonly [number, ...number[]];

/** Far more than a machine can use; a typing error in a range must not ask for a million accounts. */
const usersMax = 256;

/**
 * The uids of `--uid=705`, of a range `--uid=705-712`, or of so many from the first: `--uid=705 --builders=8`.
 * @throws {ObuilderError} BAD_OPTION
 */
export function buildUids(uid: string, builders?: number): BuildUids {
  const [, first, last] = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(uid) ?? [];
  if (first === undefined) throw badOption(`--uid=${uid}: not a uid`, 'give one like 705, or a range like 705-712');
  if (last !== undefined && builders !== undefined) {
    throw badOption(`--uid=${uid} and --builders=${builders}: both say how many`, 'give one of them');
  }
  if (builders !== undefined && (!Number.isInteger(builders) || builders < 1)) {
    throw badOption(`--builders=${builders}: not a number of build users`, 'give 1 or more');
  }
  const count = last === undefined ? (builders ?? 1) : Number(last) - Number(first) + 1;
  if (count < 1) throw badOption(`--uid=${uid}: ends before it begins`, 'give the lower uid first');
  if (count > usersMax) throw badOption(`--uid=${uid}: ${count} build users`, `at most ${usersMax} are possible`);
  return [Number(first), ...Array.from({ length: count - 1 }, (_, i) => Number(first) + 1 + i)];
}

function badOption(message: string, hint: string): ObuilderError {
  return new ObuilderError('BAD_OPTION', message, { hint });
}
