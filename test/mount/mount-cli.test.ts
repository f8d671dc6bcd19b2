import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  anna,
  asUid,
  bert,
  carl,
  createScratchMount,
  dora,
  mainProgram,
  mountsBelow,
  runAs,
  runProgram,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

let scratch: ScratchMount;
/** Ended after each test, however it went. */
let started: { kill(): void }[] = [];

beforeEach(() => {
  scratch = createScratchMount();
});

afterEach(() => {
  for (const one of started) one.kill();
  started = [];
  scratch.close();
});

/** A process that is read line by line, and how it ends. */
interface Watched {
  readonly child: ChildProcess;
  /** What it has said on stdout and stderr. */
  readonly said: { out: string; err: string };
  /** Resolves when stdout or stderr holds `text`; rejects when it ends or stays silent. */
  untilSaid(text: string): Promise<void>;
  /** `exit N` or the signal. */
  readonly ended: Promise<string>;
}

const HANG_MS = 30_000;

function watch(argv: readonly string[]): Watched {
  const [command = '', ...args] = argv;
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], cwd: '/' });
  started.push({ kill: () => child.kill('SIGKILL') });
  const said = { out: '', err: '' };
  child.stdout.on('data', (text: Buffer) => (said.out += text.toString()));
  child.stderr.on('data', (text: Buffer) => (said.err += text.toString()));
  const ended = once(child, 'close').then(([code, signal]) => (signal as string | null) ?? `exit ${code}`);
  const untilSaid = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const fail = (why: string) =>
        reject(new Error(`${why} without saying ${text}: ${said.out}${said.err}`));
      const look = () => {
        if (!`${said.out}${said.err}`.includes(text)) return;
        clearTimeout(guard);
        resolve();
      };
      const guard = setTimeout(() => fail('silent'), HANG_MS);
      child.stdout.on('data', look);
      child.stderr.on('data', look);
      child.on('close', () => fail('ended'));
      look();
    });
  return { child, said, untilSaid, ended };
}

function mountArgv(...options: string[]): string[] {
  return [
    process.execPath,
    mainProgram,
    'mount',
    scratch.prefix,
    `--scoreboard=${scratch.scoreboard}`,
    `--state-dir=${scratch.stateDir}`,
    ...options,
  ];
}

/** A mount in the foreground that answers. */
async function serve(...options: string[]): Promise<Watched> {
  const mount = watch(mountArgv(...options));
  await mount.untilSaid('serving');
  return mount;
}

function caller(uid: number): CallerProcess {
  const process = startCaller(uid);
  started.push({ kill: () => process.close() });
  return process;
}

const see = (uid: number, prefix = scratch.prefix) => runAs(uid, ['cat', join(prefix, 'who')]).stdout;
const shell = (uid: number, script: string) => runProgram(asUid(uid, ['sh', '-c', script]));

interface Status {
  mounts: {
    prefix: string;
    state: string;
    pid?: number;
    entries: { uid: string; tree: string; isUsable: boolean; problem?: string }[];
  }[];
}
/** What is told of this test's own mounts: the machine may have others. */
function mounts(): Status['mounts'] {
  const status = JSON.parse(scratch.run(['status', '--json']).stdout) as Status;
  return status.mounts.filter(({ prefix }) => prefix.startsWith(scratch.directory));
}

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs mount in the foreground', () => {
  it('says one line once it answers', async () => {
    const mount = await serve();
    expect(see(anna)).toBe('anna');
    expect(mount.said).toEqual({
      out: `obuilder-fs: serving ${scratch.prefix} (scoreboard ${scratch.scoreboard}, pid ${mount.child.pid})\n`,
      err: '',
    });
  });

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s unmounts and exits 0', async (signal) => {
    const mount = await serve();
    mount.child.kill(signal);
    expect(await mount.ended).toBe('exit 0');
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(mounts()).toEqual([]);
    expect(mount.said.err).toBe('');
  });

  it.each(['umount', 'umount -f', 'umount -l'])('%s by somebody else ends it with exit 0', async (umount) => {
    const mount = await serve();
    expect(runProgram([...umount.split(' '), scratch.prefix]).code).toBe(0);
    expect(await mount.ended).toBe('exit 0');
    expect(mounts()).toEqual([]);
  });

  it('in use at SIGTERM: hidden at once, mounted anew at once, serves the open file, ends with its last user', async () => {
    const first = await serve();
    const reader = caller(anna);
    await reader.call(`globalThis.kept = fs.openSync(args[0] + '/who')`, scratch.prefix);
    first.child.kill('SIGTERM');
    await first.untilSaid('still in use');
    expect(first.said.err.trim().split('\n')).toHaveLength(1);
    expect(see(anna)).toBe('covered');

    const second = await serve();
    const kept = `const text = Buffer.alloc(9); return text.toString('utf8', 0, fs.readSync(kept, text, 0, 9, 0))`;
    expect(await reader.call(kept)).toBe('anna');
    expect(see(bert)).toBe('bert');

    await reader.call(`fs.closeSync(kept)`);
    expect(await first.ended).toBe('exit 0');
    expect(see(bert)).toBe('bert');
    expect(mounts()).toMatchObject([{ state: 'serving', pid: second.child.pid }]);
  });

  it('a second signal ends a hidden mount at once, and leaves the one that replaced it alone', async () => {
    const first = await serve();
    const reader = caller(anna);
    await reader.call(`globalThis.kept = fs.openSync(args[0] + '/lib')`, scratch.prefix);
    first.child.kill('SIGTERM');
    await first.untilSaid('still in use');
    const second = await serve();
    first.child.kill('SIGTERM');
    expect(await first.ended).toBe('exit 0');
    expect(see(bert)).toBe('bert');
    expect(mounts()).toMatchObject([{ state: 'serving', pid: second.child.pid }]);
  });

  it('started from a directory below the prefix it does not wait for itself', async () => {
    const argv = mountArgv();
    const mount = watch([
      'sh',
      '-c',
      'cd "$1" && shift && exec "$@"',
      'sh',
      join(scratch.prefix, 'lib'),
      ...argv,
    ]);
    await mount.untilSaid('serving');
    expect(see(anna)).toBe('anna');
    mount.child.kill('SIGTERM');
    expect(await mount.ended).toBe('exit 0');
  });
});

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs mount with options', () => {
  it('--daemon returns when the mount answers and tells the pid that serves', () => {
    const answer = scratch.run(['mount', scratch.prefix, `--scoreboard=${scratch.scoreboard}`, '--daemon']);
    expect(see(anna)).toBe('anna');
    expect(answer).toEqual({
      code: 0,
      stdout: `obuilder-fs: serving ${scratch.prefix} (scoreboard ${scratch.scoreboard}, pid ${scratch.servingPid()})\n`,
      stderr: '',
    });
  });

  it('two prefixes, each with its own subdirectory', () => {
    const home = scratch.path('home');
    mkdirSync(home);
    scratch.mount(`${home}=.`);
    expect(see(anna)).toBe('anna');
    expect(runAs(anna, ['ls', home]).stdout).toBe('local\n');
    expect(see(bert, join(home, 'local'))).toBe('bert');
  });

  it('one of two prefixes failing leaves nothing mounted', () => {
    const answer = scratch.run([
      'mount',
      scratch.prefix,
      scratch.path('nope'),
      `--scoreboard=${scratch.scoreboard}`,
      '--daemon',
    ]);
    expect(answer.code).toBe(1);
    expect(answer.stderr).toContain(`prefix ${scratch.path('nope')} does not exist`);
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(mounts()).toEqual([]);
    scratch.mount();
    expect(see(anna)).toBe('anna');
  });

  it('--unmapped shows its directory to uids without an entry', () => {
    const shown = scratch.path('shown');
    mkdirSync(shown);
    writeFileSync(join(shown, 'who'), 'shown');
    scratch.mount(`--unmapped=${shown}`);
    expect([see(anna), see(carl)]).toEqual(['anna', 'shown']);
    expect(scratch.run(['status']).stdout).toContain(`others  see ${shown}`);
  });

  it('--cache=none serves the same content', () => {
    scratch.mount('--cache=none');
    expect([see(anna), see(bert), see(anna), see(carl)]).toEqual(['anna', 'bert', 'anna', 'covered']);
  });

  it('-o ro refuses every change with EROFS', () => {
    scratch.mount('-o', 'ro');
    const script = `touch ${scratch.prefix}/lib/new; rm ${scratch.prefix}/who; mkdir ${scratch.prefix}/d`;
    const lines = shell(anna, script).stderr.trim().split('\n');
    expect(lines).toHaveLength(3);
    for (const line of lines) expect(line).toContain('Read-only file system');
    expect(see(anna)).toBe('anna');
  });

  it('nosuid and nodev are the default, and -o suid,dev takes them away', () => {
    const flags = () => /* of the mount */ mountLine().split(' ')[5]?.split(',') ?? [];
    scratch.mount();
    expect(flags()).toEqual(expect.arrayContaining(['nosuid', 'nodev']));
    scratch.run(['unmount', scratch.prefix]);
    scratch.mount('-o', 'suid,dev');
    expect(flags()).not.toContain('nosuid');
    expect(flags()).not.toContain('nodev');
  });

  it('--map-owner: two uids share one tree as their own, and its files keep their owner', () => {
    scratch.point(bert, scratch.path('anna'));
    scratch.mount('--map-owner');
    for (const uid of [anna, bert]) {
      const made = join(scratch.prefix, 'lib', `by-${uid}`);
      const script = `echo ${uid} > ${made} && echo more >> ${scratch.prefix}/lib/both && stat -c %u ${made} ${scratch.prefix}/who`;
      expect(shell(uid, script)).toEqual({ code: 0, stdout: `${uid}\n${uid}\n`, stderr: '' });
      expect(statSync(scratch.path(`anna/local/lib/by-${uid}`)).uid).toBe(anna);
    }
    expect(readFileSync(scratch.path('anna/local/lib/both'), 'utf8')).toBe('more\nmore\n');
  });

  it.each(['with blanks', 'with,commas', 'ütf-8 ✓', 'with=equals', 'back\\slash'])(
    'a path "%s" as prefix and scoreboard',
    (name) => {
      const [prefix, scoreboard] = [scratch.path(`${name}.p`), scratch.path(`${name}.s`)];
      mkdirSync(prefix);
      runProgram(['cp', '-a', scratch.scoreboard, scoreboard]);
      const args = ['mount', `${prefix}=local`, '--scoreboard', scoreboard, '--daemon'];
      expect(scratch.run(args)).toMatchObject({ code: 0, stderr: '' });
      expect([see(anna, prefix), see(bert, prefix)]).toEqual(['anna', 'bert']);
      expect(mounts()).toMatchObject([{ prefix, scoreboard, state: 'serving' }]);
      expect(scratch.run(['unmount', prefix])).toMatchObject({ code: 0, stderr: '' });
      expect(mountsBelow(scratch.directory)).toEqual([]);
    },
  );
});

function mountLine(): string {
  return (
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .findLast((line) => line.split(' ')[4] === scratch.prefix) ?? ''
  );
}

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs unmount', () => {
  it('takes an idle mount away and waits for its process', () => {
    scratch.mount();
    const pid = scratch.servingPid();
    expect(scratch.run(['unmount', scratch.prefix])).toEqual({
      code: 0,
      stdout: `obuilder-fs: ${scratch.prefix} is unmounted\n`,
      stderr: '',
    });
    expect(see(anna)).toBe('covered');
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(mounts()).toEqual([]);
    scratch.mount();
    expect(scratch.servingPid()).not.toBe(pid);
  });

  it('refuses a busy mount with the remedy, and --force takes it', async () => {
    scratch.mount();
    const reader = caller(anna);
    await reader.call(`globalThis.kept = fs.openSync(args[0] + '/lib')`, scratch.prefix);
    const refused = scratch.run(['unmount', scratch.prefix]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toBe(
      `obuilder-fs: pid ${reader.pid} (node) holds ${scratch.prefix}/lib\n` +
        `obuilder-fs: prefix ${scratch.prefix} is in use; end what holds it, or: obuilder-fs unmount --force ${scratch.prefix}\n`,
    );
    expect(see(anna)).toBe('anna');
    expect(scratch.run(['unmount', '--force', scratch.prefix]).code).toBe(0);
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(await reader.attempt(`return fs.readdirSync('/proc/self/fd/' + kept)`)).toBe('ENOTCONN');
  });

  it('takes away what a killed mount process left; until then callers get errors, never the covered directory', async () => {
    const mount = await serve();
    mount.child.kill('SIGKILL');
    await mount.ended;
    expect(runAs(anna, ['cat', join(scratch.prefix, 'who')])).toMatchObject({ code: 1, stdout: '' });
    expect(mounts()).toMatchObject([{ prefix: scratch.prefix, state: 'dead' }]);
    expect(scratch.run(['status']).stdout).toContain(`${scratch.prefix}: dead: its process is gone`);
    expect(scratch.run(['unmount', scratch.prefix])).toMatchObject({ code: 0, stderr: '' });
    expect(see(anna)).toBe('covered');
    expect(mounts()).toEqual([]);
    scratch.mount();
    expect(see(anna)).toBe('anna');
  });
});

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs status', () => {
  it('says that nothing is mounted', () => {
    const withoutOthers = [
      'unshare',
      '--mount',
      'sh',
      '-c',
      'umount -al -t fuse.obuilder-fs; exec "$@"',
      'sh',
    ];
    const status = [process.execPath, mainProgram, 'status', `--state-dir=${scratch.stateDir}`];
    expect(runProgram([...withoutOthers, ...status])).toMatchObject({
      code: 0,
      stdout: 'nothing is mounted\n',
    });
  });

  it('tells for every entry what it sees, or why it cannot be used', () => {
    scratch.mount();
    scratch.point(7735, '../anna');
    scratch.point('default', scratch.path('bert'));
    const [mount] = mounts();
    expect(mount).toMatchObject({ prefix: scratch.prefix, state: 'serving' });
    const entries = new Map(mount?.entries.map((entry) => [entry.uid, entry]));
    expect(entries.get(String(anna))).toMatchObject({ isUsable: true, tree: scratch.path('anna/local') });
    expect(entries.get('default')).toMatchObject({ isUsable: true, tree: scratch.path('bert/local') });
    expect(entries.get(String(dora))).toMatchObject({
      isUsable: false,
      problem: expect.stringContaining('nowhere') as string,
    });
    expect(entries.get('7735')).toMatchObject({
      isUsable: false,
      problem: expect.stringContaining('relative') as string,
    });
    const text = scratch.run(['status']).stdout;
    expect(text).toContain(`${anna}    sees ${scratch.path('anna/local')}`);
    expect(text).toContain(`${dora}    gets EACCES: /nowhere — the link leads nowhere`);
  });
});

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs scoreboard', () => {
  const board = (...args: string[]) =>
    runProgram([process.execPath, mainProgram, 'scoreboard', ...args, `--scoreboard=${scratch.scoreboard}`]);

  it('set and clear change what the next path walk sees', () => {
    scratch.mount();
    expect(see(carl)).toBe('covered');
    expect(board('set', String(carl), scratch.path('bert'))).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(see(carl)).toBe('bert');
    expect(board('clear', String(carl))).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(see(carl)).toBe('covered');
    expect(board('clear', String(carl))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('has no entry') as string,
    });
  });

  it('set warns where the entry cannot be used', () => {
    const answer = board('set', String(carl), '/nowhere');
    expect(answer).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('the link leads nowhere') as string,
    });
  });

  it('list tells the entries and their problems, as text and as JSON', () => {
    const { stdout } = board('list');
    expect(stdout).toContain(`${anna} -> ${scratch.path('anna')}\n`);
    expect(stdout).toMatch(new RegExp(`^${dora} -> /nowhere {2}\\(.*nowhere.*\\)$`, 'm'));
    const { entries } = JSON.parse(board('list', '--json').stdout) as { entries: { name: string }[] };
    expect(entries.map(({ name }) => name).sort()).toEqual([anna, bert, dora].map(String));
  });
});

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs exec', () => {
  const exec = (...command: string[]) => ['exec', `--uid=${anna}`, scratch.prefix, '--', ...command];

  it('answers the exit code of the command, and 128 + N for signal N', () => {
    scratch.mount();
    expect(scratch.run(exec('sh', '-c', 'exit 7')).code).toBe(7);
    expect(scratch.run(exec('sh', '-c', 'kill -KILL $$')).code).toBe(137);
    expect(scratch.run(exec('sh', '-c', 'kill -TERM $$')).code).toBe(143);
    expect(scratch.run(exec('id', '-u')).stdout).toBe(`${anna}\n`);
  });

  it('hands SIGTERM on to the command', async () => {
    scratch.mount();
    const script = `trap 'kill $!; exit 9' TERM; sleep 1000 > /dev/null 2>&1 & echo up; wait`;
    const [command = '', ...args] = exec('sh', '-c', script);
    const running = watch([
      process.execPath,
      mainProgram,
      command,
      `--state-dir=${scratch.stateDir}`,
      ...args,
    ]);
    await running.untilSaid('up');
    running.child.kill('SIGTERM');
    expect(await running.ended).toBe('exit 9');
  });

  it('a broken entry gets EACCES in both modes', () => {
    scratch.mount();
    for (const mode of ['tree', 'shared']) {
      const args = [`--uid=${dora}`, `--prefix-mode=${mode}`, scratch.prefix, '--', 'ls', scratch.prefix];
      expect(scratch.run(['exec', ...args]).stderr).toContain('Permission denied');
    }
  });
});

describe.skipIf(whyNoMounts !== undefined)('a leased mount', () => {
  const supervisor = join(dirname(mainProgram), '../fs/mount-supervisor.js');
  const HOLDER = `
    const { leasePrefix } = await import(process.argv[1]);
    const [prefix, scoreboard, stateDir, main] = process.argv.slice(2);
    try {
      const lease = await leasePrefix({ prefix, subdirectory: 'local', scoreboard, stateDir,
        program: [process.execPath, main],
        endProcesses: async (uids) => console.log('ends ' + uids.join()) });
      lease.lost.addEventListener('abort', () => console.log('lost'));
      process.stdin.once('data', () => lease.close().then(() => { console.log('closed'); process.exit(0); }));
      console.log('holds ' + lease.record.pid);
    } catch (error) {
      console.log(error.code + ' ' + error.message);
      process.exit(1);
    }`;

  function startHolder(scoreboard = scratch.scoreboard): Watched {
    const args = [supervisor, scratch.prefix, scoreboard, scratch.stateDir, mainProgram];
    return watch([process.execPath, '--input-type=module', '-e', HOLDER, '--', ...args]);
  }
  async function hold(): Promise<Watched> {
    const holder = startHolder();
    await holder.untilSaid('holds');
    return holder;
  }
  const pidOf = ({ said }: Watched) => Number(/holds (\d+)/.exec(said.out)?.[1]);
  const giveBack = (holder: Watched) => holder.child.stdin?.write('\n');

  it('is shared by its holders, and the last one out unmounts', async () => {
    const [first, second] = [await hold(), await hold()];
    expect(pidOf(second)).toBe(pidOf(first));
    giveBack(first);
    expect(await first.ended).toBe('exit 0');
    expect(see(anna)).toBe('anna');
    giveBack(second);
    expect(await second.ended).toBe('exit 0');
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(mounts()).toEqual([]);
    expect([first, second].map(({ said }) => said.out)).not.toContainEqual(expect.stringContaining('lost'));
  });

  it('ends by itself when every holder was killed', async () => {
    const [first, second] = [await hold(), await hold()];
    const gone = untilGone(pidOf(first));
    first.child.kill('SIGKILL');
    await first.ended;
    expect(see(anna)).toBe('anna');
    second.child.kill('SIGKILL');
    await gone;
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(mounts()).toEqual([]);
  });

  it('tells its holders when its process is killed; one of them ends mapped processes, clears it and mounts anew', async () => {
    const first = await hold();
    process.kill(pidOf(first), 'SIGKILL');
    await first.untilSaid('lost');
    const second = await hold();
    expect(first.said.out + second.said.out).toContain(`ends ${anna},${bert},${dora}`);
    expect(pidOf(second)).not.toBe(pidOf(first));
    expect(see(anna)).toBe('anna');
    expect(mountsBelow(scratch.directory)).toHaveLength(1);
  });

  it('refuses another scoreboard and names the one that is served', async () => {
    await hold();
    const other = scratch.path('other');
    mkdirSync(other, { mode: 0o755 });
    const refused = startHolder(other);
    expect(await refused.ended).toBe('exit 1');
    expect(refused.said.out).toContain(`PREFIX_BUSY prefix ${scratch.prefix} is already mounted`);
    expect(refused.said.out).toContain(scratch.scoreboard);
  });

  it('joins a mount that somebody made by hand, and leaves it mounted', async () => {
    scratch.mount();
    const holder = await hold();
    expect(pidOf(holder)).toBe(scratch.servingPid());
    giveBack(holder);
    expect(await holder.ended).toBe('exit 0');
    expect(see(anna)).toBe('anna');
  });

  /** Follows a process that is no child of ours, by tail's wait for it. */
  async function untilGone(pid: number): Promise<void> {
    const follower = watch(['tail', '-f', '/dev/null', `--pid=${pid}`, '-s', '0.05']);
    await follower.ended;
  }
});
