import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { hasIoUring, setIoUring } from '../../scripts/bench/fs/io-uring.ts';
import {
  anna,
  asUid,
  bert,
  createScratchMount,
  mountsBelow,
  runAs,
  whyNoMounts,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

const CUT_OFF = /not connected|abort|canceled/i;
const untilSo = { timeout: 60_000, interval: 20 };

/** The POSIX suite, its models and the isolation stress meet it, too. */
describe.skipIf(whyNoMounts !== undefined || !hasIoUring())('requests by io_uring', () => {
  let scratch: ScratchMount;
  let running: ChildProcess[];

  beforeEach(() => {
    scratch = createScratchMount();
    running = [];
  });
  afterEach(() => {
    for (const child of running) child.kill('SIGKILL');
    scratch.close();
  });

  function mount(byIoUring: boolean, ...options: string[]): number {
    const ioUring = setIoUring(byIoUring);
    try {
      scratch.mount(...options);
    } finally {
      ioUring.setBack();
    }
    return scratch.servingPid();
  }

  /** Of the mount process: those that each serve the requests of one CPU. */
  function cpuThreads(pid: number): string[] {
    const names = readdirSync(`/proc/${pid}/task`).map((task) =>
      readFileSync(`/proc/${pid}/task/${task}/comm`, 'latin1').trim(),
    );
    return names.filter((name) => name.startsWith('fuse-cpu-'));
  }

  function start(uid: number, script: string): ChildProcess {
    const [command = '', ...args] = asUid(uid, ['/bin/sh', '-c', script, 'sh', scratch.prefix]);
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    running.push(child);
    return child;
  }

  async function answerOf(child: ChildProcess): Promise<string> {
    const { stdout, stderr } = child;
    if (stdout === null || stderr === null) throw new Error('BUG: not piped');
    const [said, complained] = await Promise.all([text(stdout), text(stderr), once(child, 'close')]);
    return said + complained;
  }

  it('come so where root has turned it on, and by the device where not', () => {
    const byDevice = mount(false);
    expect(cpuThreads(byDevice)).toEqual([]);
    expect(scratch.run(['unmount', scratch.prefix])).toMatchObject({ code: 0 });
    const byIoUring = mount(true);
    const online = readdirSync('/sys/devices/system/cpu').filter((name) => /^cpu\d+$/.test(name));
    expect(new Set(cpuThreads(byIoUring))).toEqual(
      new Set(online.map((cpu) => cpu.replace('cpu', 'fuse-cpu-'))),
    );
    expect(runAs(anna, ['cat', join(scratch.prefix, 'who')])).toMatchObject({ stdout: 'anna' });
    expect(runAs(bert, ['cat', join(scratch.prefix, 'who')])).toMatchObject({ stdout: 'bert' });
  });

  it('of many more callers than there are threads each get their own answers', async () => {
    mount(true, '--cache=none');
    const script =
      'for i in $(seq 50); do cat "$1/who"; echo $i >"$1/lib/$$"; cat "$1/lib/$$"; rm "$1/lib/$$"; done';
    const uids = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? anna : bert));
    const answers = await Promise.all(uids.map((uid) => answerOf(start(uid, script))));
    const expected = (who: string) => Array.from({ length: 50 }, (_, i) => `${who}${i + 1}\n`).join('');
    expect(answers).toEqual(uids.map((uid) => expected(uid === anna ? 'anna' : 'bert')));
  });

  it('as large as the kernel makes them keep every byte', () => {
    mount(true, '-o', 'suid'); // the kernel then reads and writes nothing by itself
    const content = Buffer.alloc(8 << 20, 'the quick brown fox jumps over the lazy dog, ');
    writeFileSync(scratch.path('anna/local/large'), content, { mode: 0o644 });
    const [from, to] = [join(scratch.prefix, 'large'), join(scratch.prefix, 'lib/copy')];
    expect(runAs(anna, ['dd', 'bs=8M', `if=${from}`, `of=${to}`, 'status=none'])).toMatchObject({
      code: 0,
      stderr: '',
    });
    expect(readFileSync(scratch.path('anna/local/lib/copy')).equals(content)).toBe(true);
    expect(runAs(anna, ['cmp', from, to])).toMatchObject({ code: 0 });
  });

  it('that are under way when the mount process is killed fail, and those after them', async () => {
    const pid = mount(true, '--cache=none');
    const loops = [anna, bert, anna, bert].map((uid) =>
      answerOf(start(uid, 'cd "$1" && echo in && while stat who >/dev/null; do :; done')),
    );
    await vi.waitFor(
      () => expect(scratch.run(['status', '--json']).stdout).toMatch(/"operations": \d{3}/),
      untilSo,
    );
    process.kill(pid, 'SIGKILL');
    for (const said of await Promise.all(loops)) expect(said).toMatch(CUT_OFF);
    expect(runAs(anna, ['stat', join(scratch.prefix, 'who')]).stderr).toMatch(/not connected/);
  });

  it('that nobody answers fail when the mount is taken away by force', async () => {
    const pid = mount(true, '--cache=none');
    process.kill(pid, 'SIGSTOP');
    onTestFinished(() => signal(pid, 'SIGKILL'));
    const waiting = [anna, bert].map((uid) => answerOf(start(uid, 'exec stat "$1/who"')));
    await vi.waitFor(() => {
      const blocked = running.filter((child) => /^\d+ \(stat\) [SD]/.test(readStat(child.pid)));
      expect(blocked).toHaveLength(2);
    }, untilSo);
    expect(scratch.run(['unmount', '--force', scratch.prefix])).toMatchObject({ code: 0 });
    for (const said of await Promise.all(waiting)) expect(said).toMatch(CUT_OFF);
    expect(mountsBelow(scratch.directory)).toEqual([]);
  });

  it('are served to the last when the mount is taken away, and then the mount process is gone', async () => {
    const pid = mount(true);
    const holder = start(anna, 'exec 3<"$1/who"; echo in; exec sleep 600');
    await once(holder.stdout ?? holder, 'data');
    expect(scratch.run(['unmount', scratch.prefix]).code).not.toBe(0);
    holder.kill('SIGKILL');
    await once(holder, 'close');
    expect(scratch.run(['unmount', scratch.prefix])).toMatchObject({ code: 0 });
    await vi.waitFor(() => expect(existsSync(`/proc/${pid}`)).toBe(false), untilSo);
  });
});

/** It may be gone already. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    expect(error).toMatchObject({ code: 'ESRCH' });
  }
}

function readStat(pid: number | undefined): string {
  return pid === undefined ? '' : readFileSync(`/proc/${pid}/stat`, 'latin1');
}
