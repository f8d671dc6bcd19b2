import { spawnSync } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createLinuxBuildUsers } from '../../src/sandbox/build-users-linux.ts';
import { processesOf } from '../helpers/scratch-build.ts';
import { asUid, mainProgram, runProgram, startCaller } from '../helpers/scratch-mount.ts';
import { createScratchPool, poolUids, type ScratchPool } from '../helpers/scratch-pool.ts';
import { removeTestUsers, whyNoTestUsers } from '../helpers/test-users.ts';

const [first, second] = poolUids;

describe.skipIf(whyNoTestUsers !== undefined)('obuilder-fs users', () => {
  let scratch: ScratchPool;
  const homePath = '/home/mac7770-of-tests';

  beforeAll(async () => {
    scratch = await createScratchPool();
  });
  beforeEach(async () => {
    const users = createLinuxBuildUsers({ homePath });
    for (const uid of [second, first]) await users.ensure(uid);
  });
  afterEach(() => removeTestUsers(poolUids));
  afterAll(() => scratch.close());

  const users = (...args: string[]) =>
    runProgram([process.execPath, mainProgram, 'users', ...args, `--state-dir=${scratch.path('state')}`]);
  /** Other build users may be on the machine. */
  const listed = () => {
    const { stdout, stderr } = users('list', '--json');
    const all = JSON.parse(stdout) as { users: { uid: number }[] };
    return { users: all.users.filter(({ uid }) => uid >= first && uid < first + 10), stderr };
  };

  it('list tells those of the machine, and which run a step', () => {
    const lock = scratch.hold(second);
    const user = (uid: number, isBusy: boolean) => ({
      ...{ name: `mac${uid}`, uid, gid: uid, homePath, isBusy, privileges: [] },
    });
    expect(listed().users).toEqual([user(first, false), user(second, true)]);
    expect(users('list').stdout).toMatch(
      /^mac7771 +uid 7771 {2}home \/home\/mac7770-of-tests {2}runs a step$/m,
    );
    lock.release();
  });

  it('list warns of one that could gain privileges', () => {
    runProgram(['usermod', '-aG', 'sudo', `mac${first}`]); // Debian's and Ubuntu's
    const { users: found, stderr } = listed();
    expect(found[0]).toMatchObject({ privileges: ['in group sudo'] });
    expect(stderr).toContain(
      `obuilder-fs: mac${first} could gain privileges: in group sudo; take it out of there, no step needs that\n`,
    );
    expect(users('list').stdout).toMatch(/^mac7770 .* \(in group sudo\)$/m);
  });

  it('remove ends their processes and takes their accounts away, however often', async () => {
    const caller = startCaller(first, (argv) => asUid(first, argv));
    await caller.call('return process.getuid()');
    expect(users('remove', `${first}-${second}`)).toEqual({
      code: 0,
      stdout: `removed mac${first}\nremoved mac${second}\n`,
      stderr: '',
    });
    expect(processesOf(first)).toEqual([]);
    expect(listed().users).toEqual([]);
    expect(users('remove', String(first)).stdout).toBe(`uid ${first}: there is no build user\n`);
    caller.close();
  });

  it('one that runs a step is not removed', () => {
    const lock = scratch.hold(first);
    const answer = users('remove', String(first));
    expect(answer).toMatchObject({ code: 1, stdout: '' });
    expect(answer.stderr).toBe(`obuilder-fs: mac${first}: runs a step; wait for the build, or end it\n`);
    lock.release();
    expect(listed().users).toHaveLength(2);
  });

  it.each([
    ['0', 1],
    ['7771-7770', 2],
  ])('users remove %s is refused', (uid, code) => {
    const answer = users('remove', uid);
    expect(answer).toMatchObject({ code, stdout: '' });
    expect(answer.stderr).toMatch(/^obuilder-fs: .*\n$/);
  });

  it('somebody’s account is not removed', () => {
    spawnSync('useradd', ['--uid', '7779', '--no-create-home', '--comment', 'Ada', 'ada-of-tests']);
    try {
      const answer = users('remove', '7779');
      expect(answer.stderr).toMatch(/^obuilder-fs: uid 7779: belongs to the account ada-of-tests \("Ada"\)/);
      expect(runProgram(['id', '-un', '7779']).stdout).toBe('ada-of-tests\n');
    } finally {
      spawnSync('userdel', ['--force', 'ada-of-tests']);
    }
  });
});
