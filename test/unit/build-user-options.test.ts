import { expect, test } from 'vitest';
import { buildUids } from '../../src/cli/build-user-options.ts';

test.each([
  ['705', undefined, [705]],
  ['705-705', undefined, [705]],
  ['705-712', undefined, [705, 706, 707, 708, 709, 710, 711, 712]],
  ['705', 3, [705, 706, 707]],
  ['705', 1, [705]],
])('--uid=%s --builders=%s are the build users %j', (uid, builders, uids) => {
  expect(buildUids(uid, builders)).toEqual(uids);
});

test.each([
  ['', undefined, '--uid=: not a uid'],
  ['anna', undefined, '--uid=anna: not a uid'],
  ['-1', undefined, '--uid=-1: not a uid'],
  ['705-', undefined, '--uid=705-: not a uid'],
  ['705,707', undefined, '--uid=705,707: not a uid'],
  ['712-705', undefined, '--uid=712-705: ends before it begins'],
  ['705-712', 8, '--uid=705-712 and --builders=8: both say how many'],
  ['705', 0, '--builders=0: not a number of build users'],
  ['705', 1.5, '--builders=1.5: not a number of build users'],
  ['705', NaN, '--builders=NaN: not a number of build users'],
  ['705-7050', undefined, '--uid=705-7050: 6346 build users'],
])('--uid=%s --builders=%s is refused: %s', (uid, builders, message) => {
  expect(() => buildUids(uid, builders)).toThrow(expect.objectContaining({ code: 'BAD_OPTION', message }));
});
