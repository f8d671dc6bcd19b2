import { describe, expect, it } from 'vitest';
import { barChart } from '../../scripts/bench/chart.ts';
import type { Contender } from '../../scripts/bench/fs/contender.ts';
import { chartGroups, describeReport, peersLike, type Report } from '../../scripts/bench/fs/report.ts';
import { Samples } from '../../scripts/bench/fs/summary.ts';
import { takesPart, workloads } from '../../scripts/bench/fs/workloads.ts';
import { formatFactor, formatNs, textTable } from '../../scripts/bench/table.ts';

const contender = (name: string, kind: Contender['kind']): Contender => ({
  name,
  kind,
  description: '',
  open: () => Promise.reject(new Error('not here')),
});
const contenders = [
  contender('native', 'native'),
  contender('tree', 'ours'),
  contender('none', 'ours'),
  contender('bindfs', 'peer'),
  contender('bindfs-off', 'peer'),
  contender('one-file', 'peer'),
];

const sample = (name: string, nsPerOperation: number) => ({
  ...{ run: 0, figure: 'stat', contender: name, nsPerOperation },
  cpuUsPerOperation: 1.5,
  tripsPerOperation: 0,
});

const report: Report = {
  samples: new Samples([sample('native', 2000), sample('tree', 4000), sample('bindfs', 8000)]),
  contenders,
  workloads,
  missing: new Map([['mergerfs', 'no such package']]),
  verdicts: [
    { target: 'one', asked: 'at most 1', measured: '0.5', against: 'bindfs', isMet: true },
    { target: 'two', asked: 'at most 1', measured: '2', against: 'bindfs', isMet: false },
    { target: 'three', asked: 'at most 1', measured: '—', against: '—', isMet: undefined },
  ],
};

describe('a table', () => {
  it('has the first column to the left and figures to the right', () => {
    expect(
      textTable(
        ['name', 'ns'],
        [
          ['a', '100'],
          ['longer', '5'],
        ],
      ),
    ).toBe('name     ns\n──────  ───\na       100\nlonger    5');
  });

  it.each([
    [5, '5.00 ns'],
    [12_345, '12.3 µs'],
    [4_000_000, '4.00 ms'],
    [2.5e9, '2.50 s'],
  ])('shows %d ns as %s', (ns, text) => {
    expect(formatNs(ns)).toBe(text);
  });

  it.each([
    [0.91234, '0.912'],
    [42.42, '42.4'],
    [1234.5, '1235'],
  ])('shows the factor %d as %s', (factor, text) => {
    expect(formatFactor(factor)).toBe(text);
  });
});

describe('the report', () => {
  const lines = describeReport(report).split('\n');
  const lineOf = (start: string) => lines.find((line) => line.startsWith(start)) ?? '';

  it('holds each contender against native and the best peer', () => {
    expect(lineOf('tree').split(/ {2,}/)).toEqual([
      ...['tree', '4.00 µs', '4.00 µs … 4.00 µs', '2.00', '0.500', '1.50 µs', '0.00'],
    ]);
  });

  it('says why a contender is missing, and which targets were not met', () => {
    expect(lines).toContain('  mergerfs: no such package');
    expect(lineOf('one')).toMatch(/ met$/);
    expect(lineOf('two')).toMatch(/ NOT MET$/);
    expect(lines).toContain('1 more were not measured');
  });

  it('holds what caches against peers that do, and the others against the others', () => {
    expect(peersLike('tree', contenders)).toEqual(['bindfs']);
    expect(peersLike('none', contenders)).toEqual(['bindfs-off']);
    expect(peersLike('bindfs-off', contenders)).toEqual(['bindfs-off']);
  });
});

describe('the chart', () => {
  it('draws a bar for each contender, the slowest the longest', () => {
    const svg = barChart('title', chartGroups(report));
    const widths = [...svg.matchAll(/<rect x="150" y="\d+" width="([\d.]+)"/g)].map(([, width]) =>
      Number(width),
    );
    expect(widths).toEqual([140, 280, 560]);
  });

  it('keeps text from becoming markup', () => {
    const svg = barChart('<a> & "b"', []);
    expect(svg).toContain('&lt;a&gt; &amp; &quot;b&quot;');
    expect(svg).not.toContain('<a>');
  });
});

describe('who takes part', () => {
  it.each([
    ['lookup', 'one-file', true],
    ['stat', 'one-file', false],
    ['stat', 'passthrough_fh-off', true],
    ['compile', 'passthrough_fh-off', false],
    ['compile', 'none', true],
    ['grow', 'tree', true],
    ['grow', 'shared', false],
  ])('in %s: %s is %s', (name, of, answer) => {
    const workload = workloads.find((one) => one.name === name);
    expect(workload && takesPart(workload, of)).toBe(answer);
  });
});
