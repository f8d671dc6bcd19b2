import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  asUidReadingAll,
  anna,
  asUid,
  bert,
  carl,
  createScratchMount,
  mainProgram,
  runAs,
  runProgram,
  startCaller,
  whyNoMounts,
  type CommandAnswer,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

/** Groups of the tests' own. carl is in `club` where a test says so; nobody is in the other. */
const club = 7790;
const SECONDS = process.env['OBUILDER_FS_LONG'] === '1' ? 60 : 2;

let program = '';
let scratch: ScratchMount | undefined;
const processes: ChildProcess[] = [];

/** A scratch mount, to be taken apart into names. */
interface Mounted {
  readonly directory: string;
  readonly prefix: string;
  readonly scoreboard: string;
  readonly stateDir: string;
  readonly path: (name: string) => string;
  readonly run: (args: readonly string[]) => CommandAnswer;
  readonly point: (entry: string | number, target: string) => void;
  readonly servingPid: () => number;
}

function mounted(...options: string[]): Mounted {
  scratch = createScratchMount();
  buildOperations();
  scratch.mount(...options);
  return scratch;
}

function buildOperations(): void {
  if (existsSync(program)) return;
  execFileSync('mkdir', ['-m', '755', '-p', '/var/tmp/obuilder-fs-attacks']);
  program = '/var/tmp/obuilder-fs-attacks/attack-operations';
  const source = fileURLToPath(new URL('../helpers/attack-operations.c', import.meta.url));
  execFileSync('cc', ['-O2', '-Wno-unused-result', '-o', program, source]);
}

/** What an attempt at a time was answered. */
function attack(uid: number, ...args: (string | number)[]): Record<string, string> {
  return answers(runAs(uid, [program, ...args.map(String)]));
}

function answers(done: CommandAnswer): Record<string, string> {
  expect(done.code, done.stderr).toBe(0);
  return Object.fromEntries(
    done.stdout
      .trimEnd()
      .split('\n')
      .map((line) => {
        const at = line.lastIndexOf(': ');
        return [line.slice(0, at), line.slice(at + 2)];
      }),
  );
}

function start(argv: readonly string[]): ChildProcess {
  const [command = '', ...args] = argv;
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], cwd: '/' });
  processes.push(child);
  return child;
}

/** Everything below a directory as root sees it: type and mode, owners, links, size, times that were set, target, attributes. */
function listing(directory: string): string {
  const names = 'find . -printf "%P %M %U:%G %n %s %l\\n" | sort';
  const times = 'find . -type f -newermt 2000-01-01 -prune -o -type f -printf "%P %T@\\n" | sort';
  return execFileSync('sh', ['-c', `${names}; ${times}`], { cwd: directory, encoding: 'utf8' });
}

afterEach(() => {
  for (const child of processes.splice(0)) child.kill('SIGKILL');
  scratch?.close();
  scratch = undefined;
});

afterAll(() => {
  rmSync('/var/tmp/obuilder-fs-attacks', { recursive: true, force: true });
});

/** A covered directory with something of everybody's, for attack-operations.c. */
function fillCovered(directory: string, mode: number, group: number): void {
  rmSync(join(directory, 'lib'), { recursive: true });
  const make = (name: string, uid: number, gid: number, fileMode: number) => {
    writeFileSync(join(directory, name), name);
    chownSync(join(directory, name), uid, gid);
    chmodSync(join(directory, name), fileMode);
  };
  const makeDirectory = (name: string, uid: number, directoryMode: number) => {
    mkdirSync(join(directory, name));
    chownSync(join(directory, name), uid, uid);
    chmodSync(join(directory, name), directoryMode);
  };
  make('theirs', 0, 0, 0o644);
  make('theirs-secret', 0, 0, 0o600);
  make('ours', 0, club, 0o664);
  make('ours-not', 0, club, 0o604);
  make('mine', carl, carl, 0o644);
  make('mine-second', carl, carl, 0o644);
  makeDirectory('theirs-directory', 0, 0o755);
  make('theirs-directory/in', 0, 0, 0o644);
  makeDirectory('theirs-closed', 0, 0o700);
  make('theirs-closed/in', 0, 0, 0o644);
  makeDirectory('theirs-empty', 0, 0o755);
  makeDirectory('mine-empty', carl, 0o755);
  makeDirectory('mine-directory', carl, 0o755);
  make('mine-directory/in', carl, carl, 0o644);
  makeDirectory('open-directory', 0, 0o1777);
  make('open-directory/theirs', 0, 0, 0o644);
  make('open-directory/mine', carl, carl, 0o644);
  runProgram(['python3', '-c', SET_ATTRIBUTES, directory]);
  chownSync(directory, 0, group);
  chmodSync(directory, mode);
}

const SET_ATTRIBUTES = `
import os, sys
for name in ("user.colour", "trusted.colour"): os.setxattr(os.path.join(sys.argv[1], "theirs"), name, b"blue")`;

describe.skipIf(whyNoMounts !== undefined)('an unmapped user at the shared root', () => {
  it.each([
    { covered: 'root’s', mode: 0o755, group: 0, groups: [] },
    { covered: 'root’s, closed', mode: 0o700, group: 0, groups: [] },
    { covered: 'root’s, to be passed through', mode: 0o711, group: 0, groups: [] },
    { covered: 'anybody’s', mode: 0o777, group: 0, groups: [] },
    { covered: 'anybody’s, sticky', mode: 0o1777, group: 0, groups: [] },
    { covered: 'anybody’s, sticky, a club’s', mode: 0o1777, group: club, groups: [club] },
    { covered: 'a club’s', mode: 0o770, group: club, groups: [club] },
    { covered: 'a club’s, setgid', mode: 0o2775, group: club, groups: [club] },
    { covered: 'a club’s that others are not in', mode: 0o770, group: club, groups: [] },
    { covered: 'all but a club’s', mode: 0o705, group: club, groups: [club] },
    { covered: 'all but a club’s, to be written', mode: 0o1707, group: club, groups: [club] },
  ])(
    'gets the answers and the effects of the covered directory without us: $covered',
    ({ mode, group, groups }) => {
      scratch = createScratchMount();
      buildOperations();
      fillCovered(scratch.prefix, mode, group);
      const [plain, covered] = [scratch.path('plain'), scratch.path('covered')];
      execFileSync('cp', ['-a', scratch.prefix, plain]);
      execFileSync('cp', ['-a', scratch.prefix, covered]);
      scratch.mount(`--unmapped=${covered}`);
      const asCarl = (directory: string) =>
        answers(
          runProgram([
            ...['setpriv', `--reuid=${carl}`, `--regid=${carl}`],
            groups.length === 0 ? '--clear-groups' : `--groups=${groups.join()}`,
            ...['--', program, 'directory', directory],
          ]),
        );
      const [expected, got] = [asCarl(plain), asCarl(scratch.prefix)];
      if (expected['chdir'] === undefined) expect(withoutKnown(got)).toEqual(withoutKnown(expected));
      else expect(new Set(Object.values(withoutKnown(got)))).toEqual(new Set([expected['chdir']]));
      expect(listing(covered)).toBe(listing(plain));
    },
  );
});

/** Answers alone: none of them has an effect, and the listings are compared whole. */
const knownDifferences = [
  // The shared root shows mode 0777 to all, and statvfs takes no permission of the directory itself.
  'access(".", R_OK)',
  'access(".", W_OK)',
  'access(".", X_OK)',
  'statvfs(".", &statistics)',
  // Seeing that mode, the kernel comes to its next question: who may make devices.
  'mknod("device", S_IFCHR | 0666, makedev(1, 3))',
  // Nothing is renamed from below to the shared root.
  'rename("theirs-directory/in", "stolen")',
];

function withoutKnown(answered: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(answered).filter(([attempt]) => !knownDifferences.includes(attempt)),
  );
}

describe.skipIf(whyNoMounts !== undefined)('ways out of a tree', () => {
  it('a tree root of mode 0700 is its owner’s alone, whoever was sent there', () => {
    const { prefix, path, point } = mounted();
    chmodSync(path('anna/local'), 0o700);
    expect(runAs(anna, ['cat', join(prefix, 'who')]).stdout).toBe('anna');
    point(bert, path('anna'));
    for (const command of [
      ['cat', join(prefix, 'who')],
      ['ls', prefix],
      ['touch', join(prefix, 'planted')],
      ['rm', join(prefix, 'who')],
      ['mv', join(prefix, 'who'), join(prefix, 'stolen')],
      ['mkdir', join(prefix, 'lib/planted')],
    ])
      expect(runAs(bert, command).stderr, command.join(' ')).toContain('Permission denied');
  });

  it('links in a tree that lead out of it are followed with the caller’s own rights', () => {
    const { prefix, path, directory } = mounted();
    mkdirSync(path('secrets'), { mode: 0o700 });
    writeFileSync(path('secrets/key'), 'secret');
    writeFileSync(path('public'), 'public');
    for (const [name, target] of [
      ['absolute', path('secrets/key')],
      ['relative', '../../secrets/key'],
      ['up', join('lib/../../..', 'secrets/key')],
      ['shadow', '/etc/shadow'],
    ] as const) {
      symlinkSync(target, path(`anna/local/${name}`));
      symlinkSync(target, path(`anna/local/lib/${name}`));
    }
    symlinkSync(path('public'), path('anna/local/harmless'));
    symlinkSync(directory, path('anna/local/out'));
    expect(runAs(anna, ['cat', join(prefix, 'harmless')]).stdout).toBe('public');
    for (const name of [
      'absolute',
      'relative',
      'up',
      'shadow',
      'lib/absolute',
      'lib/relative',
      'out/secrets/key',
    ])
      for (const command of [
        ['cat'],
        ['touch'],
        ['chmod', '777'],
        ['chown', String(anna)],
        ['truncate', '-s0'],
      ])
        expect(runAs(anna, [...command, join(prefix, name)]).code, `${command.join(' ')} ${name}`).not.toBe(
          0,
        );
    expect(runAs(anna, ['touch', join(prefix, 'out/planted')]).code).not.toBe(0);
    expect(readFileSync(path('secrets/key'), 'utf8')).toBe('secret');
    expect(existsSync(path('planted'))).toBe(false);
  });

  it.each(['handles', 'paths'])(
    'a directory that is swapped for a link while others go through it: nothing outside is touched, --backing=%s',
    async (backing) => {
      const { prefix, path } = mounted(`--backing=${backing}`);
      mkdirSync(path('outside'), { mode: 0o755 });
      for (const name of ['precious', 'file']) writeFileSync(path(`outside/${name}`), 'precious');
      const before = listing(path('outside')) + String(statSync(path('outside/file')).ctimeMs);
      for (const place of ['', 'lib/']) {
        mkdirSync(path(`anna/local/${place}way`));
        chownSync(path(`anna/local/${place}way`), anna, anna);
        symlinkSync(path('outside'), path(`anna/local/${place}trap`));
        lchownSync(path(`anna/local/${place}trap`), anna, anna);
      }
      const running = ['', 'lib'].flatMap((place) =>
        ['swap', 'through'].map((what) =>
          start(asUid(anna, [program, what, join(prefix, place), String(SECONDS)])),
        ),
      );
      const around = start(asUid(anna, [program, 'swap', path('anna/local/lib'), String(SECONDS)]));
      const ended = await Promise.all([...running, around].map((child) => once(child, 'close')));
      expect(ended.map(([code]) => code as number)).toEqual([0, 0, 0, 0, 0]);
      expect(listing(path('outside')) + String(statSync(path('outside/file')).ctimeMs)).toBe(before);
    },
    SECONDS * 1000 + 60_000,
  );

  it('.. at the prefix and at a tree’s root leads to the prefix’s own parent', () => {
    const { prefix, path, run } = mounted();
    writeFileSync(path('anna/beside'), 'beside the tree');
    writeFileSync(path('beside'), 'beside the prefix');
    const look = ['sh', '-c', `cat ${prefix}/../beside; cd ${prefix}; cat ../beside; ls -a . | head -2`];
    const expected = 'beside the prefixbeside the prefix.\n..\n';
    expect(runAs(anna, look).stdout).toBe(expected);
    for (const mode of ['tree', 'shared'])
      expect(run(['exec', `--uid=${anna}`, `--prefix-mode=${mode}`, prefix, '--', ...look]).stdout).toBe(
        expected,
      );
  });

  it('no hard link leads from one tree into another, nor out of one', async () => {
    const { prefix, path } = mounted();
    const caller = startCaller(anna);
    try {
      writeFileSync(path('mine'), '');
      chownSync(path('mine'), anna, anna);
      await caller.call('process.chdir(args[0])', join(prefix, 'lib'));
      const link = 'fs.linkSync(args[0], args[1])';
      expect(await caller.attempt(link, path('mine'), join(prefix, 'linked'))).toBe('EXDEV');
      expect(await caller.attempt(link, join(prefix, 'who'), path('anna/linked'))).toBe('EXDEV');
      scratch?.point(anna, scratch.path('bert'));
      chmodSync(path('bert/local'), 0o777);
      // Its working directory is still the tree that it had.
      await caller.call(`fs.writeFileSync('own', '')`);
      expect(await caller.attempt(link, 'own', join(prefix, 'linked'))).toBe('EXDEV');
      expect(await caller.attempt('fs.renameSync(args[0], args[1])', 'own', join(prefix, 'moved'))).toBe(
        'EXDEV',
      );
      expect(readdirSync(path('bert/local')).sort()).toEqual(['lib', 'who']);
    } finally {
      caller.close();
    }
  });
});

describe.skipIf(whyNoMounts !== undefined)('entries, files and devices that were planted', () => {
  it('a scoreboard entry that is a user’s own is EACCES, as are a file, a directory and a link to a user’s link', () => {
    const { prefix, path, scoreboard, point } = mounted();
    const look = () => runAs(anna, ['cat', join(prefix, 'who')]);
    expect(look().stdout).toBe('anna');
    lchownSync(join(scoreboard, String(anna)), anna, anna);
    expect(look().stderr).toContain('Permission denied');
    rmSync(join(scoreboard, String(anna)));
    linkSync(path('bert/local/who'), join(scoreboard, String(anna)));
    expect(look().stderr).toContain('Permission denied');
    rmSync(join(scoreboard, String(anna)));
    mkdirSync(join(scoreboard, String(anna)));
    expect(look().stderr).toContain('Permission denied');
    rmSync(join(scoreboard, String(anna)), { recursive: true });
    symlinkSync(path('bert'), path('hop'));
    lchownSync(path('hop'), anna, anna);
    point(anna, path('hop'));
    expect(look().stderr).toContain('Permission denied');
  });

  it('a tree whose subdirectory is a link of the user’s is EACCES', () => {
    const { prefix, path } = mounted();
    rmSync(path('anna/local'), { recursive: true });
    symlinkSync(path('bert/local'), path('anna/local'));
    expect(runAs(anna, ['cat', join(prefix, 'who')]).stderr).toContain('Permission denied');
  });

  it('a scoreboard that others may write is believed by nobody', () => {
    const { prefix, scoreboard } = mounted();
    rmSync(join(scoreboard, String(anna)));
    chmodSync(scoreboard, 0o777);
    expect(runAs(anna, ['cat', join(prefix, 'who')]).stderr).toContain('Permission denied');
  });

  it('a setuid program runs as its caller, through both doors', () => {
    const { prefix, path, run } = mounted();
    cpSync('/usr/bin/id', path('anna/local/lib/id'));
    chmodSync(path('anna/local/lib/id'), 0o4755);
    const ask = [join(prefix, 'lib/id'), '-u'];
    expect(runAs(anna, ask).stdout).toBe(`${anna}\n`);
    expect(run(['exec', `--uid=${anna}`, '--prefix-mode=tree', prefix, '--', ...ask]).stdout).toBe(
      `${anna}\n`,
    );
  });

  it('a setuid program that others may change is none once they did, where setuid programs are let', () => {
    const { prefix, path } = mounted('-o', 'suid');
    const tool = join(prefix, 'lib/id');
    cpSync('/usr/bin/id', path('anna/local/lib/id'));
    chmodSync(path('anna/local/lib/id'), 0o4777);
    expect(runAs(anna, [tool, '-u']).stdout).toBe('0\n');
    const change = `dd if=/usr/bin/id of=${tool} bs=1 count=1 conv=notrunc status=none; exec ${tool} -u`;
    expect(runAs(anna, ['sh', '-c', change]).stdout).toBe(`${anna}\n`);
  });

  it('a device node opens no device, and a user cannot make one', () => {
    const { prefix, path, run } = mounted();
    execFileSync('mknod', ['-m', '666', path('anna/local/zero'), 'c', '1', '5']);
    execFileSync('mknod', ['-m', '666', path('anna/local/lib/zero'), 'c', '1', '5']);
    const open = ['head', '-c1', join(prefix, 'zero'), join(prefix, 'lib/zero')];
    expect(runAs(anna, open).stderr.match(/Permission denied/g)).toHaveLength(2);
    const inTree = run(['exec', `--uid=${anna}`, '--prefix-mode=tree', prefix, '--', ...open]);
    expect(inTree.stderr.match(/Permission denied/g)).toHaveLength(2);
    for (const place of ['', 'lib/'])
      expect(runAs(anna, ['mknod', join(prefix, `${place}mine`), 'c', '1', '5']).stderr).toContain(
        'not permitted',
      );
  });
});

describe.skipIf(whyNoMounts !== undefined)('sessions that change', () => {
  it('a uid change in mid-session: the prefix is the new uid’s, what was open stays, and its files are guarded by their modes', () => {
    const { prefix, path } = mounted();
    writeFileSync(path('anna/local/lib/private'), 'private');
    chownSync(path('anna/local/lib/private'), anna, anna);
    chmodSync(path('anna/local/lib/private'), 0o600);
    expect(answers(runProgram([program, 'change', prefix, String(anna), String(bert)]))).toEqual({
      'who by the file': 'anna',
      'who at the prefix': 'bert',
      'who below': 'ENOENT',
      'private below': 'EACCES',
      'who by ..': 'bert',
      'create below': 'EACCES',
      write: 'ENOENT',
      'who in the working directory': 'ENOENT',
      'who by its path': 'bert',
    });
  });

  it('descriptors passed over a socket give what they name and no more', () => {
    const { prefix, path } = mounted();
    for (const name of ['who', 'private']) {
      writeFileSync(path(`anna/local/lib/${name}`), name);
      chownSync(path(`anna/local/lib/${name}`), anna, anna);
    }
    chmodSync(path('anna/local/lib/private'), 0o600);
    expect(answers(runProgram([program, 'pass', prefix, String(anna), String(bert)]))).toEqual({
      'who by the file': 'anna',
      'who at the prefix': 'bert',
      'who below': 'who',
      'private below': 'EACCES',
      'who by ..': 'bert',
      'create below': 'EACCES',
      write: 'EACCES',
    });
  });

  it('a descriptor kept from before a remap reads the old content, and names relative to it stay in the old tree', async () => {
    const { prefix, path, point } = mounted();
    const caller = startCaller(anna);
    try {
      await caller.call(
        `globalThis.file = fs.openSync(args[0] + '/who'); process.chdir(args[0] + '/lib')`,
        prefix,
      );
      chmodSync(path('bert/local'), 0o777);
      chmodSync(path('bert/local/lib'), 0o777);
      point(anna, path('bert'));
      expect(await caller.call(`return fs.readFileSync(args[0] + '/who', 'utf8')`, prefix)).toBe('bert');
      expect(await caller.call(`return fs.readFileSync(globalThis.file, 'utf8')`)).toBe('anna');
      await caller.call(
        `fs.writeFileSync('kept', 'kept'); fs.mkdirSync('sub'); fs.renameSync('kept', 'sub/kept')`,
      );
      expect(readFileSync(path('anna/local/lib/sub/kept'), 'utf8')).toBe('kept');
      expect(readdirSync(path('bert/local/lib'))).toEqual([]);
    } finally {
      caller.close();
    }
  });

  it('callers that are killed in the middle of operations leave the mount answering, and no descriptor behind', async () => {
    const { prefix, path, servingPid } = mounted();
    const pid = servingPid();
    const descriptors = () => readdirSync(`/proc/${pid}/fd`).length;
    const open = () =>
      readdirSync(`/proc/${pid}/fd`).filter((fd) => linkOf(pid, fd).startsWith(path('anna'))).length;
    const before = descriptors();
    for (let round = 0; round < 30; round++) {
      const child = start(asUid(anna, [program, 'hammer', prefix, `n${round % 3}`, '30']));
      const held = start(asUid(anna, [program, 'hold', join(prefix, 'who'), '50']));
      await once(held.stdout ?? child, 'data');
      for (const killed of [child, held]) {
        killed.kill('SIGKILL');
        await once(killed, 'close');
      }
    }
    expect(runAs(anna, ['cat', join(prefix, 'who')]).stdout).toBe('anna');
    await expect.poll(() => descriptors() - before, { timeout: 20_000 }).toBeLessThan(60);
    expect(open()).toBeLessThan(60);
  });

  it('one user’s 10,000 open files do not keep another from opening his', async () => {
    const { prefix } = mounted();
    const holder = start([
      'prlimit',
      '--nofile=16000:16000',
      '--',
      ...asUid(anna, [program, 'hold', join(prefix, 'who'), '10000']),
    ]);
    let said = '';
    for await (const chunk of holder.stdout ?? []) if ((said += String(chunk)).includes('held')) break;
    expect(said).toBe('held\n');
    expect(runAs(bert, ['sh', '-c', `cat ${prefix}/who && touch ${prefix}/new && ls ${prefix}`]).stdout).toBe(
      'bertlib\nnew\nwho\n',
    );
  });
});

function linkOf(pid: number, fd: string): string {
  try {
    return execFileSync('readlink', [`/proc/${pid}/fd/${fd}`], { encoding: 'utf8' });
  } catch {
    return ''; // closed meanwhile
  }
}

describe.skipIf(whyNoMounts !== undefined)('the hidden tree roots', () => {
  it.each(['auto', 'none'])(
    'others who know their names get nothing, and cannot take the working directory from a step: --cache=%s',
    async (cache) => {
      const { prefix, run, stateDir, path } = mounted(`--cache=${cache}`);
      // Any process of the step may read it there.
      const inside = run([
        'exec',
        `--uid=${anna}`,
        '--prefix-mode=tree',
        prefix,
        '--',
        'cat',
        '/proc/self/mountinfo',
      ]);
      const root =
        inside.stdout
          .split('\n')
          .find((line) => line.includes('/.obuilder-fs.'))
          ?.split(' ')[3] ?? '';
      const [, doors = '', door = ''] = root.split('/');
      expect(doors).toMatch(/^\.obuilder-fs\./);
      chmodSync(path('bert/local'), 0o777);
      const victim = start([
        ...[process.execPath, mainProgram, 'exec', `--state-dir=${stateDir}`, `--uid=${anna}`],
        ...['--prefix-mode=tree', prefix, '--', program, 'getcwd', prefix, '5000'],
      ]);
      const attackers = [
        start(asUid(bert, [program, 'hammer', prefix, doors, String(SECONDS)])),
        start(asUid(bert, [program, 'hammer', prefix, join(doors, door), String(SECONDS)])),
        start(asUid(carl, [program, 'hammer', prefix, doors, String(SECONDS)])),
      ];
      const said = await Promise.all([victim, ...attackers].map(output));
      expect(said[0]).toBe('failures: 0\n');
      for (const answer of said.slice(1, 3)) expect(answer).toBe('rounds: many\ngot: 0\n');
      expect(runAs(anna, ['cat', join(prefix, 'who')]).stdout).toBe('anna');
    },
    SECONDS * 1000 + 60_000,
  );
});

async function output(child: ChildProcess): Promise<string> {
  let said = '';
  child.stdout?.on('data', (chunk) => (said += String(chunk)));
  await once(child, 'close');
  return said;
}

describe.skipIf(whyNoMounts !== undefined)('the daemon', () => {
  const refused = /^(EPERM|EACCES|ESRCH)$/;

  it('signals, ptrace and /proc of the mount process are refused, also while it works in the attacker’s name', () => {
    const { prefix, servingPid } = mounted();
    const pid = servingPid();
    for (let i = 0; i < 4; i++) start(asUid(anna, [program, 'hammer', prefix, `n${i}`, '60']));
    for (let round = 0; round < 20; round++) {
      for (const [attempt, answer] of Object.entries(attack(anna, 'daemon', pid)))
        if (attempt !== 'maps') expect(answer, attempt).toMatch(refused);
    }
    expect(runAs(anna, ['cat', join(prefix, 'who')]).stdout).toBe('anna');
  });

  it('its run directory is root’s alone, and nothing beside it is anybody’s to write', () => {
    const { stateDir } = mounted();
    expect(lstatSync(join(stateDir, 'run')).mode & 0o7777).toBe(0o700);
    const beside = [
      stateDir,
      '-path',
      join(stateDir, 'run'),
      '-prune',
      '-o',
      '-perm',
      '/022',
      '!',
      '-type',
      'l',
      '-print',
    ];
    const writable = execFileSync('find', beside, { encoding: 'utf8' });
    expect(writable).toBe('');
  });

  it('status, unmount, mount, exec and scoreboard are root’s', () => {
    const { prefix, stateDir, scoreboard } = mounted();
    for (const command of [
      ['status'],
      ['unmount', prefix],
      ['unmount', '--force', prefix],
      ['mount', prefix, `--scoreboard=${scoreboard}`],
      ['exec', `--uid=${bert}`, prefix, '--', 'true'],
      ['scoreboard', 'set', String(anna), '/tmp', `--scoreboard=${scoreboard}`],
      ['scoreboard', 'clear', String(anna), `--scoreboard=${scoreboard}`],
    ]) {
      const [name = '', ...args] = command;
      const options = name === 'scoreboard' ? [] : [`--state-dir=${stateDir}`];
      const done = runProgram(
        asUidReadingAll(anna, [process.execPath, mainProgram, name, ...options, ...args]),
      );
      expect(done.code, command.join(' ')).not.toBe(0);
      expect(done.stderr, command.join(' ')).toMatch(/needs root/);
    }
    expect(runAs(anna, ['cat', join(prefix, 'who')]).stdout).toBe('anna');
  });
});

beforeAll(() => {
  if (whyNoMounts === undefined) buildOperations();
});
