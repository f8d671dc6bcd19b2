import { describe, expect, it } from 'vitest';
import { Samples } from '../../scripts/bench/fs/summary.ts';
import { CACHED, judgeStore, OLD_FLOW } from '../../scripts/bench/store/targets.ts';

interface Measured {
  /** A step of each contender in milliseconds, one run after another. */
  readonly steps?: Record<string, number[]>;
  readonly cachedMs?: number[];
  readonly disk?: Record<string, number>;
}

function verdictOn(target: string, { steps = {}, cachedMs = [], disk = {} }: Measured) {
  const inRuns = (figure: string, contender: string, all: readonly number[]) =>
    all.map((ms, run) => ({ run, figure, contender, nsPerOperation: ms * 1e6 }));
  const samples = new Samples([
    ...Object.entries(steps).flatMap(([contender, all]) => inRuns('step', contender, all)),
    ...inRuns(CACHED.figure, CACHED.contender, cachedMs),
  ]);
  const verdict = judgeStore({ samples, disk: new Map(Object.entries(disk)) }).find(
    (one) => one.target === target,
  );
  if (verdict === undefined) throw new Error(`no target ${target}`);
  return verdict;
}

describe("the store's targets", () => {
  it('are met by a step that is often enough as fast as the old flow, in the median run', () => {
    const steps = { [OLD_FLOW]: [800, 8000, 100], clone: [100, 900, 100] };
    expect(verdictOn('step, clone: speed', { steps })).toMatchObject({ measured: '8.00', isMet: true });
    expect(verdictOn('step, clone: speed', { steps: { ...steps, clone: [101, 1010, 100] } })).toMatchObject({
      isMet: false,
    });
  });

  it('are met by a disk that holds little more than one tree', () => {
    expect(verdictOn('disk after the steps, btrfs', { disk: { btrfs: 1.1 } }).isMet).toBe(true);
    expect(verdictOn('disk after the steps, btrfs', { disk: { btrfs: 1.11 } }).isMet).toBe(false);
  });

  it('are met by a cached build of a tenth of a second', () => {
    expect(verdictOn('cached build, ms', { cachedMs: [99, 100, 1000] }).isMet).toBe(true);
    expect(verdictOn('cached build, ms', { cachedMs: [99, 101, 102] }).isMet).toBe(false);
  });

  it('are neither met nor missed where nothing was measured', () => {
    for (const { isMet } of judgeStore({ samples: new Samples([]), disk: new Map() }))
      expect(isMet).toBeUndefined();
  });
});
