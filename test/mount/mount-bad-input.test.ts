import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  anna,
  asUidReadingAll,
  bert,
  carl,
  createScratchMount,
  dora,
  mainProgram,
  mountsBelow,
  runAs,
  runProgram,
  whyNoMounts,
  type CommandAnswer,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

/** One wrong command line or machine. */
interface BadInput {
  readonly name: string;
  /** Made before, besides the scratch mount's own. */
  readonly prepare?: (scratch: ScratchMount) => void;
  /** Of obuilder-fs. */
  readonly args: (scratch: ScratchMount) => string[];
  /** Runs the command line otherwise than as root in this namespace. */
  readonly wrap?: (argv: readonly string[]) => string[];
  /** The thing and the remedy, each as the line must hold it. */
  readonly says: (scratch: ScratchMount) => string[];
  readonly code: 1 | 2;
}

const mount =
  (...options: string[]) =>
  (s: ScratchMount): string[] => ['mount', s.prefix, `--scoreboard=${s.scoreboard}`, ...options];
/** In a mount namespace of its own, prepared by a shell script. */
const inNamespace = (script: string) => (argv: readonly string[]) => [
  'unshare',
  '--mount',
  '--propagation=private',
  'sh',
  '-c',
  `${script} && exec "$@"`,
  'sh',
  ...argv,
];
// The program needs null and its like; all but fuse are there.
const WITHOUT_FUSE =
  'mkdir -p /run/lock && mount -t tmpfs none /run/lock && cp -a /dev/null /dev/zero /dev/random /dev/urandom /run/lock && mount --bind /run/lock /dev';

const inputs: readonly BadInput[] = [
  {
    name: 'no such prefix',
    args: (s) => ['mount', s.path('nope'), `--scoreboard=${s.scoreboard}`],
    says: (s) => [`prefix ${s.path('nope')} does not exist`, `mkdir -p ${s.path('nope')}`],
    code: 1,
  },
  {
    name: 'a prefix that is a file',
    args: (s) => ['mount', join(s.prefix, 'who'), `--scoreboard=${s.scoreboard}`],
    says: (s) => [`prefix ${join(s.prefix, 'who')} is not a directory`, 'name a directory'],
    code: 1,
  },
  {
    name: 'a prefix below a file',
    args: (s) => ['mount', join(s.prefix, 'who/x'), `--scoreboard=${s.scoreboard}`],
    says: (s) => [`prefix ${join(s.prefix, 'who/x')} does not exist`, 'mkdir'],
    code: 1,
  },
  {
    name: 'no prefix',
    args: (s) => ['mount', `--scoreboard=${s.scoreboard}`],
    says: () => ['an operand is missing', 'usage: obuilder-fs mount <prefix..>'],
    code: 2,
  },
  {
    name: 'an empty prefix, which would be the working directory',
    args: (s) => ['mount', '=local', `--scoreboard=${s.scoreboard}`],
    says: () => ['"=local" names no prefix', 'give PREFIX'],
    code: 2,
  },
  {
    name: 'the root directory',
    args: (s) => ['mount', '/', `--scoreboard=${s.scoreboard}`],
    says: () => ['prefix / would hide the whole machine', 'such as /usr/local'],
    code: 2,
  },
  {
    name: 'a prefix named twice',
    args: (s) => [...mount()(s), `${s.prefix}/.`],
    says: (s) => [`prefix ${s.prefix} is named twice`, 'once'],
    code: 2,
  },
  ...['..', '/absolute', 'a/../b', ''].map((subdir): BadInput => ({
    name: `the subdirectory "${subdir}"`,
    args: (s) => ['mount', `${s.prefix}=${subdir}`, `--scoreboard=${s.scoreboard}`],
    says: () => [`"${subdir}" is not a subdirectory`, 'give a relative path'],
    code: 2,
  })),
  {
    name: 'a prefix on which a tmpfs is mounted',
    prepare: (s) => runProgram(['mount', '-t', 'tmpfs', 'elsewhere', s.prefix]),
    args: mount(),
    says: (s) => [
      `prefix ${s.prefix} is already mounted by something else (tmpfs, elsewhere)`,
      `umount ${s.prefix}`,
    ],
    code: 1,
  },
  {
    name: 'a prefix that we serve already',
    prepare: (s) => s.mount(),
    args: mount(),
    says: (s) => [`prefix ${s.prefix} is already mounted by obuilder-fs`, `obuilder-fs unmount ${s.prefix}`],
    code: 1,
  },
  {
    name: 'a prefix that we serve with another scoreboard',
    prepare: (s) => {
      s.mount();
      mkdirSync(s.path('other'), { mode: 0o755 });
    },
    args: (s) => ['mount', s.prefix, `--scoreboard=${s.path('other')}`],
    says: (s) => [`already mounted by obuilder-fs (scoreboard ${s.scoreboard})`, `unmount ${s.prefix}`],
    code: 1,
  },
  ...[['mount'], ['mount', '--daemon'], ['unmount'], ['status'], ['exec', `--uid=${anna}`]].map(
    ([command = '', ...options]): BadInput => ({
      name: `${[command, ...options].join(' ')}, not as root`,
      args: (s) =>
        ({ mount: mount(...options)(s), status: ['status'] })[command] ?? [command, s.prefix, ...options],
      wrap: (argv) => asUidReadingAll(anna, [...argv, ...(command === 'exec' ? ['--', 'true'] : [])]),
      says: () => ['needs root', 'sudo'],
      code: 1,
    }),
  ),
  {
    name: 'no /dev/fuse',
    args: mount(),
    wrap: inNamespace(WITHOUT_FUSE),
    says: () => ['/dev/fuse cannot be opened (ENOENT)', 'modprobe fuse'],
    code: 1,
  },
  {
    name: 'no scoreboard given',
    args: (s) => ['mount', s.prefix],
    says: () => ['this option is needed: --scoreboard', 'usage: obuilder-fs mount'],
    code: 2,
  },
  {
    name: 'two scoreboards',
    args: (s) => [...mount()(s), '--scoreboard=/x'],
    says: () => ['--scoreboard is given twice', 'usage: obuilder-fs mount'],
    code: 2,
  },
  {
    name: 'a scoreboard that does not exist',
    args: (s) => ['mount', s.prefix, `--scoreboard=${s.path('nope')}`],
    says: (s) => [`scoreboard ${s.path('nope')} does not exist`, 'install -d -m 755'],
    code: 1,
  },
  {
    name: 'a scoreboard that is a file',
    prepare: (s) => writeFileSync(s.path('file'), ''),
    args: (s) => ['mount', s.prefix, `--scoreboard=${s.path('file')}`],
    says: (s) => [`scoreboard ${s.path('file')} is not a directory`, 'UID -> DIRECTORY'],
    code: 1,
  },
  {
    name: 'a scoreboard that its group can write',
    prepare: (s) => chmodSync(s.scoreboard, 0o775),
    args: mount(),
    says: (s) => [`scoreboard ${s.scoreboard} cannot be trusted: others than root can write it`, 'chmod 755'],
    code: 1,
  },
  {
    name: 'a scoreboard that belongs to a user',
    prepare: (s) => chownSync(s.scoreboard, anna, anna),
    args: mount(),
    says: (s) => [`scoreboard ${s.scoreboard} cannot be trusted: it belongs to uid ${anna}`, 'chown root'],
    code: 1,
  },
  {
    name: 'a scoreboard inside the prefix',
    prepare: (s) => mkdirSync(join(s.prefix, 'scoreboard'), { mode: 0o755 }),
    args: (s) => ['mount', s.prefix, `--scoreboard=${join(s.prefix, 'scoreboard')}`],
    says: (s) => [`scoreboard ${s.prefix}/scoreboard lies in prefix ${s.prefix}`, 'outside'],
    code: 1,
  },
  {
    name: 'a state directory inside the prefix',
    args: (s) => mount(`--state-dir=${s.prefix}/state`)(s),
    says: (s) => [`--state-dir ${s.prefix}/state lies in prefix ${s.prefix}`, 'outside'],
    code: 1,
  },
  {
    name: 'an unmapped directory inside the prefix',
    args: (s) => mount(`--unmapped=${s.prefix}/lib`)(s),
    says: (s) => [`--unmapped ${s.prefix}/lib lies in prefix ${s.prefix}`, 'outside'],
    code: 1,
  },
  {
    name: 'an unmapped directory that does not exist',
    args: mount('--unmapped=/nowhere'),
    says: () => ['--unmapped /nowhere is not a directory', 'name the directory'],
    code: 1,
  },
  {
    name: 'an unknown flag',
    args: mount('--bogus'),
    says: () => ['unknown option or operand: bogus', 'obuilder-fs mount --help'],
    code: 2,
  },
  {
    name: 'a bad --cache value',
    args: mount('--cache=some'),
    says: () => ['--cache="some"', '"auto", "none"'],
    code: 2,
  },
  ...[[], ['--daemon']].map((options): BadInput => ({
    name: `an unknown mount option ${options.join('')}`,
    args: mount('-o', 'ro,bogus', ...options),
    says: () => ['unknown mount option "bogus"', '-o takes'],
    code: 2,
  })),
  { name: 'no command', args: () => [], says: () => ['name a command', 'obuilder-fs --help'], code: 2 },
  {
    name: 'an unknown command',
    args: () => ['mnt'],
    says: () => ['no such command; did you mean mount?', 'obuilder-fs --help'],
    code: 2,
  },
  {
    name: 'unmount of what is not mounted',
    args: (s) => ['unmount', s.prefix],
    says: (s) => [`prefix ${s.prefix} is not mounted`, 'obuilder-fs status'],
    code: 1,
  },
  {
    name: 'unmount of what somebody else mounted',
    prepare: (s) => runProgram(['mount', '-t', 'tmpfs', 'elsewhere', s.prefix]),
    args: (s) => ['unmount', s.prefix],
    says: (s) => [`prefix ${s.prefix} is mounted by something else (tmpfs)`, `umount ${s.prefix}`],
    code: 1,
  },
  {
    name: 'exec at a prefix that is not served',
    args: (s) => ['exec', '--uid=7', s.prefix, '--', 'true'],
    says: (s) => [`prefix ${s.prefix} is not served`, `obuilder-fs mount ${s.prefix}`],
    code: 1,
  },
  {
    name: 'exec without a command',
    args: (s) => ['exec', '--uid=7', s.prefix],
    says: () => ['exec: no command', 'put it after --'],
    code: 2,
  },
  {
    name: 'exec as no uid',
    args: (s) => ['exec', '--uid=anna', s.prefix, '--', 'true'],
    says: () => ['--uid is not a uid', 'whole number'],
    code: 2,
  },
  ...['anna', '07', '-1', '4294967295'].map((uid): BadInput => ({
    name: `scoreboard set for "${uid}"`,
    args: (s) => ['scoreboard', 'set', uid, '/x', `--scoreboard=${s.scoreboard}`],
    says: () => [`"${uid}" is not a scoreboard entry`, 'a uid in decimal'],
    code: 2,
  })),
  {
    name: 'scoreboard without a command',
    args: (s) => ['scoreboard', `--scoreboard=${s.scoreboard}`],
    says: () => ['obuilder-fs scoreboard'],
    code: 2,
  },
];

describe.skipIf(whyNoMounts !== undefined)('bad input', () => {
  let scratch: ScratchMount;
  afterEach(() => scratch.close());

  function run({ args, wrap = (argv) => [...argv] }: BadInput): CommandAnswer {
    const argv = [process.execPath, mainProgram, ...args(scratch)];
    return runProgram(wrap(['env', `OBUILDER_FS_STATE_DIR=${scratch.stateDir}`, ...argv]));
  }

  it.each(inputs)('$name: one line that names it and the remedy, nothing mounted', (input) => {
    scratch = createScratchMount();
    input.prepare?.(scratch);
    const before = mountsBelow(scratch.directory);
    const { code, stdout, stderr } = run(input);
    expect(stderr).toMatch(/^obuilder-fs: [^\n]+\n$/);
    for (const part of input.says(scratch)) expect(stderr).toContain(part);
    expect({ code, stdout }).toEqual({ code: input.code, stdout: '' });
    expect(mountsBelow(scratch.directory)).toEqual(before);
  });

  it('--verbose shows where an error came from', () => {
    scratch = createScratchMount();
    const answer = scratch.run([
      'mount',
      scratch.path('nope'),
      `--scoreboard=${scratch.scoreboard}`,
      '--verbose',
    ]);
    expect(answer.stderr).toMatch(/^obuilder-fs: .*\nObuilderError: .*\n {4}at /);
  });
});

describe.skipIf(whyNoMounts !== undefined)('a scoreboard entry that cannot be used', () => {
  let scratch: ScratchMount;
  beforeAll(() => {
    scratch = createScratchMount();
    scratch.mount();
  });
  afterAll(() => scratch.close());

  const statusLine = (uid: number) =>
    scratch
      .run(['status'])
      .stdout.split('\n')
      .find((line) => line.includes(`  ${uid} `));

  it.each<[what: string, target: (s: ScratchMount) => string, why: string]>([
    ['leads nowhere', () => '/nowhere', 'leads nowhere'],
    ['is relative', () => '../anna', 'relative'],
    ['leads to a file', (s) => join(s.prefix, '../anna/local/who'), 'does not lead to a directory'],
    ['leads to a directory without the subdirectory', (s) => s.stateDir, '"local" does not exist'],
  ])('that %s: EACCES for its uid alone, and status says why', (_, target, why) => {
    scratch.point(dora, target(scratch));
    expect(runAs(dora, ['ls', scratch.prefix])).toMatchObject({ stdout: '' });
    expect(runAs(dora, ['ls', scratch.prefix]).stderr).toContain('Permission denied');
    expect(statusLine(dora)).toContain('gets EACCES');
    expect(statusLine(dora)).toContain(why);
    expect(runAs(carl, ['cat', join(scratch.prefix, 'who')]).stdout).toBe('covered');
  });

  it('that is not root’s: EACCES, and status says whose it is', () => {
    const link = join(scratch.scoreboard, String(bert));
    runProgram(['rm', link]);
    symlinkSync(scratch.path('bert'), link);
    runProgram(['chown', '-h', `${bert}:${bert}`, link]);
    expect(runAs(bert, ['ls', scratch.prefix]).stderr).toContain('Permission denied');
    expect(statusLine(bert)).toContain(`belongs to uid ${bert}, not to root`);
  });
});

describe('--help', () => {
  const help = (...command: string[]) => runProgram([process.execPath, mainProgram, ...command, '--help']);

  it.each([
    ['build', '-f'],
    ['mount', '--scoreboard', '--unmapped', '--cache', '--map-owner', '-o', '--daemon', '--state-dir'],
    ['unmount', '--force', '--state-dir'],
    ['status', '--json', '--state-dir'],
    ['exec', '--uid', '--prefix-mode', '--state-dir'],
    ['scoreboard', 'list', 'set', 'clear'],
    ['scoreboard list', '--scoreboard', '--subdir', '--json'],
    ['scoreboard set', '--scoreboard'],
    ['scoreboard clear', '--scoreboard'],
  ])('of %s shows the usage, describes every option and gives an example', (command, ...options) => {
    const { code, stdout, stderr } = help(...command.split(' '));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain(`obuilder-fs ${command}`);
    expect(stdout).toContain('Examples:');
    for (const option of options) expect(stdout).toContain(option);
    const optionLines = stdout.split('\n').filter((line) => /^ +(-\w, )?--?\w/.test(line));
    for (const line of optionLines) expect(line).toMatch(/^ +(-\w, )?--?[\w-]+(, --[\w-]+)* +[\p{L}\d]/u);
  });

  it('of the program lists every command', () => {
    const { stdout } = help();
    for (const command of ['build', 'mount', 'unmount', 'status', 'scoreboard', 'exec']) {
      expect(stdout).toContain(`obuilder-fs ${command}`);
    }
  });

  it('--version is the package’s', () => {
    expect(runProgram([process.execPath, mainProgram, '--version'])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string,
    });
  });
});
