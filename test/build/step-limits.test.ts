import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { processesOf } from '../../src/sandbox/processes-linux.ts';
import { openStepCgroup } from '../../src/sandbox/step-cgroup.ts';
import type { StepLimits } from '../../src/sandbox/step-limits.ts';
import { createScratchSandbox, type ScratchSandbox } from '../helpers/scratch-sandbox.ts';
import { whyNoTestUsers } from '../helpers/test-users.ts';

const uid = 7780;
const mebibyte = 1024 * 1024;

describe.skipIf(whyNoTestUsers !== undefined)('the limits of a step', () => {
  let scratch: ScratchSandbox;

  beforeAll(async () => {
    scratch = await createScratchSandbox([uid]);
  });
  afterEach(async () => {
    expect(await processesOf(uid)).toEqual([]);
    expect(groupsOf(uid)).toBe('');
  });
  afterAll(() => scratch.close());

  const within = (limits: StepLimits) => ({ options: { limits } });

  test('a step that takes too long is ended, with all that it started, and says so', async () => {
    const script = 'setsid sleep 1000 & echo working; trap "" TERM; sleep 1000';
    const { outcome, output } = await scratch.run(script, within({ timeoutMs: 1_500 }));
    const why = 'it took longer than --step-timeout=1.5s';
    expect(outcome).toEqual({
      status: 'failed',
      message: `"/usr/bin/env" "bash" "-c" "${script}" was stopped: ${why}`,
    });
    expect(output).toContain(`\nobuilder-fs: the step was stopped: ${why}\n`);
  });

  test('a step that says too much is ended; what was allowed is in the log', async () => {
    const limits = { outputBytesMax: mebibyte };
    const { outcome, output } = await scratch.run('yes', within(limits));
    const why = 'it wrote more than --max-output=1M';
    expect(outcome).toMatchObject({ status: 'failed', message: expect.stringContaining(why) as string });
    expect(output.startsWith('y\n'.repeat(mebibyte / 2))).toBe(true);
    expect(output.slice(mebibyte)).toBe(`\nobuilder-fs: the step was stopped: ${why}\n`);
  });

  test('a step that says just as much as it may is no failure', async () => {
    const { outcome, output } = await scratch.run('yes | head -c 70000', within({ outputBytesMax: 70_000 }));
    expect(outcome).toEqual({ status: 'ok' });
    expect(output).toHaveLength(70_000);
  });

  test('a step has no more processes than it may, and the next one works', async () => {
    const many = `sh -c 'for i in $(seq 100); do sleep 1000 & done; echo all'`; // bash would try again for long
    const { outcome, output } = await scratch.run(many, within({ processesMax: 60 }));
    expect(outcome).toMatchObject({ status: 'failed' });
    expect(output).not.toContain('all');
    expect(await scratch.run('echo works', within({ processesMax: 60 }))).toEqual({
      outcome: { status: 'ok' },
      output: 'works\n',
    });
  });

  test.skipIf(whyNoGroups() !== undefined)(
    'memory is limited for all processes of a step together, shared memory included',
    async () => {
      const limits = { memoryBytesMax: 96 * mebibyte };
      const enough = await scratch.run('head -c 40M /dev/zero | tail -c 40M | wc -c', within(limits));
      expect(enough).toMatchObject({ outcome: { status: 'ok' }, output: `${40 * mebibyte}\n` });
      const each = '(head -c 60M /dev/zero | tail -c 60M | wc -c)';
      const together = await scratch.run(
        `set -o pipefail; ${each} & ${each} & wait %1 && wait %2`,
        within(limits),
      );
      const why = 'it needed more memory than --memory=96M';
      expect(together.outcome).toMatchObject({
        status: 'failed',
        message: expect.stringMatching(new RegExp(`: ${why}$`)) as string,
      });
      const shared = await scratch.run('head -c 200M /dev/zero >/dev/shm/big', within(limits));
      expect(shared.outcome).toMatchObject({ status: 'failed' });
    },
  );

  test('without a group every single process is limited', async () => {
    const limits = within({ memoryBytesMax: 64 * mebibyte });
    const { output } = await scratch.run('ulimit -d; ulimit -c', limits);
    expect(output).toBe(`${64 * 1024}\n0\n`);
  });

  test('limits leave nothing in the environment', async () => {
    const { output } = await scratch.run('env | grep -v ^_= | sort', within({ processesMax: 100 }));
    const names = output
      .trim()
      .split('\n')
      .map((line) => line.split('=')[0]);
    expect(names).toEqual(['HOME', 'LOGNAME', 'PATH', 'PWD', 'SHELL', 'SHLVL', 'TMPDIR', 'USER']);
    expect(output).toContain('SHLVL=1\n');
  });
});

/** Directories of groups that steps of this uid left. */
function groupsOf(ofUid: number): string {
  return execFileSync('find', ['/sys/fs/cgroup', '-type', 'd', '-name', `obuilder-fs-${ofUid}`], {
    encoding: 'utf8',
  });
}

/** Whether this machine lets us make a group that limits memory. */
function whyNoGroups(): string | undefined {
  if (whyNoTestUsers !== undefined) return whyNoTestUsers;
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(' - cgroup')
    ? undefined
    : 'no cgroups are mounted';
}

test('a machine without cgroups has no group to join', async () => {
  const group = await openStepCgroup('none', { memoryBytesMax: mebibyte }, []);
  expect(group.directories).toEqual([]);
  expect(await group.met()).toBeUndefined();
  await group.close();
});
