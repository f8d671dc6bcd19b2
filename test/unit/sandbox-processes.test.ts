import { spawn } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { processesRemain } from '../../src/sandbox/end-processes.ts';
import { endProcessesOf, processesOf, processFromStatus } from '../../src/sandbox/processes-linux.ts';
import { parsePs } from '../../src/sandbox/processes-macos.ts';

function status(fields: { uid?: string; state?: string; threads?: number }): string {
  const { uid = '705\t705\t705\t705', state = 'S (sleeping)', threads = 1 } = fields;
  return `Name:\tmake\nUmask:\t0022\nState:\t${state}\nPid:\t12\nUid:\t${uid}\nThreads:\t${threads}\n`;
}

describe('a process counts', () => {
  test.each([
    ['that runs as the user', {}, true],
    ['of another user', { uid: '1705\t7050\t70\t0' }, false],
    ['that can become the user again', { uid: '0\t0\t705\t0' }, true],
    ['that is dead and not reaped', { state: 'Z (zombie)' }, false],
    ['that lives on in other threads', { state: 'Z (zombie)', threads: 2 }, true],
    ['that waits in the kernel', { state: 'D (disk sleep)' }, true],
  ])('%s: %#', (_, fields, counts) => {
    expect(processFromStatus(705, '12', status(fields))).toEqual(
      counts ? { pid: 12, command: 'make' } : undefined,
    );
  });

  test('that ended meanwhile does not', () => expect(processFromStatus(705, '12', '')).toBeUndefined());
});

test('the list of ps is read', () => {
  const list =
    '    1     0     0 Ss   /sbin/launchd\n  812   705   705 S    /bin/bash -l\n 9 705 0 Z (x)\n10 0 705 R+ sudo\n';
  expect(parsePs(705, list)).toEqual([
    { pid: 812, command: '/bin/bash -l' },
    { pid: 10, command: 'sudo' },
  ]);
});

test.each([0, 1, 499, -1])('the processes of uid %d are never ended', async (uid) => {
  await expect(endProcessesOf(uid)).rejects.toMatchObject({ code: 'NOT_A_BUILD_USER' });
});

test('this process is found', async () => {
  const uid = process.getuid?.() ?? -1;
  const child = spawn('sleep', ['1000']);
  expect((await processesOf(uid)).map(({ pid }) => pid)).toEqual(
    expect.arrayContaining([process.pid, child.pid]),
  );
  child.kill('SIGKILL');
});

test('processes that remain are named, the first few of many', () => {
  const left = [1, 2, 3, 4, 5, 6, 7].map((pid) => ({ pid, command: 'rsync' }));
  expect(processesRemain(705, left.slice(0, 1))).toMatchObject({
    code: 'PROCESSES_REMAIN',
    message: 'uid 705: processes that cannot be killed: rsync (1)',
  });
  expect(processesRemain(705, left).message).toMatch(/rsync \(5\) and 2 more$/);
});
