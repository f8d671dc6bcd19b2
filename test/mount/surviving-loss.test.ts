import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { leasePrefix, type PrefixLease, type PrefixLeaseRequest } from '../../src/fs/mount-supervisor.ts';
import { liveRecord, prefixFiles, type MountRecord } from '../../src/fs/run-directory.ts';
import { endProcessesOf } from '../../src/sandbox/processes-linux.ts';
import {
  anna,
  callers,
  createScratchMount,
  mainProgram,
  mountsBelow,
  runAs,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

const HANG_MS = 30_000;
const QUICK_PROBE = { everyMs: 100, deadlineMs: 1_000 };

describe.skipIf(whyNoMounts !== undefined)('a mount under a lease', () => {
  let scratch: ScratchMount;
  let leases: PrefixLease[];
  let processes: CallerProcess[];

  beforeEach(() => {
    scratch = createScratchMount();
    leases = [];
    processes = [];
  });
  afterEach(async () => {
    for (const lease of leases) await lease.close();
    for (const process of processes) process.close();
    expect(mountsBelow(scratch.directory)).toEqual([]);
    await vi.waitFor(() => expect(mountProcesses()).toEqual([]), HANG_MS); // it lets go of its lock, then it ends
    scratch.close();
  });

  async function hold(more: Partial<PrefixLeaseRequest> = {}): Promise<PrefixLease> {
    const { prefix, scoreboard, stateDir } = scratch;
    const lease = await leasePrefix({
      ...{ prefix, scoreboard, stateDir, subdirectory: 'local', program: [process.execPath, mainProgram] },
      endProcesses: async (uids) => {
        for (const uid of uids) await endProcessesOf(uid);
      },
      ...more,
    });
    leases.push(lease);
    return lease;
  }
  function caller(uid: number): CallerProcess {
    const started = startCaller(uid);
    processes.push(started);
    return started;
  }
  const served = () => liveRecord(prefixFiles(join(scratch.stateDir, 'run'), scratch.prefix));
  const see = (uid: number) => runAs(uid, ['cat', join(scratch.prefix, 'who')]).stdout;
  const untilLost = (lease: PrefixLease) =>
    vi.waitFor(() => expect(lease.lost.aborted).toBe(true), { timeout: HANG_MS, interval: 5 });

  /** The mount that serves after the one of `before`. */
  function untilReplaced({ doorsName }: MountRecord): Promise<MountRecord> {
    const look = () => {
      const now = served();
      if (now === undefined || now.doorsName === doorsName) throw new Error('no new mount serves');
      return now;
    };
    return vi.waitFor(look, { timeout: HANG_MS, interval: 5 });
  }
  /** Pids of the processes that serve, or did, the prefix of this test. */
  function mountProcesses(): string[] {
    const { stdout } = runAs(0, ['pgrep', '-f', `mount ${scratch.prefix}`]);
    return stdout.split('\n').filter((pid) => pid !== '');
  }

  it('whose process is killed is replaced at once, and again; no mapped process meets the covered directory', async () => {
    const lease = await hold();
    let before = lease.record;
    for (let round = 0; round < 2; round++) {
      const looker = caller(anna);
      const log = scratch.path(`log-${round}`);
      execFileSync('install', ['-o', String(anna), '/dev/null', log]);
      const script = 'while :; do cat "$0/who" >> "$1" 2>&1; done';
      await looker.call(
        `child_process.spawn('sh', ['-c', ...args], { stdio: 'ignore' })`,
        ...[script, scratch.prefix, log],
      );
      await vi.waitFor(() => expect(readFileSync(log, 'utf8')).toContain('anna'), { timeout: HANG_MS });
      process.kill(before.pid, 'SIGKILL');
      await untilLost(lease);
      before = await untilReplaced(before);
      expect(see(anna)).toBe('anna');
      expect(readFileSync(log, 'utf8')).not.toContain('covered');
      await expect(looker.call('return 1')).rejects.toThrow('ended');
    }
    expect(mountsBelow(scratch.directory)).toEqual([scratch.prefix]);
  });

  it('is replaced by exactly one of its holders, and the others join', async () => {
    let ended = 0;
    const endProcesses = () => {
      ended++;
      return Promise.resolve();
    };
    const first = await Promise.all([1, 2, 3, 4].map(() => hold({ endProcesses })));
    expect(new Set(first.map(({ record }) => record.doorsName)).size).toBe(1);
    process.kill(first[0]?.record.pid ?? 0, 'SIGKILL');
    await Promise.all(first.map(untilLost));
    const second = await Promise.all([1, 2, 3, 4].map(() => hold({ endProcesses })));
    expect(new Set(second.map(({ record }) => record.doorsName)).size).toBe(1);
    expect(ended).toBe(1);
    for (const lease of first) await lease.close();
    expect(see(anna)).toBe('anna');
    expect(second.some(({ lost }) => lost.aborted)).toBe(false);
  });

  it('whose process hangs is found, killed and replaced; who waited for it is not stuck', async () => {
    const lease = await hold({ probe: QUICK_PROBE });
    const waiting = caller(anna);
    const file = join(scratch.prefix, 'lib/new');
    await waiting.call('fs.writeFileSync(args[0], "x")', file);
    process.kill(lease.record.pid, 'SIGSTOP');
    const answer = waiting.call('fs.writeFileSync(args[0] + 2, "y")', file).catch(String);
    await untilLost(lease);
    await untilReplaced(lease.record);
    expect(await answer).toMatch(/ended|ECONNABORTED|ENOTCONN/);
    expect(see(anna)).toBe('anna');
  });

  it('that hung before the lease is replaced too, though it was made by hand', async () => {
    scratch.mount();
    process.kill(scratch.servingPid(), 'SIGSTOP');
    const lease = await hold({ probe: QUICK_PROBE });
    await untilLost(lease);
    await untilReplaced(lease.record);
    expect(see(anna)).toBe('anna');
  });

  it('that hangs when the last lease is given back is taken away', async () => {
    const lease = await hold({ probe: { everyMs: HANG_MS, deadlineMs: 500 } });
    const closed = lease.close();
    process.kill(lease.record.pid, 'SIGSTOP');
    await closed;
    expect(lease.lost.aborted).toBe(false);
    expect(see(anna)).toBe('covered');
  });

  it('that is busy but answers is left alone', async () => {
    const lease = await hold({ probe: { everyMs: 1, deadlineMs: 5_000 } });
    const busy = callers.map((uid) => caller(uid));
    await Promise.all(
      busy.map((one) =>
        one.attempt(
          `for (let i = 0; i < 300; i++) { const f = args[0] + '/lib/' + i; fs.writeFileSync(f, 'x'); fs.unlinkSync(f); }`,
          scratch.prefix,
        ),
      ),
    );
    expect(lease.lost.aborted).toBe(false);
    expect(served()?.doorsName).toBe(lease.record.doorsName);
  });
});
