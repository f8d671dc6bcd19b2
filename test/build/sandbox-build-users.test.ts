import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chown, mkdtemp, readFile, rm } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { runCommand } from '../../src/os/exec.ts';
import { createLinuxBuildUsers } from '../../src/sandbox/build-users-linux.ts';
import { endProcessesOf, processesOf } from '../../src/sandbox/processes-linux.ts';
import { removeTestUsers, whyNoTestUsers } from '../helpers/test-users.ts';

const uid = 7712;
const homePath = '/home/mac7712-of-tests';
const users = createLinuxBuildUsers({ homePath });

/** Without subordinate ids: userdel takes any process with one of those for the user's. */
async function addPerson(personUid: number, name: string): Promise<void> {
  const options = ['--no-create-home', '--key', 'SUB_UID_COUNT=0', '--key', 'SUB_GID_COUNT=0'];
  await runCommand(['useradd', '--uid', String(personUid), ...options, '--comment', 'Ada', name]);
}

describe.skipIf(whyNoTestUsers !== undefined)('real build users', () => {
  beforeAll(() => removeTestUsers());
  afterEach(() => removeTestUsers([uid]));
  afterAll(() => removeTestUsers());

  test('there is none before it is made, one afterwards, and none once it is removed', async () => {
    expect(await users.find(uid)).toBeUndefined();
    const user = { uid, gid: uid, name: `mac${uid}`, homePath };
    expect(await users.ensure(uid)).toEqual(user);
    expect(await users.find(uid)).toEqual(user);
    await users.remove(uid);
    expect(await users.find(uid)).toBeUndefined();
    await expect(runCommand(['getent', 'group', String(uid)])).rejects.toThrow('exit status 2');
    await users.remove(uid);
  });

  test('it is marked as ours, has no password, no home made for it and no subordinate ids', async () => {
    await users.ensure(uid);
    const { stdout } = await runCommand(['getent', 'passwd', String(uid)]);
    expect(stdout).toBe(`mac${uid}:x:${uid}:${uid}:obuilder-fs build user:${homePath}:/bin/bash\n`);
    expect(await readFile('/etc/shadow', 'utf8')).toMatch(new RegExp(`^mac${uid}:!`, 'm'));
    expect(existsSync(homePath)).toBe(false);
    expect(existsSync(`/var/mail/mac${uid}`)).toBe(false);
    for (const file of ['/etc/subuid', '/etc/subgid']) {
      if (existsSync(file)) expect(await readFile(file, 'utf8')).not.toContain(`mac${uid}`);
    }
  });

  test('made by several at once, it is there once and all have it', async () => {
    const made = await Promise.all(
      Array.from({ length: 6 }, () => createLinuxBuildUsers({ homePath }).ensure(uid)),
    );
    expect(new Set(made.map((user) => user.name))).toEqual(new Set([`mac${uid}`]));
    const passwd = await readFile('/etc/passwd', 'utf8');
    expect(passwd.split('\n').filter((line) => line.startsWith(`mac${uid}:`))).toHaveLength(1);
  });

  test('it is given the home path that build users share now', async () => {
    await users.ensure(uid);
    const moved = createLinuxBuildUsers({ homePath: '/home/elsewhere' });
    expect(await moved.ensure(uid)).toMatchObject({ homePath: '/home/elsewhere' });
    expect(await users.find(uid)).toMatchObject({ homePath: '/home/elsewhere' });
  });

  test('dead processes that nobody has reaped do not stand in the way', async () => {
    await users.ensure(uid);
    // It becomes the parent's, who never waits.
    const parent = spawn('/bin/bash', [
      '-c',
      `setpriv --reuid ${uid} --clear-groups true & echo $!; exec sleep 1000`,
    ]);
    const [pid] = (await once(parent.stdout, 'data')) as [Buffer];
    const state = () => readFile(`/proc/${pid.toString().trim()}/status`, 'utf8');
    await vi.waitFor(async () => expect(await state()).toMatch(/^State:\tZ/m));
    expect(await processesOf(uid)).toEqual([]);
    const moved = createLinuxBuildUsers({ homePath: '/home/elsewhere' });
    expect(await moved.ensure(uid)).toMatchObject({ homePath: '/home/elsewhere' });
    await users.remove(uid);
    expect(await users.find(uid)).toBeUndefined();
    parent.kill('SIGKILL');
  });

  test('removing one leaves what is at its home path', async () => {
    const home = await mkdtemp('/var/tmp/build-users-');
    const housed = createLinuxBuildUsers({ homePath: home });
    await housed.ensure(uid);
    await chown(home, uid, uid);
    await housed.remove(uid);
    expect(existsSync(home)).toBe(true);
    await rm(home, { recursive: true });
  });

  test('a group that a killed run left without its user is taken up', async () => {
    await runCommand(['groupadd', '--gid', String(uid), `mac${uid}`]);
    expect(await users.ensure(uid)).toMatchObject({ gid: uid });
  });

  test('the account of a person is neither used nor removed', async () => {
    await runCommand([
      'useradd',
      '--uid',
      String(uid),
      '--no-create-home',
      '--comment',
      'Ada',
      'ada-of-tests',
    ]);
    const attempts = [() => users.find(uid), () => users.ensure(uid), () => users.remove(uid)];
    for (const attempt of attempts) {
      await expect(attempt()).rejects.toMatchObject({
        code: 'NOT_A_BUILD_USER',
        message: `uid ${uid}: belongs to the account ada-of-tests ("Ada"), not to a build user`,
      });
    }
    await runCommand(['getent', 'passwd', 'ada-of-tests']);
  });

  test('a name that another account has is not taken from it', async () => {
    await addPerson(7719, `mac${uid}`);
    await expect(users.ensure(uid)).rejects.toMatchObject({ code: 'NAME_TAKEN' });
    await removeTestUsers([7719]);
  });

  describe('their processes', () => {
    /** Starts a script as the build user and waits until it has said something. */
    async function startAs(script: string): Promise<void> {
      const child = spawn('/bin/bash', ['-c', script], {
        uid,
        gid: uid,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      await once(child.stdout, 'data');
      child.stdout.destroy();
    }

    test('are ended, without touching those of others', async () => {
      const other = spawn('sleep', ['1000'], { uid: uid + 1, gid: uid + 1 });
      await startAs('trap "" TERM HUP INT; (setsid sleep 1000 &) ; echo up; while :; do sleep 1000; done');
      expect((await processesOf(uid)).length).toBeGreaterThan(1);
      await endProcessesOf(uid);
      expect(await processesOf(uid)).toEqual([]);
      expect(await processesOf(uid + 1)).toHaveLength(1);
      await endProcessesOf(uid + 1);
      if (other.exitCode === null && other.signalCode === null) await once(other, 'exit');
    });

    test('are ended however fast they fork', async () => {
      await startAs('ulimit -u 400; f() { f & f & wait; }; echo up; f 2>/dev/null');
      await endProcessesOf(uid);
      expect(await processesOf(uid)).toEqual([]);
    });

    test('are ended when they are as many as the user may have', async () => {
      await startAs('for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo up; wait');
      const { stdout } = await runCommand([
        'prlimit',
        '--nproc',
        '--noheadings',
        '--output=SOFT',
        '--pid',
        String(process.pid),
      ]);
      await runCommand(['prlimit', '--nproc=4:', '--pid', String(process.pid)]);
      try {
        await endProcessesOf(uid);
      } finally {
        await runCommand(['prlimit', `--nproc=${stdout.trim()}:`, '--pid', String(process.pid)]);
      }
      expect(await processesOf(uid)).toEqual([]);
    });

    // Such a chain is on no list for long: only what is asked many times over shows that it is gone.
    test('are ended when each hands over to a new one', async () => {
      for (let round = 0; round < 20; round++) {
        await startAs('echo up; f() { (f) & exit; }; f');
        await endProcessesOf(uid);
        for (let look = 0; look < 10; look++) expect(await processesOf(uid)).toEqual([]);
      }
    });
  });
});
