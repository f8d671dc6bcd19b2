import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { whyNoLoopDisks } from '../helpers/loop-disk.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const RUNS = 1;
const STEPS = 20;
const CONTENDERS = ['old flow', 'rsync', 'clone', 'btrfs'];

interface Answer {
  readonly samples: readonly { figure: string; contender: string; nsPerOperation: number }[];
  /** In trees. */
  readonly disk: Record<string, number>;
  readonly missing: object;
  readonly verdicts: readonly { target: string; measured: string; isMet: boolean }[];
}

/** The benchmark itself, with a tree of a few files: what it measures is no matter here. */
it.skipIf(whyNoLoopDisks !== undefined)(
  'bench store takes every contender through its steps, judges the targets and leaves nothing',
  { timeout: 180_000 },
  async () => {
    const out = mkdtempSync(join(tmpdir(), 'bench-store-'));
    try {
      const args = ['--size=tiny', `--runs=${RUNS}`, '--no-sync', `--out=${out}`];
      const running = promisify(execFile)(
        process.execPath,
        ['--import', 'tsx', 'scripts/bench/bench.ts', 'store', ...args],
        { cwd: root },
      );
      const { pid } = running.child;
      const { stdout } = await running;
      const answer = JSON.parse(readFileSync(join(out, 'store.json'), 'utf8')) as Answer;
      expect(answer.missing).toEqual({});
      expectSamples(answer);
      expectVerdicts(answer);
      expectSharing(answer);
      for (const name of CONTENDERS) expect(stdout).toMatch(new RegExp(`^${name} +[\\d.]+ m?s`, 'm'));
      expect(readdirSync('/var/tmp').filter((name) => name.startsWith(`obuilder-fs-bench.${pid}.`))).toEqual(
        [],
      );
    } finally {
      rmSync(out, { recursive: true });
    }
  },
);

function nsOf({ samples }: Answer, contender: string, figure = 'step'): number[] {
  const own = samples.filter((sample) => sample.contender === contender && sample.figure === figure);
  return own.map(({ nsPerOperation }) => nsPerOperation);
}

function expectSamples(answer: Answer): void {
  for (const name of CONTENDERS) expect(nsOf(answer, name), name).toHaveLength(RUNS);
  expect(nsOf(answer, 'ours', 'cached build')).toHaveLength(RUNS);
  for (const { nsPerOperation } of answer.samples) expect(nsPerOperation).toBeGreaterThan(0);
}

function expectVerdicts(answer: Answer): void {
  const [old = NaN] = nsOf(answer, 'old flow');
  for (const name of ['rsync', 'clone', 'btrfs']) {
    const [own = NaN] = nsOf(answer, name);
    const verdict = answer.verdicts.find(({ target }) => target === `step, ${name}: speed`);
    expect(Number(verdict?.measured) / (old / own), name).toBeCloseTo(1, 1);
  }
  expect(answer.verdicts).toHaveLength(6);
  for (const { isMet } of answer.verdicts) expect(isMet).toBeTypeOf('boolean');
}

/** Whole copies would be as many trees more as there were steps. A clone has its inodes, of half a KiB each, and its directories. */
function expectSharing({ disk }: Answer): void {
  expect(Object.keys(disk)).toEqual(['clone', 'btrfs']);
  for (const [name, trees] of Object.entries(disk)) {
    expect(trees, name).toBeGreaterThan(1);
    expect(trees, name).toBeLessThan(1 + STEPS / 10);
  }
}
