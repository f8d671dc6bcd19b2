import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { progressWords } from '../../src/cli/progress-line.ts';
import { withCopyProgress, type CopyProgress } from '../../src/store/copy-progress.ts';

describe('how far some work is', () => {
  it.each([
    [
      { items: 1200, bytes: 24 * 2 ** 20 },
      { items: 50_000, bytes: 2 ** 30 },
      2000,
      'copying: 1200 of 50000, 24.0 MiB of 1.0 GiB, 12.0 MiB/s, 84 s left',
    ],
    [{ items: 5 }, { items: 10 }, 3000, 'copying: 5 of 10, 3 s left'],
    [{ items: 5 }, {}, 3000, 'copying: 5'],
    [{ items: 10 }, { items: 10 }, 3000, 'copying: 10 of 10'],
  ])('%j of %j after %d ms is told as "%s"', (done, total, elapsedMs, words) => {
    expect(progressWords('copying', { done, total, elapsedMs })).toBe(words);
  });
});

describe('a long copy', () => {
  it('tells how far it is, and when it is over', async () => {
    const directory = mkdtempSync('/var/tmp/copy-progress-');
    for (const name of ['one', 'two']) writeFileSync(join(directory, name), 'x'.repeat(10_000));
    const told: (CopyProgress | undefined)[] = [];
    let goOn = (): void => undefined;
    const begun = new Promise<void>((resolve) => (goOn = resolve));
    const hear = (progress: CopyProgress | undefined) => {
      told.push(progress);
      goOn();
    };
    await withCopyProgress({ source: directory, target: join(directory, 'none yet') }, hear, () => begun);
    rmSync(directory, { recursive: true });
    expect(told).toEqual([
      { done: { files: 0, bytes: 0 }, total: { files: 2, bytes: expect.any(Number) as number } },
      undefined,
    ]);
    expect(told[0]?.total.bytes).toBeGreaterThanOrEqual(20_000);
  });

  it('passes on what went wrong', async () => {
    const broken = () => Promise.reject(new Error('no copy'));
    await expect(withCopyProgress({ source: '/', target: '/' }, () => undefined, broken)).rejects.toThrow(
      'no copy',
    );
  });
});
