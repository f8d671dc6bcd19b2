import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  anna,
  bert,
  createScratchMount,
  mountsBelow,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

describe.skipIf(whyNoMounts !== undefined)('unmount of a mount that is in use', () => {
  let scratch: ScratchMount;
  let processes: CallerProcess[];

  beforeEach(() => {
    scratch = createScratchMount();
    copyFileSync('/bin/sleep', scratch.path('anna/local/sleeper'));
    scratch.mount();
    processes = [];
  });
  afterEach(() => {
    for (const process of processes) process.close();
    scratch.close();
  });

  function caller(uid: number): CallerProcess {
    const started = startCaller(uid);
    processes.push(started);
    return started;
  }
  const remedy = () =>
    `obuilder-fs: prefix ${scratch.prefix} is in use; end what holds it, or: obuilder-fs unmount --force ${scratch.prefix}`;
  const refusal = () => {
    const { code, stderr } = scratch.run(['unmount', scratch.prefix]);
    expect(code).toBe(1);
    return stderr.trim().split('\n');
  };

  it.each([
    ['its working directory', 'process.chdir(args[0] + "/lib")', 'node', '/lib'],
    ['an open file', 'fs.openSync(args[0] + "/who")', 'node', '/who'],
    [
      'an open directory',
      'globalThis.kept = fs.opendirSync(args[0] + "/lib"); kept.readSync()',
      'node',
      '/lib',
    ],
  ])('names who holds it by %s: pid, command and path', async (_, body, command, path) => {
    const holder = caller(anna);
    await holder.call(body, scratch.prefix);
    expect(refusal()).toEqual([
      `obuilder-fs: pid ${holder.pid} (${command}) holds ${scratch.prefix}${path}`,
      remedy(),
    ]);
  });

  it('names who runs a program or maps a file of it', async () => {
    const starter = caller(anna);
    const pid = await starter.call(
      `globalThis.child = child_process.spawn(args[0] + '/sleeper', ['1000']); return child.pid;`,
      scratch.prefix,
    );
    expect(refusal()).toEqual([
      `obuilder-fs: pid ${Number(pid)} (sleeper) holds ${scratch.prefix}/sleeper`,
      remedy(),
    ]);
    await starter.call(`child.kill('SIGKILL')`);
    const mapper = caller(anna);
    const map = `import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
kept = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
os.close(fd); os.write(1, b'.'); time.sleep(1000)`;
    const python = await mapper.call(
      `globalThis.child = child_process.spawn('/bin/sh', ['-c', 'exec python3 -c "$0" "$1" > "$2"', ...args], { stdio: 'ignore' });
       while (!fs.existsSync(args[2]) || fs.statSync(args[2]).size === 0);
       return child.pid;`,
      ...[map, join(scratch.prefix, 'who'), join(scratch.path('anna'), 'mapped')],
    );
    // Its mapping of the library that it closed the descriptor of is all that is left.
    expect(refusal()).toContain(`obuilder-fs: pid ${Number(python)} (python3) holds ${scratch.prefix}/who`);
    await mapper.call(`child.kill('SIGKILL')`);
  });

  it('names ten and counts the rest', async () => {
    const holder = caller(bert);
    await holder.call(
      `globalThis.kept = Array.from({ length: 12 }, () => child_process.spawn('sleep', ['1000'], { cwd: args[0] + '/lib' }))`,
      scratch.prefix,
    );
    const lines = refusal();
    expect(lines).toHaveLength(12);
    expect(lines.at(-2)).toBe('obuilder-fs: and 2 more');
    await holder.call(`for (const child of kept) child.kill('SIGKILL')`);
  });

  it('points at a mount below it', () => {
    const below = startCaller(0, (argv) => argv);
    processes.push(below);
    return below
      .call(`child_process.execFileSync('mount', ['-t', 'tmpfs', 'none', args[0] + '/lib'])`, scratch.prefix)
      .then(() => expect(refusal()[0]).toContain('such as a mount below it'));
  });

  it('whose process hangs: still answers who, and --force takes it away', async () => {
    const holder = caller(anna);
    await holder.call('process.chdir(args[0] + "/lib")', scratch.prefix);
    const pid = scratch.servingPid();
    process.kill(pid, 'SIGSTOP');
    expect(refusal()[0]).toBe(`obuilder-fs: pid ${holder.pid} (node) holds ${scratch.prefix}/lib`);
    expect(scratch.run(['unmount', '--force', scratch.prefix])).toMatchObject({ code: 0 });
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(isRunning(pid)).toBe(false);
    scratch.mount();
  });
});

/** A dead process that its parent has not reaped yet runs no more. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return false;
  }
}
