import { describe, expect, it } from 'vitest';
import { Samples, type Sample } from '../../scripts/bench/fs/summary.ts';
import { judge, targets } from '../../scripts/bench/fs/targets.ts';
import { workloads } from '../../scripts/bench/fs/workloads.ts';

/** One sample a run for each figure in the list. */
function samplesOf(figure: string, contender: string, ...nsPerOperation: number[]): Sample[] {
  return nsPerOperation.map((ns, run) => ({ run, figure, contender, nsPerOperation: ns }));
}

function verdictOn(name: string, samples: readonly Sample[], memoryMiB?: number) {
  const target = targets.find((one) => one.name === name);
  if (target === undefined) throw new Error(`no target ${name}`);
  return judge(target, new Samples(samples), memoryMiB === undefined ? undefined : { memoryMiB });
}

describe('ratios', () => {
  it('are taken within one run, so a machine that slows down between runs changes nothing', () => {
    const samples = new Samples([
      ...samplesOf('stat', 'native', 10, 100, 1000),
      ...samplesOf('stat', 'tree', 20, 200, 2000),
    ]);
    expect(samples.ratio('stat', 'tree', 'native')).toBe(2);
  });

  it('leave out runs that lack one of the two', () => {
    const samples = new Samples([
      ...samplesOf('stat', 'native', 10),
      ...samplesOf('stat', 'tree', 30, 9000, 9000),
    ]);
    expect(samples.ratio('stat', 'tree', 'native')).toBe(3);
    expect(samples.ratio('stat', 'tree', 'bindfs')).toBeUndefined();
  });

  it('are held against the peer with the lowest median', () => {
    const samples = new Samples([
      ...samplesOf('open', 'bindfs', 1, 50, 60),
      ...samplesOf('open', 'mergerfs', 30, 31, 32),
    ]);
    expect(samples.fastest('open', ['bindfs', 'mergerfs', 'passthrough_ll'])).toBe('mergerfs');
    expect(samples.fastest('open', ['passthrough_ll'])).toBeUndefined();
  });
});

describe('targets', () => {
  it('measure only figures that some workload yields', () => {
    const asked = new Set<string>();
    const recording = new Samples([]);
    const record = (figure: string) => {
      asked.add(figure);
      return undefined;
    };
    Object.assign(recording, {
      summary: record,
      ratio: record,
      fastest: record,
      ratioOfFigures: (...figures: { figure: string }[]) => {
        for (const { figure } of figures) record(figure);
      },
    });
    for (const target of targets) judge(target, recording, undefined);
    const yielded = workloads.flatMap(({ figures }) => figures);
    expect([...asked].filter((figure) => !yielded.includes(figure))).toEqual([]);
    expect(asked.size).toBeGreaterThan(10);
  });

  it('of time are met up to the limit', () => {
    const peer = samplesOf('stat', 'bindfs', 100);
    expect(verdictOn('stat, tree: time', [...peer, ...samplesOf('stat', 'tree', 115)])).toMatchObject({
      measured: '1.15',
      against: 'bindfs',
      isMet: true,
    });
    expect(verdictOn('stat, tree: time', [...peer, ...samplesOf('stat', 'tree', 116)]).isMet).toBe(false);
  });

  it('of speed are met from the limit on: they say how often faster', () => {
    const peer = samplesOf('open', 'mergerfs', 300);
    expect(verdictOn('open, tree: speed', [...peer, ...samplesOf('open', 'tree', 200)])).toMatchObject({
      measured: '1.50',
      isMet: true,
    });
    expect(verdictOn('open, tree: speed', [...peer, ...samplesOf('open', 'tree', 201)]).isMet).toBe(false);
  });

  it.each([
    [1, true],
    [1.001, true],
    [1.02, false],
    [0, false],
  ])('of requests are exact but for one at the edge: %d for each stat is met: %s', (trips, isMet) => {
    const sample = {
      run: 0,
      figure: 'stat',
      contender: 'shared',
      nsPerOperation: 1,
      tripsPerOperation: trips,
    };
    expect(verdictOn('requests per stat, shared', [sample]).isMet).toBe(isMet);
  });

  it('of memory look at what the walk added', () => {
    expect(verdictOn('memory gained by that walk, MiB', [], 64).isMet).toBe(true);
    expect(verdictOn('memory gained by that walk, MiB', [], 65).isMet).toBe(false);
  });

  it('that were not measured are neither met nor missed', () => {
    expect(verdictOn('stat, tree: time', samplesOf('stat', 'tree', 1)).isMet).toBeUndefined();
  });
});
