import { runCommand } from '../../../src/os/exec.ts';
import { unmountNow } from '../scratch.ts';
import type { Contender } from './contender.ts';
import { CALLERS, type CallerNumber } from './data-set.ts';

/** The command that runs another as a caller: a plain uid without groups or capabilities. */
export function asCaller(caller: CallerNumber, argv: readonly string[]): string[] {
  const uid = CALLERS[caller];
  return ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--', ...argv];
}

export const native: Contender = {
  name: 'native',
  kind: 'native',
  description: 'the directory itself',
  open: (data) =>
    Promise.resolve({ root: data.directory, command: asCaller, close: () => Promise.resolve() }),
};

export const bind: Contender = {
  name: 'bind',
  kind: 'native',
  description: 'a bind mount of it',
  async open(data) {
    const points = ([0, 1] as const).map((caller) => data.scratch.make(`mounts/bind-${caller}`));
    for (const [caller, point] of points.entries()) {
      await runCommand([
        'mount',
        '--rbind',
        '--make-rprivate',
        data.directory(caller as CallerNumber),
        point,
      ]);
    }
    return {
      root: (caller) => pointOf(points, caller),
      command: asCaller,
      close: () => {
        points.forEach(unmountNow);
        return Promise.resolve();
      },
    };
  },
};

function pointOf(points: readonly string[], caller: CallerNumber): string {
  return points[caller] ?? '';
}
