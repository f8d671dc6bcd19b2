import { mkdirSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../../src/os/exec.ts';
import type { ContenderHost, StepContender } from './contender.ts';
import { quieten } from './loop-disk.ts';
import { changeOneFile, writeTree } from './tree.ts';

/**
 * What OBuilder v0.5 did on macOS around every step, as it did it: it copies the base, fills the build user's home from the copy, and the
 * copy from the home. It waits for no disk. Its mounts and accounts are left out.
 */
export async function openOldFlow({ disk, size, signal }: ContenderHost): Promise<StepContender> {
  const root = join(disk, 'old-flow');
  const [base, home, empty] = ['result/base', 'home', 'empty'].map((name) => join(root, name)) as [
    string,
    string,
    string,
  ];
  for (const directory of [join(base, 'rootfs'), home, empty, join(root, 'result-tmp')]) {
    mkdirSync(directory, { recursive: true });
  }
  await writeTree(join(base, 'rootfs'), size, signal);
  const rsync = (options: string, from: string, to: string) =>
    runCommand(['rsync', ...options.split(' '), `${from}/`, `${to}/`], { signal });
  const resultOf = (turn: number) => join(root, 'result', `step${turn}`);
  return {
    name: 'old flow',
    async step(turn) {
      const tmp = join(root, 'result-tmp', `step${turn}`);
      const rootfs = join(tmp, 'rootfs');
      await rsync('-aHq', base, tmp);
      await rsync('-aHq --delete', empty, home);
      await rsync('-aHq', rootfs, home);
      await changeOneFile(home, size, turn);
      await rsync('-aHq --delete', home, rootfs);
      await rename(tmp, resultOf(turn));
    },
    async undo(turn) {
      await rm(resultOf(turn), { recursive: true });
      await quieten(disk, 'ext4');
    },
    close: () => undefined,
  };
}
