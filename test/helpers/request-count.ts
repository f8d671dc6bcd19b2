import { readStatistics } from '../../src/fs/mount-statistics.ts';
import { createRunDirectory, prefixFiles } from '../../src/fs/run-directory.ts';
import type { ScratchMount } from './scratch-mount.ts';

const SETTLE_DEADLINE_MS = 10_000;

/** Requests that were answered so far, once no more come: the kernel sends RELEASE after close has returned. */
export async function settledCount({ stateDir, prefix }: ScratchMount): Promise<number> {
  const { statistics } = prefixFiles(createRunDirectory(stateDir), prefix);
  const deadline = Date.now() + SETTLE_DEADLINE_MS;
  for (let last = -1, repeats = 0; Date.now() < deadline;) {
    const counts = await readStatistics(statistics);
    if (counts === undefined) throw new Error('the mount process does not tell its statistics');
    const sum = counts.reduce((total, { operations }) => total + operations, 0);
    const isAtRest = sum === last && counts.every(({ openFiles }) => openFiles === 0);
    repeats = isAtRest ? repeats + 1 : 0;
    if (repeats === 3) return sum;
    last = sum;
  }
  throw new Error('requests keep coming');
}
