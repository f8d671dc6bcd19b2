import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { rotated, spreadOf } from '../../scripts/bench/statistics.ts';

describe('the spread of figures', () => {
  it.each([
    [[5], { median: 5, lower: 5, upper: 5 }],
    [[1, 2], { median: 1.5, lower: 1.25, upper: 1.75 }],
    [[9, 1, 5], { median: 5, lower: 3, upper: 7 }],
    [[10, 2, 30, 4], { median: 7, lower: 3.5, upper: 15 }],
  ])('of %j is %j', (figures, spread) => {
    expect(spreadOf(figures)).toEqual(spread);
  });

  it('is not moved by the order of the figures, and does not reorder them', () => {
    const positive = fc.array(fc.nat(), { minLength: 1 });
    fc.assert(
      fc.property(positive, (figures) => {
        const given = [...figures];
        const spread = spreadOf(figures);
        expect(figures).toEqual(given);
        expect(spreadOf([...figures].reverse())).toEqual(spread);
        expect(spread.lower).toBeLessThanOrEqual(spread.median);
        expect(spread.median).toBeLessThanOrEqual(spread.upper);
      }),
    );
  });

  it('of nothing is a mistake, not a number', () => {
    expect(() => spreadOf([])).toThrow('BUG');
  });
});

describe('rotation', () => {
  it('lets every contender begin once, and keeps all of them', () => {
    const orders = [0, 1, 2, 3].map((run) => rotated(['a', 'b', 'c'], run).join(''));
    expect(orders).toEqual(['abc', 'bca', 'cab', 'abc']);
    expect(rotated([], 3)).toEqual([]);
  });
});
