import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile, chmod, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createLinuxSystem } from '../../src/sandbox/linux-system.ts';
import { processesOf } from '../../src/sandbox/processes-linux.ts';
import type { Sandbox, StepCommand } from '../../src/sandbox/sandbox.ts';
import { createUserSandbox, type UserSandboxOptions } from '../../src/sandbox/user-sandbox.ts';
import { createScratchMount } from '../helpers/scratch-mount.ts';
import { mountsWith, removeTestUsers, whyNoTestUsers } from '../helpers/test-users.ts';

const uid = 7710;
const otherUid = 7711;

/** A directory that build users may pass through, as they may /home. */
let directory: string;
let rootfs: string;
let homePath: string;
let prefix: string;
let sandbox: Sandbox;

function sandboxOf(options: Partial<UserSandboxOptions> = {}): Sandbox {
  return createUserSandbox({
    system: createLinuxSystem({ homePath }),
    uids: [uid],
    homePath,
    prefix,
    prefixMode: 'none',
    stateDir: join(directory, 'state'),
    ...options,
  });
}

async function newRootfs(name: string, of: Sandbox = sandbox): Promise<string> {
  const tree = join(directory, 'store', name, 'rootfs');
  await mkdir(join(tree, 'local'), { recursive: true });
  await chmod(join(directory, 'store'), 0o700);
  await writeFile(join(tree, '.obuilder_profile.sh'), 'export FROM_PROFILE=yes; set -- lost; false\n');
  await of.adopt(tree);
  return tree;
}

function shell(script: string, more: Partial<StepCommand> = {}): StepCommand {
  const argv = ['/usr/bin/env', 'bash', '-c', script];
  return { argv, cwd: homePath, env: [], network: [], secrets: [], caches: [], ...more };
}

/** Runs a step and answers its outcome with everything that it printed. */
async function run(
  command: StepCommand,
  options: { on?: Sandbox; tree?: string; signal?: AbortSignal } = {},
) {
  const chunks: Uint8Array[] = [];
  const signal = options.signal ?? new AbortController().signal;
  const outcome = await (options.on ?? sandbox).run(
    command,
    options.tree ?? rootfs,
    (chunk) => chunks.push(chunk),
    signal,
  );
  return { outcome, output: Buffer.concat(chunks).toString() };
}

/** Cancels the steps of a test that failed half-way. */
let started: AbortController[] = [];

/** Starts a step and resolves `said` once it has printed `word`. */
function start(command: StepCommand, word: string, options: { on?: Sandbox; tree?: string } = {}) {
  const cancel = new AbortController();
  started.push(cancel);
  let output = '';
  let outcome: Promise<unknown> | undefined;
  const said = new Promise<void>((resolve, reject) => {
    outcome = (options.on ?? sandbox).run(
      command,
      options.tree ?? rootfs,
      (chunk) => {
        output += Buffer.from(chunk).toString();
        if (output.includes(word)) resolve();
      },
      cancel.signal,
    );
    outcome.then(() => reject(new Error(`ended without saying "${word}": ${output}`)), reject);
  });
  said.catch(() => undefined);
  return { said, cancel, outcome: outcome as ReturnType<Sandbox['run']> };
}

describe.skipIf(whyNoTestUsers !== undefined)('steps as a real build user', () => {
  beforeAll(async () => {
    await removeTestUsers();
    directory = await mkdtemp('/var/tmp/obuilder-fs-sandbox-');
    await chmod(directory, 0o755);
    homePath = join(directory, 'home');
    prefix = join(directory, 'prefix');
    await mkdir(prefix);
  });
  afterAll(async () => {
    await removeTestUsers();
    await rm(directory, { recursive: true, force: true });
  });
  beforeEach(async () => {
    sandbox = sandboxOf();
    rootfs = await newRootfs('one');
  });
  afterEach(async () => {
    for (const step of started) step.abort();
    started = [];
    await sandbox.close();
    expect(await processesOf(uid)).toEqual([]);
    expect(await readdir(homePath)).toEqual([]);
    expect(mountsWith(directory)).toEqual([]);
    await rm(join(directory, 'store'), { recursive: true, force: true });
  });

  test('mounts of others come and go while steps begin', async () => {
    const script = `cd "$1" || exit
      trap 'umount -l come-*; rmdir come-*' EXIT
      for ((i = 0; ; i = (i + 1) % 20)); do
        if [ -d "come-$i" ]; then umount -l "come-$i" && rmdir "come-$i"; fi
        mkdir "come-$i" && mount -t tmpfs none "come-$i" || exit
        [ "$i" != 19 ] || echo round
      done`;
    const others = spawn('bash', ['-c', script, 'others', directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(others.stdout, 'data');
    try {
      for (let i = 0; i < 4; i++) expect((await run(shell('true'))).outcome).toEqual({ status: 'ok' });
    } finally {
      others.kill();
      await once(others, 'exit');
    }
  });

  test('another prefix can be unmounted while a step runs, and its mount process ends', async () => {
    const other = createScratchMount();
    other.mount();
    const step = start(shell('echo working; sleep 1000'), 'working');
    await step.said;
    expect(other.run(['unmount', other.prefix])).toMatchObject({ code: 0 });
    step.cancel.abort();
    await step.outcome;
    other.close();
  });

  test('a step is the build user, in its home, in a login of its own', async () => {
    const { outcome, output } = await run(
      shell('id -u; id -G; pwd; echo $HOME $USER $FROM_PROFILE; umask; echo $PATH'),
    );
    expect(output).toBe(
      `${uid}\n${uid}\n${homePath}\n${homePath} mac${uid} yes\n0022\n/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games\n`,
    );
    expect(outcome).toEqual({ status: 'ok' });
  });

  test('what a step writes in its home is in the tree, owned by the build user', async () => {
    await run(shell('mkdir d && echo hi >d/file'));
    expect(await readFile(join(rootfs, 'd/file'), 'utf8')).toBe('hi\n');
    expect((await stat(join(rootfs, 'd/file'))).uid).toBe(uid);
  });

  test('nothing of the operator is in the environment', async () => {
    process.env['OPERATORS_OWN'] = 'secret';
    const { output } = await run(shell('env'));
    delete process.env['OPERATORS_OWN'];
    expect(output).not.toContain('OPERATORS_OWN');
  });

  test.each([
    ['exit 3', 'failed with exit status 3'],
    ['exit 137', 'failed with exit status 137'],
    ['kill -KILL $$', 'failed with signal SIGKILL'],
    ['kill -SEGV $$', 'failed with signal SIGSEGV'],
    ['exec /nonexistent 2>/dev/null', 'failed with exit status 127'],
  ])('%s: %s', async (script, how) => {
    const { outcome, output } = await run(shell(script));
    expect(outcome).toEqual({ status: 'failed', message: `"/usr/bin/env" "bash" "-c" "${script}" ${how}` });
    expect(output).toBe('');
  });

  test('values and arguments arrive byte for byte, whatever is in them', async () => {
    const hostile = `a\nb'"\`$(id)\\ $HOME =;&|*?!~ -- é\t`;
    const { output } = await run({
      ...shell(''),
      argv: ['/usr/bin/printf', '%s|', hostile, '', '-n', '$0'],
      env: [['HOSTILE', hostile]],
    });
    expect(output).toBe(`${hostile}||-n|$0|`);
    expect((await run(shell('printf %s "$HOSTILE"', { env: [['HOSTILE', hostile]] }))).output).toBe(hostile);
  });

  test('an environment variable of the spec wins over the profile and over TMPDIR', async () => {
    const env = [
      ['FROM_PROFILE', 'spec'],
      ['TMPDIR', '/x'],
    ] as const;
    expect((await run(shell('echo $FROM_PROFILE $TMPDIR', { env }))).output).toBe('spec /x\n');
  });

  test('an argument that no kernel takes fails the step', async () => {
    const long = await run(shell(`: ${'x'.repeat(200_000)}`));
    expect(long.outcome).toMatchObject({ status: 'failed' });
    expect(JSON.stringify(long.outcome)).toContain('longer than the kernel takes');
    const nul = await run(shell('echo \0'));
    expect(JSON.stringify(nul.outcome)).toContain('an argument holds a NUL byte');
  });

  test('standard input is at its end', async () => {
    expect((await run(shell('cat; echo end $?'))).output).toBe('end 0\n');
  });

  test('standard input is fed from a stream, and not to the profile', async () => {
    await writeFile(join(rootfs, '.obuilder_profile.sh'), 'cat >/dev/null');
    const stdin = Readable.from([Buffer.from('one\n'), Buffer.alloc(300_000, 'x')]);
    expect((await run(shell('wc -c', { stdin }))).output.trim()).toBe('300004');
  });

  test('a step may leave its input unread', async () => {
    const stdin = Readable.from([Buffer.alloc(1_000_000)]);
    expect((await run(shell('exit 0', { stdin }))).outcome).toEqual({ status: 'ok' });
  });

  test('input that breaks off is no success', async () => {
    const stdin = new Readable({
      read() {
        this.destroy(new Error('the source file is gone'));
      },
    });
    await expect(run(shell('cat', { stdin }))).rejects.toThrow('the source file is gone');
  });

  test('input that broke off while the step waited is no success, and what waits in vain is let go', async () => {
    const first = start(shell('echo working; sleep 1000'), 'working');
    await first.said;
    const broken = new Readable({ read: () => undefined });
    const second = run(shell('cat', { stdin: broken }));
    const unread = new Readable({ read: () => undefined });
    const third = run(shell('cat', { stdin: unread }), { signal: AbortSignal.abort() });
    broken.destroy(new Error('the source file is gone'));
    await once(broken, 'error');
    expect((await third).outcome).toEqual({ status: 'cancelled' });
    expect(unread.destroyed).toBe(true);
    first.cancel.abort();
    await expect(second).rejects.toThrow('the source file is gone');
  });

  test('both streams keep their order and can be opened again by name', async () => {
    const script =
      'for i in 1 2 3; do echo out$i; echo err$i >&2; done; echo again >/dev/stderr; echo more >/dev/stdout';
    expect((await run(shell(script))).output).toBe('out1\nerr1\nout2\nerr2\nout3\nerr3\nagain\nmore\n');
  });

  test('output is heard while the step runs', async () => {
    const step = start(shell('echo working; sleep 1000'), 'working');
    await step.said;
    step.cancel.abort();
    expect(await step.outcome).toEqual({ status: 'cancelled' });
  });

  test('a missing working directory is made, with its parents, as the build user', async () => {
    const { output } = await run(shell('pwd', { cwd: join(homePath, 'a/b c') }));
    expect(output).toBe(`${homePath}/a/b c\n`);
    expect(await stat(join(rootfs, 'a'))).toMatchObject({ uid, mode: 0o40755 });
  });

  test('daemons do not outlive their step', async () => {
    const daemon = `(setsid bash -c 'trap "" TERM HUP; (sleep 1000 & sleep 1000)' >/dev/null 2>&1 &) & echo started`;
    expect((await run(shell(daemon))).outcome).toEqual({ status: 'ok' });
  });

  test('a daemon that keeps the output open does not hold the step up', async () => {
    expect((await run(shell('setsid sleep 1000 & echo started'))).output).toBe('started\n');
  });

  test('a step that forks without end is ended', async () => {
    const bomb = 'ulimit -u 300; bomb() { bomb & bomb & wait; }; echo boom; bomb 2>/dev/null';
    const step = start(shell(bomb), 'boom');
    await step.said;
    step.cancel.abort();
    expect(await step.outcome).toEqual({ status: 'cancelled' });
  });

  test('a step that stops and kills what comes near it is ended', async () => {
    const script = 'echo go; trap "" STOP; while :; do kill -STOP -1 2>/dev/null; done';
    const step = start(shell(script), 'go');
    await step.said;
    step.cancel.abort();
    expect(await step.outcome).toEqual({ status: 'cancelled' });
  });

  test('a step that was cancelled before it began does not run', async () => {
    const { outcome } = await run(shell('touch ran'), { signal: AbortSignal.abort() });
    expect(outcome).toEqual({ status: 'cancelled' });
    expect(await readdir(rootfs)).not.toContain('ran');
  });

  test('steps of one user run one at a time, in order; one that waits can be cancelled', async () => {
    const first = start(
      shell('echo working; while [ ! -e go ]; do sleep 0.01; done; touch first'),
      'working',
    );
    await first.said;
    const second = start(shell('ls first'), 'first');
    const third = start(shell('echo never'), 'never');
    third.cancel.abort();
    expect(await third.outcome).toEqual({ status: 'cancelled' });
    await writeFile(join(rootfs, 'go'), '');
    expect(await Promise.all([first.outcome, second.outcome])).toEqual([{ status: 'ok' }, { status: 'ok' }]);
  });

  test('another sandbox with the same uid and state waits for its turn', async () => {
    const other = sandboxOf();
    const first = start(
      shell('echo working; while [ ! -e go ]; do sleep 0.01; done; touch first'),
      'working',
    );
    await first.said;
    const second = start(shell('ls first'), 'first', { on: other });
    await writeFile(join(rootfs, 'go'), '');
    expect(await Promise.all([first.outcome, second.outcome])).toEqual([{ status: 'ok' }, { status: 'ok' }]);
    await other.close();
  });

  test('TMPDIR is private, empty at first and gone afterwards', async () => {
    const seen = `stat -c '%a %u' $TMPDIR; ls -A $TMPDIR; touch $TMPDIR/x $(mktemp)`;
    expect((await run(shell(seen))).output).toBe(`700 ${uid}\n`);
    expect((await run(shell(seen))).output).toBe(`700 ${uid}\n`);
    expect(await readdir(`${homePath}.tmp`)).toEqual([]);
    expect(await readdir(join(directory, 'state'))).not.toContain(`tmp-${uid}`);
  });

  test('bind mode shows the local of the tree at the prefix, to the step alone', async () => {
    const bound = sandboxOf({ prefixMode: 'bind' });
    const { outcome } = await run(shell(`echo hi >${prefix}/made`), { on: bound });
    expect(outcome).toEqual({ status: 'ok' });
    expect(await readFile(join(rootfs, 'local/made'), 'utf8')).toBe('hi\n');
    expect(await readdir(prefix)).toEqual([]);
    await bound.close();
  });

  test.each([
    ['missing', 'rm -r local'],
    ['a link', 'rm -r local; ln -s /etc local'],
  ])('bind mode closes the prefix to a step whose local is %s', async (_, breakIt) => {
    const bound = sandboxOf({ prefixMode: 'bind' });
    await run(shell(breakIt), { on: bound });
    const { output } = await run(shell(`ls ${prefix}/passwd 2>&1`), { on: bound });
    expect(output).toContain('Permission denied');
    await bound.close();
  });

  describe('caches', () => {
    async function cacheDirectory(): Promise<string> {
      const cache = join(directory, 'store', 'cache');
      await mkdir(cache);
      await sandbox.adopt(cache);
      return cache;
    }

    test('a cache is seen at its target, and leaves an empty directory in the tree', async () => {
      const cache = await cacheDirectory();
      const target = join(homePath, '.opam/download cache');
      const { outcome } = await run(
        shell(`echo hi >'${target}/file'`, { caches: [{ target, directory: cache }] }),
      );
      expect(outcome).toEqual({ status: 'ok' });
      expect(await readFile(join(cache, 'file'), 'utf8')).toBe('hi\n');
      expect(await readdir(join(rootfs, '.opam/download cache'))).toEqual([]);
      expect(await stat(join(rootfs, '.opam'))).toMatchObject({ uid, mode: 0o40755 });
    });

    test('a cache below the prefix is mounted in the tree of the step', async () => {
      const bound = sandboxOf({ prefixMode: 'bind' });
      const cache = await cacheDirectory();
      const caches = [{ target: join(prefix, 'var/cache'), directory: cache }];
      await run(shell(`echo hi >${prefix}/var/cache/file`, { caches }), { on: bound });
      expect(await readFile(join(cache, 'file'), 'utf8')).toBe('hi\n');
      expect(await readdir(join(rootfs, 'local/var/cache'))).toEqual([]);
      await bound.close();
    });

    test.each([
      ['leads out of the home', 'ln -s /etc link', 'link/obuilder-fs', 'cannot create directory'],
      ['leads to a directory of the system', 'ln -s /etc link', 'link', 'leads to /etc'],
      ['is a file', 'touch link', 'link', 'File exists'],
      ['is the home', 'true', '.', 'cannot cover all of'],
    ])('a target that %s fails the step before it runs', async (_, prepare, target, why) => {
      await run(shell(prepare));
      const caches = [{ target: join(homePath, target), directory: await cacheDirectory() }];
      const { outcome } = await run(shell('touch ran', { caches }));
      expect(outcome).toMatchObject({ status: 'failed' });
      expect(JSON.stringify(outcome)).toContain(why);
      expect(await readdir(rootfs)).not.toContain('ran');
    });
  });

  describe('secrets', () => {
    const value = Buffer.from('first\nsecret\0\xff', 'latin1');

    test('a secret is a read-only file of the step, and in nothing that stays', async () => {
      const secrets = [
        { target: join(homePath, '.ssh/key'), value },
        { target: join(homePath, 'token'), value: Buffer.from('second') },
      ];
      const script = `sha256sum <.ssh/key; cat token; stat -c ' %a %u' token; chmod 600 token; rm -f token`;
      const { output } = await run(shell(script, { secrets }));
      const { createHash } = await import('node:crypto');
      expect(output).toContain(`${createHash('sha256').update(value).digest('hex')}  -\nsecond 400 ${uid}\n`);
      expect(output).toContain("changing permissions of 'token': Read-only file system");
      expect(output).toContain("cannot remove 'token'");
      expect(await readFile(join(rootfs, 'token'), 'utf8')).toBe('');
    });

    test('another build user cannot read it', async () => {
      const other = sandboxOf({ uids: [otherUid] });
      const otherTree = await newRootfs('other', other);
      const secrets = [{ target: join(homePath, 'token'), value }];
      const step = start(shell('echo working; sleep 1000', { secrets }), 'working');
      await step.said;
      const look = `cat token; pgrep -u ${uid}; cat /proc/[0-9]*/root$HOME/token; echo looked`;
      const { output } = await run(shell(look, { cwd: homePath }), { on: other, tree: otherTree });
      expect(output).toContain('looked');
      expect(output).not.toContain('secret');
      expect(output).not.toMatch(/^\d+$/m);
      step.cancel.abort();
      await step.outcome;
      await other.close();
    });

    test('a target that is a link is refused', async () => {
      await run(shell('ln -s /etc/passwd token'));
      const { outcome } = await run(shell('true', { secrets: [{ target: join(homePath, 'token'), value }] }));
      expect(JSON.stringify(outcome)).toContain('not a regular file');
    });
  });

  test('the home of a person is left alone', async () => {
    const taken = sandboxOf({ homePath: join(directory, 'person') });
    await mkdir(join(directory, 'person'));
    await writeFile(join(directory, 'person', 'thesis'), '');
    await expect(run(shell('true'), { on: taken })).rejects.toMatchObject({ code: 'HOME_IN_USE' });
    await symlink('/home', join(directory, 'linked'));
    const linked = sandboxOf({ homePath: join(directory, 'linked') });
    await expect(run(shell('true'), { on: linked })).rejects.toThrow('a symbolic link');
  });

  describe('a lost mount', () => {
    function viewThatIsLost() {
      const lost = new AbortController();
      const calls: string[] = [];
      const prefixView = {
        mapsOwners: () => Promise.resolve(true),
        async open(viewUid: number, tree: string) {
          calls.push(`open ${viewUid} ${tree}`);
          const close = () => Promise.resolve(void calls.push('close'));
          return Promise.resolve({
            treeDoor: join(tree, 'local'),
            lost: lost.signal,
            isLost: () => Promise.resolve(lost.signal.aborted),
            close,
          });
        },
      };
      return { lost, calls, prefixView };
    }

    test('ends the step at once and is no success', async () => {
      const { lost, calls, prefixView } = viewThatIsLost();
      const mounted = sandboxOf({ prefixMode: 'tree', prefixView });
      const step = start(shell('echo working; sleep 1000'), 'working', { on: mounted });
      await step.said;
      lost.abort();
      expect(await step.outcome).toEqual({
        status: 'failed',
        message: `"/usr/bin/env" "bash" "-c" "echo working; sleep 1000" was stopped: the mount of ${prefix} was lost during the step`,
      });
      expect(calls).toEqual([`open ${uid} ${rootfs}`, 'close']);
      await mounted.close();
    });

    test('even as a step ends well', async () => {
      const { lost, prefixView } = viewThatIsLost();
      const mounted = sandboxOf({ prefixMode: 'tree', prefixView });
      const outcome = mounted.run(
        shell('echo done'),
        rootfs,
        () => lost.abort(),
        new AbortController().signal,
      );
      expect(await outcome).toMatchObject({ status: 'failed' });
      await mounted.close();
    });
  });
});
