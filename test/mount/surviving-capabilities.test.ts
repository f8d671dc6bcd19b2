import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { leasePrefix } from '../../src/fs/mount-supervisor.ts';
import {
  createScratchMount,
  mainProgram,
  runAs,
  whyNoMounts,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

/** CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SYS_ADMIN, MKNOD, SETFCAP: see capabilities(7). */
const NEEDED = [0, 1, 2, 3, 4, 6, 7, 21, 27, 31].reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);

describe.skipIf(whyNoMounts !== undefined)('the mount process', () => {
  let scratch: ScratchMount;

  beforeEach(() => {
    scratch = createScratchMount();
  });
  afterEach(() => scratch.close());

  /** Per thread, what it may do and what it could ever do. */
  function capabilities(pid: number): { effective: bigint; bounding: bigint; name: string }[] {
    return readdirSync(`/proc/${pid}/task`).map((thread) => {
      const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1');
      const field = (name: string) => new RegExp(`^${name}:\\t(.*)$`, 'm').exec(status)?.[1] ?? '';
      const mask = (name: string) => BigInt(`0x${field(name)}`);
      return { name: field('Name'), effective: mask('CapEff'), bounding: mask('CapBnd') };
    });
  }
  function expectNarrow(pid: number): void {
    const threads = capabilities(pid);
    expect(threads.length).toBeGreaterThan(5);
    const tooWide = threads.filter(({ effective, bounding }) => ((effective | bounding) & ~NEEDED) !== 0n);
    expect(tooWide).toEqual([]);
  }

  it('in the background has no capability that it does not need, in any thread', () => {
    scratch.mount();
    runAs(0, ['ls', scratch.prefix]);
    expectNarrow(scratch.servingPid());
  });

  it('in the foreground has none in the threads that serve requests', async () => {
    const { prefix, scoreboard, stateDir } = scratch;
    const args = ['mount', prefix, `--scoreboard=${scoreboard}`, `--state-dir=${stateDir}`];
    const mount = spawn(process.execPath, [mainProgram, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(mount.stdout, 'data');
      const threads = capabilities(mount.pid ?? 0);
      const narrow = threads.filter(({ effective, bounding }) => ((effective | bounding) & ~NEEDED) === 0n);
      // The main thread and those of libfuse; Node's own helpers, which answer no request, were there before.
      expect(narrow.length).toBeGreaterThan(1);
      expect(capabilities(mount.pid ?? 0)[0]).toEqual(narrow[0]);
    } finally {
      mount.kill('SIGTERM');
      await once(mount, 'exit');
    }
  });

  it('of a build has none either, and what it starts has none', async () => {
    const { prefix, scoreboard, stateDir } = scratch;
    const lease = await leasePrefix({
      ...{ prefix, scoreboard, stateDir, subdirectory: 'local', program: [process.execPath, mainProgram] },
      endProcesses: () => Promise.resolve(),
    });
    try {
      expectNarrow(lease.record.pid);
    } finally {
      await lease.close();
    }
  });

  it('can still do all that a tree needs: root’s chown, device nodes, file capabilities and trusted attributes', () => {
    scratch.point(0, scratch.path('anna'));
    scratch.mount('-o', 'dev,suid');
    const script = `set -e; cd "$0/lib"
      echo x > owned; chown 1234:1234 owned; chmod 000 owned; cat owned
      mknod null c 1 3; echo x > null
      cp /bin/true true; setcap cap_net_raw+ep true; getcap true
      setfattr -n trusted.note -v 1 true; getfattr --only-values -n trusted.note true`;
    const answer = runAs(0, ['sh', '-c', script, scratch.prefix]);
    expect(answer.stderr).toBe('');
    expect(answer).toMatchObject({ code: 0, stdout: 'x\ntrue cap_net_raw=ep\n1' });
    expect(readFileSync(join(scratch.path('anna'), 'local/lib/owned'), 'utf8')).toBe('x\n');
  });
});
