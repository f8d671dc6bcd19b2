import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { parseLoginPath } from '../../src/sandbox/linux-system.ts';
import type { StepCommand } from '../../src/sandbox/sandbox.ts';
import { loginArguments, loginEnv, outcomeOf } from '../../src/sandbox/step-login.ts';

const home = mkdtempSync(join(tmpdir(), 'sandbox-login-'));
afterAll(() => rmSync(home, { recursive: true }));

/** What the command prints when a login shell runs it, its home being the test's. */
function login(command: Partial<StepCommand>): string {
  const whole = { argv: [], cwd: home, env: [], network: [], secrets: [], caches: [], ...command };
  const { stdout } = spawnSync(
    '/bin/bash',
    [
      '-c',
      ...loginArguments(whole, {
        homePath: home,
        prefix: '/usr/local',
        tmpPath: '/tmpdir',
        secretsPath: '/secrets',
      }),
    ],
    {
      cwd: '/',
      env: { HOME: home, PATH: '/usr/bin:/bin' },
      encoding: 'utf8',
    },
  );
  return stdout;
}

test('any value and any argument arrives as it is', () => {
  writeFileSync(join(home, '.obuilder_profile.sh'), 'shift; set -- x; false');
  const text = fc.string({ unit: 'grapheme' }).map((value) => value.replaceAll('\0', ''));
  fc.assert(
    fc.property(text, text, (value, argument) => {
      const argv = ['/bin/sh', '-c', 'printf "%s|%s" "$VALUE" "$1"', 'sh', argument];
      expect(login({ argv, env: [['VALUE', value]] })).toBe(`${value}|${argument}`);
    }),
    { numRuns: 50 }, // a failure prints its seed
  );
});

test('the profile is read in the home, wherever the step starts', () => {
  writeFileSync(join(home, '.obuilder_profile.sh'), 'pwd');
  const started = login({ argv: ['/bin/sh', '-c', 'pwd; echo "$OLDPWD"'], cwd: join(home, 'src') });
  expect(started).toBe(`${home}\n${home}/src\n\n`);
  rmSync(join(home, '.obuilder_profile.sh'));
});

test('of a variable given twice the later wins', () => {
  const env = [
    ['A', '1'],
    ['A', '2'],
    ['TMPDIR', '/own'],
  ] as const;
  expect(login({ argv: ['/bin/sh', '-c', 'echo $A $TMPDIR'], env })).toBe('2 /own\n');
});

test('a login has the environment of its user and nothing else', () => {
  const user = { uid: 705, gid: 705, name: 'mac705', homePath: '/elsewhere' };
  const places = {
    homePath: '/Users/mac1000',
    prefix: '/usr/local',
    tmpPath: '/Users/mac1000.tmp',
    secretsPath: '/secrets',
  };
  expect(loginEnv(user, places, '/usr/bin:/bin')).toEqual({
    HOME: '/Users/mac1000',
    USER: 'mac705',
    LOGNAME: 'mac705',
    SHELL: '/bin/bash',
    PATH: '/usr/bin:/bin',
    TMPDIR: '/Users/mac1000.tmp',
  });
});

test.each([
  ['ENV_SUPATH PATH=/sbin\nENV_PATH\tPATH=/usr/bin:/bin\n', '/usr/bin:/bin'],
  [' ENV_PATH /opt/bin # ours\n', '/opt/bin'],
  ['#ENV_PATH PATH=/usr/bin\nENV_PATHS /x\n', undefined],
])('su takes its PATH from login.defs: %j', (loginDefs, path) =>
  expect(parseLoginPath(loginDefs)).toBe(path),
);

test.each([
  [{ code: 1, signal: null }, 'failed with exit status 1'],
  [{ code: 137, signal: null }, 'failed with exit status 137'],
  [{ code: null, signal: 'SIGKILL' }, 'failed with signal SIGKILL'],
] as const)('%o is worded as OBuilder words it', (ending, how) => {
  expect(outcomeOf(['/usr/bin/env', 'bash', '-c', 'echo "a"\nfalse'], ending)).toEqual({
    status: 'failed',
    message: `"/usr/bin/env" "bash" "-c" "echo "a"\nfalse" ${how}`,
  });
});
