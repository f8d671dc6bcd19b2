import { mkdirSync, mkdtempSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { ObuilderError } from '../../src/errors.ts';
import { Progress } from './progress.ts';
import { createScratch, type Scratch } from './scratch.ts';

/** What a benchmark works in. */
export interface Surroundings {
  readonly scratch: Scratch;
  readonly progress: Progress;
  /** Fires when the benchmark is interrupted. */
  readonly signal: AbortSignal;
}

/** Runs a benchmark and sweeps up after it, also when it is interrupted. */
export async function withSurroundings(action: (surroundings: Surroundings) => Promise<void>): Promise<void> {
  const scratch = createScratch();
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, onSignal);
  const progress = new Progress();
  try {
    await action({ scratch, progress, signal: stop.signal });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.exitCode = 130;
  } finally {
    progress.clear();
    scratch.sweep();
  }
}

/** @throws {ObuilderError} NOT_ROOT */
export function checkHost(benchmark: string): void {
  if (process.platform === 'linux' && process.getuid?.() === 0) return;
  throw new ObuilderError('NOT_ROOT', `bench ${benchmark} mounts file systems`, {
    hint: 'run it as root, on Linux',
  });
}

/** @throws {ObuilderError} BAD_USAGE */
export function checkRuns(runs: number, enough: number): number {
  if (Number.isInteger(runs) && runs >= 1) return runs;
  throw new ObuilderError('BAD_USAGE', '--runs is not a number of runs', { hint: `give ${enough} or more` });
}

export function describeMachine(): string {
  return `Linux ${release()}, ${cpus().length} CPUs, ${cpus()[0]?.model ?? 'unknown'}`;
}

/** Where results go; made for them alone where none is named. */
export function outDirectory(out: string | undefined): string {
  if (out === undefined) return mkdtempSync(join(tmpdir(), 'obuilder-fs-bench-'));
  mkdirSync(resolve(out), { recursive: true });
  return resolve(out);
}
