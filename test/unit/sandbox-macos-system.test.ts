import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { allKilled } from '../../src/sandbox/end-processes.ts';
import { createMacosSystem, parseDarwinDirectory, parseIpcs } from '../../src/sandbox/macos-system.ts';
import { sandboxExec } from '../../src/sandbox/sandbox-profile.ts';
import { RecordedCommands, type RecordedAnswer } from '../helpers/recorded-commands.ts';

const homePath = '/Users/mac7811';
const user = { uid: 7811, gid: 7811, name: 'mac7811', homePath };
const places = {
  homePath,
  prefix: '/opt/homebrew',
  tmpPath: '/Users/mac7811.tmp',
  secretsPath: '/Users/mac7811.tmp.secrets',
};

function system(
  answers: Readonly<Record<string, readonly RecordedAnswer[]>> = {},
  options: { sandboxExec?: boolean } = {},
) {
  const commands = new RecordedCommands(answers);
  const sharedDirectories: string[] = [];
  return {
    commands,
    macos: createMacosSystem({ homePath, run: commands.run, sharedDirectories, ...options }),
  };
}

describe('accounts', () => {
  const search = `dscl . -search /Users UniqueID 7811`;
  const found = { stdout: 'mac7811\t\tUniqueID = (\n    7811\n)\n' };
  const read = 'dscl . -read /Users/mac7811 RealName PrimaryGroupID NFSHomeDirectory';
  const record = {
    stdout: `NFSHomeDirectory: ${homePath}\nPrimaryGroupID: 7811\nRealName:\n obuilder-fs build user\n`,
  };

  test('one that is missing is looked for and made', async () => {
    const { commands, macos } = system();
    expect(await macos.users.ensure(7811)).toEqual(user);
    expect(commands.taken()).toEqual([
      search,
      'dscl . -create /Groups/mac7811',
      'dscl . -create /Groups/mac7811 PrimaryGroupID 7811',
      'dscl . -create /Users/mac7811',
      'dscl . -create /Users/mac7811 RealName obuilder-fs build user',
      'dscl . -create /Users/mac7811 UserShell /bin/bash',
      `dscl . -create /Users/mac7811 NFSHomeDirectory ${homePath}`,
      'dscl . -create /Users/mac7811 PrimaryGroupID 7811',
      'dscl . -create /Users/mac7811 Password *',
      'dscl . -create /Users/mac7811 IsHidden 1',
      'dscl . -create /Users/mac7811 UniqueID 7811',
    ]);
  });

  test('one that is there is found by its uid', async () => {
    const { commands, macos } = system({ [search]: [found], [read]: [record] });
    expect(await macos.users.find(7811)).toEqual(user);
    expect(await macos.users.ensure(7811)).toEqual(user);
    expect(commands.taken()).toEqual([search, read, search, read]);
  });

  test('ours are listed by their full name', async () => {
    const byName = 'dscl . -search /Users RealName obuilder-fs build user';
    const uid = 'dscl . -read /Users/mac7811 UniqueID';
    const { commands, macos } = system({
      [byName]: [{ stdout: 'mac7811\t\tRealName = (\n    "obuilder-fs build user"\n)\n' }],
      [uid]: [{ stdout: 'UniqueID: 7811\n' }],
      [search]: [found],
      [read]: [record],
    });
    expect(await macos.users.list()).toEqual([user]);
    expect(commands.taken()).toEqual([byName, uid, search, read]);
  });

  test('one is removed with its group, and one that is missing not at all', async () => {
    const { commands, macos } = system({ [search]: [found, {}], [read]: [record] });
    await macos.users.remove(7811);
    expect(commands.taken().slice(2)).toEqual([
      'dscl . -delete /Users/mac7811',
      'dscl . -delete /Groups/mac7811',
    ]);
    await macos.users.remove(7811);
    expect(commands.taken()).toEqual([search]);
  });

  test('somebody’s is refused and nothing is changed', async () => {
    const { commands, macos } = system({ [search]: [found], [read]: [{ stdout: 'RealName: Ada\n' }] });
    await expect(macos.users.ensure(7811)).rejects.toMatchObject({ code: 'NOT_A_BUILD_USER' });
    expect(commands.taken()).toEqual([search, read]);
  });
});

describe('processes', () => {
  const kill =
    'process.setgroups([]); process.setgid(7811); process.setuid(7811); ' +
    `process.kill(-1, 'SIGKILL'); process.exit(${allKilled})`;
  const helper = `${process.execPath} -e ${kill}`;
  const bootout = 'launchctl bootout user/7811';
  const round = [
    helper,
    'pkill -KILL -U 7811',
    'pkill -KILL -u 7811',
    'ps -axo pid=,uid=,ruid=,state=,comm=',
  ];
  const killed = { [helper]: [{ exitCode: allKilled }] };

  test('are ended after the jobs that launchd would start again', async () => {
    const { commands, macos } = system({
      ...killed,
      pkill: [{ exitCode: 1 }],
      launchctl: [{ exitCode: 113 }],
    });
    await macos.endProcessesOf(7811);
    expect(commands.taken()).toEqual([bootout, ...round]);
  });

  test('that survive are killed again, until none is left', async () => {
    const ps = [
      { stdout: '  1 0 0 Ss /sbin/launchd\n 812 7811 7811 R make\n' },
      { stdout: '812 7811 7811 Z make\n' },
    ];
    const { commands, macos } = system({ ...killed, ps });
    await macos.endProcessesOf(7811);
    expect(commands.taken()).toEqual([bootout, ...round, ...round]);
  });

  test('are not taken for gone while the kill as the user fails', async () => {
    const answers = { [helper]: [{ exitCode: 137 }, { exitCode: allKilled }] };
    const { commands, macos } = system(answers);
    await macos.endProcessesOf(7811);
    expect(commands.taken()).toEqual([bootout, ...round, ...round]);
  });

  test('of the system are never ended', async () => {
    const { commands, macos } = system();
    await expect(macos.endProcessesOf(0)).rejects.toMatchObject({ code: 'NOT_A_BUILD_USER' });
    expect(commands.taken()).toEqual([]);
  });
});

const getconf = 'su mac7811 --norc -c -- exec "$@" obuilder-fs-as-user getconf DARWIN_USER_TEMP_DIR';
const darwin = '/var/folders/zz/zyxvpxvq6csfxvn_n0000x3w00001_';

describe('leftovers', () => {
  test('are looked for and, where there are none, nothing is removed', async () => {
    const { commands, macos } = system({ su: [{ stdout: `${darwin}/T/\n` }], crontab: [{ exitCode: 1 }] });
    await macos.clearLeftovers(user);
    expect(commands.taken()).toEqual([getconf, 'crontab -u mac7811 -r', 'ipcs -c']);
  });

  test('System V objects are removed by their ids', async () => {
    const list = [
      'IPC status from <running system> as of Tue Nov 24 03:06:36 UTC 2026',
      'T     ID     KEY        MODE       OWNER    GROUP  CREATOR   CGROUP',
      'Message Queues:',
      'q  65536 0x00000000 --rw-------   mac7811  mac7811  mac7811  mac7811',
      'Shared Memory:',
      'm  65537 0x00000000 --rw-------      root    wheel     root    wheel',
      'm  65538 0x00000000 --rw-------       ada    staff  mac7811  mac7811',
      'Semaphores:',
      's 262144 0x0012aee6 --ra-ra-ra-      7811     7811     7811     7811\n',
    ].join('\n');
    const { commands, macos } = system({ ipcs: [{ stdout: list }] });
    await macos.clearLeftovers(user);
    expect(commands.taken().at(-1)).toBe('ipcrm -q 65536 -m 65538 -s 262144');
    expect(parseIpcs(user, '')).toEqual([]);
  });

  test.each([
    [`${darwin}/T/\n`, `/private${darwin}`],
    [`/private${darwin}/T\n`, `/private${darwin}`],
    ['/tmp/\n', undefined],
    ['/T/\n', undefined],
    ['/var/folders/T/\n', undefined],
    ['/var/folders/../../T/\n', undefined],
    ['/var/folders/zz/../T/\n', undefined],
    [`${darwin}/T/\n/\n`, undefined],
    ['', undefined],
  ])('the directory of temporary files is taken from %j as %s', (answer, directory) =>
    expect(parseDarwinDirectory(answer)).toBe(directory),
  );
});

describe('a step is entered', () => {
  const login = ['script', 'obuilder-fs-step', '/cwd', 'A=b c'];

  test('by su, as a login', async () => {
    const { commands, macos } = system();
    const enter = await macos.entry(user, { places, network: [] });
    expect(enter(login)).toEqual(['su', '-l', 'mac7811', '-c', '--', ...login]);
    expect(commands.taken()).toEqual([]);
  });

  const base = `(version 1)
(allow default)
(deny file-write*)
(allow file-write* (subpath (param "HOME")) (subpath (param "PREFIX")) (subpath (param "TMPDIR")) (subpath (param "DARWIN_USER_DIR")))
(allow file-write* (literal "/dev/null") (literal "/dev/zero") (literal "/dev/tty") (literal "/dev/ptmx")
  (literal "/dev/stdout") (literal "/dev/stderr") (literal "/dev/dtracehelper")
  (regex #"^/dev/fd/[0-9]+$") (regex #"^/dev/ttys[0-9]+$"))
(allow process-exec (literal "/bin/ps") (with no-sandbox))
`;
  const closed = `(deny network*)
(allow network-bind network-inbound network-outbound (subpath (param "HOME")) (subpath (param "PREFIX")) (subpath (param "TMPDIR")) (subpath (param "DARWIN_USER_DIR")))
`;

  test.each([
    ['without a network', [], base + closed],
    ['with the machine’s network', ['host'], base],
  ])('confined, %s: su to the user, sandbox-exec, and the login shell in it', async (_, network, profile) => {
    const { commands, macos } = system({ su: [{ stdout: `${darwin}/T/\n` }] }, { sandboxExec: true });
    const enter = await macos.entry(user, { places, network });
    expect(commands.taken()).toEqual([getconf]);
    expect(enter(login)).toEqual([
      ...['su', 'mac7811', '--norc', '-c', '--', 'exec "$@"', 'obuilder-fs-as-user'],
      ...['/usr/bin/sandbox-exec', '-p', profile],
      ...['-D', 'HOME=/Users/mac7811', '-D', 'PREFIX=/opt/homebrew', '-D', 'TMPDIR=/Users/mac7811.tmp'],
      ...['-D', `DARWIN_USER_DIR=/private${darwin}`],
      ...['/bin/bash', '--login', '-c', '--', ...login],
    ]);
  });

  test('whatever the paths are, the profile’s text is the same and each arrives whole', () => {
    const directory = mkdtempSync(join(tmpdir(), 'sandbox-exec-'));
    const printing = join(directory, 'sandbox-exec');
    writeFileSync(printing, '#!/bin/sh\nprintf "%s\\0" "$@"\n');
    chmodSync(printing, 0o755);
    const path = fc.string({ unit: 'grapheme' }).map((text) => `/${text.replaceAll('\0', '')}`);
    try {
      fc.assert(
        fc.property(path, path, (home, prefix) => {
          const directories = { HOME: home, PREFIX: prefix, TMPDIR: '/t', DARWIN_USER_DIR: '/d' };
          const [, ...confined] = sandboxExec(directories, { network: [] });
          const [, , ...shell] = createMacosSystem({ homePath }).asUser(user, [printing, ...confined]);
          const { stdout } = spawnSync('/bin/bash', shell, { encoding: 'utf8' });
          expect(stdout.split('\0')).toEqual([
            ...['-p', base + closed, '-D', `HOME=${home}`, '-D', `PREFIX=${prefix}`],
            ...['-D', 'TMPDIR=/t', '-D', 'DARWIN_USER_DIR=/d', ''],
          ]);
        }),
        { numRuns: 30 }, // a failure prints its seed
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
