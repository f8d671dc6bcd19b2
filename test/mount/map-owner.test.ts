import { chmodSync, chownSync, lstatSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  anna,
  bert,
  carl,
  createScratchMount,
  runAs,
  runProgram,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

/** Owns the files of the tree that anna and bert take turns on. Never calls. */
const owner = 7738;

describe.skipIf(whyNoMounts !== undefined).each(['handles', 'paths'])(
  '--map-owner: two uids take turns on one tree, --backing=%s',
  (backing) => {
    let scratch: ScratchMount;
    const turns: CallerProcess[] = [];

    beforeAll(() => {
      scratch = createScratchMount();
      scratch.makeTree('shared', owner);
      scratch.point(anna, scratch.path('shared'));
      scratch.point(bert, scratch.path('shared'));
      scratch.mount('--map-owner', `--backing=${backing}`);
      turns.push(startCaller(anna), startCaller(bert));
    });

    afterAll(() => {
      for (const caller of turns) caller.close();
      scratch.close();
    });

    const eachTurn = async (turn: (caller: CallerProcess, uid: number, round: number) => Promise<void>) => {
      for (let round = 0; round < 6; round++)
        for (const [i, caller] of turns.entries()) await turn(caller, [anna, bert][i] ?? 0, round);
    };
    const backingFiles = () =>
      readdirSync(scratch.path('shared'), { recursive: true, encoding: 'utf8' }).map((name) =>
        lstatSync(join(scratch.path('shared'), name)),
      );

    it('each sees all of it as its own, whatever the other made', async () => {
      await eachTurn(async (caller, uid, round) => {
        const seen = await caller.call(
          `const [prefix, name] = args;
          for (const where of ['', 'lib/']) {
            fs.writeFileSync(prefix + '/' + where + name, name);
            fs.mkdirSync(prefix + '/' + where + 'd' + name);
            fs.symlinkSync('x', prefix + '/' + where + 'l' + name);
          }
          return fs.readdirSync(prefix, { recursive: true }).map((path) => {
            const attr = fs.lstatSync(prefix + '/' + path);
            return attr.uid + ':' + attr.gid;
          });`,
          ...[scratch.prefix, `${uid}-${round}`],
        );
        expect(new Set(seen as string[])).toEqual(new Set([`${uid}:${uid}`]));
      });
      for (const attr of backingFiles()) expect([attr.uid, attr.gid]).toEqual([owner, owner]);
    });

    it('each can change what the other made: content, mode, times, attributes, names, directories', async () => {
      const prefix = scratch.prefix;
      await eachTurn(async (caller, uid, round) => {
        for (const place of ['', 'lib/'])
          await caller.call(
            `const [file, uid, round] = args;
            if (round > 0 || fs.existsSync(file)) {
              if (fs.readFileSync(file, 'utf8') === String(uid)) throw new Error('the other’s turn was lost');
              fs.chmodSync(file, 0o600 + round);
              fs.utimesSync(file, 1, 2);
              fs.renameSync(file, file + '.moved');
              fs.renameSync(file + '.moved', file);
              fs.rmdirSync(file + '.d');
              fs.linkSync(file, file + '.l');
              fs.unlinkSync(file + '.l');
            }
            fs.writeFileSync(file, String(uid));
            fs.truncateSync(file, 4);
            fs.chownSync(file, uid, uid);
            fs.mkdirSync(file + '.d');
            child_process.execFileSync('python3', ['-c', 'import os,sys; os.setxattr(sys.argv[1], "user.x", b"1"); os.removexattr(sys.argv[1], "user.x")', file]);
            const attr = fs.statSync(file);
            if (attr.uid !== uid || attr.gid !== uid) throw new Error('owner ' + attr.uid);`,
            ...[join(prefix, `${place}turns`), uid, round],
          );
      });
      for (const attr of backingFiles()) expect([attr.uid, attr.gid]).toEqual([owner, owner]);
    });

    it('files can be given to nobody else, and set-id bits are cleared as they should be', async () => {
      await eachTurn(async (caller, uid) => {
        const path = join(scratch.prefix, 'lib/given');
        await caller.call(`fs.writeFileSync(args[0], ''); fs.chmodSync(args[0], 0o4755)`, path);
        for (const other of [0, anna, bert, carl, owner].filter((id) => id !== uid)) {
          expect(await caller.attempt(`fs.chownSync(args[0], args[1], -1)`, path, other)).toBe('EPERM');
          expect(await caller.attempt(`fs.chownSync(args[0], -1, args[1])`, path, other)).toBe('EPERM');
        }
        await caller.call(`fs.appendFileSync(args[0], 'changed')`, path);
        expect(statSync(scratch.path('shared/local/lib/given')).mode & 0o7777).toBe(0o755);
      });
    });

    it('files of others keep their owner and their modes count', async () => {
      const path = scratch.path('shared/local/lib/roots');
      writeFileSync(path, 'root’s');
      chmodSync(path, 0o640);
      scratch.point(anna, scratch.path('shared'));
      await eachTurn(async (caller) => {
        const seen = join(scratch.prefix, 'lib/roots');
        expect(await caller.call(`return fs.statSync(args[0]).uid`, seen)).toBe(0);
        expect(await caller.attempt(`return fs.readFileSync(args[0])`, seen)).toBe('EACCES');
        expect(await caller.attempt(`fs.chmodSync(args[0], 0o666)`, seen)).toBe('EPERM');
        expect(await caller.attempt(`fs.chownSync(args[0], process.getuid(), -1)`, seen)).toBe('EPERM');
      });
    });

    it('modes bind the owner: a file without write permission, a directory without search', async () => {
      await eachTurn(async (caller) => {
        const path = join(scratch.prefix, 'lib/bound');
        await caller.call(
          `fs.mkdirSync(args[0]); fs.writeFileSync(args[0] + '/f', ''); fs.chmodSync(args[0] + '/f', 0o444)`,
          path,
        );
        expect(await caller.attempt(`fs.writeFileSync(args[0] + '/f', 'x')`, path)).toBe('EACCES');
        await caller.call(`fs.chmodSync(args[0], 0o600)`, path);
        expect(await caller.attempt(`fs.statSync(args[0] + '/f')`, path)).toBe('EACCES');
        await caller.call(`fs.chmodSync(args[0], 0o700); fs.rmSync(args[0], { recursive: true })`, path);
      });
    });

    it('what is made in a setgid directory takes its group, which is shown as the caller’s', async () => {
      await eachTurn(async (caller, uid) => {
        const path = join(scratch.prefix, `lib/setgid-${uid}`);
        await caller.call(
          `fs.rmSync(args[0], { recursive: true, force: true }); fs.mkdirSync(args[0]); fs.chmodSync(args[0], 0o2775);
          fs.mkdirSync(args[0] + '/below'); fs.writeFileSync(args[0] + '/file', '')`,
          path,
        );
        const below = statSync(scratch.path(`shared/local/lib/setgid-${uid}/below`));
        expect([below.mode & 0o7777, below.gid]).toEqual([0o2755, owner]);
        expect(await caller.call(`return fs.statSync(args[0] + '/file').gid`, path)).toBe(uid);
      });
      const club = scratch.path('shared/local/lib/club');
      runProgram(['install', '-d', '-o', String(owner), '-g', '7790', '-m', '2777', club]);
      scratch.point(anna, scratch.path('shared'));
      await turns[0]?.call(`fs.writeFileSync(args[0], '')`, join(scratch.prefix, 'lib/club/f'));
      const made = statSync(join(club, 'f'));
      expect([made.uid, made.gid]).toEqual([owner, 7790]);
    });

    it('nobody acts as root: a tree of root’s is shown and guarded as it is', () => {
      const tree = scratch.makeTree('roots', 0);
      scratch.point(carl, tree);
      const seen = join(scratch.prefix, 'who');
      expect(runAs(carl, ['stat', '-c%u', seen]).stdout).toBe('0\n');
      expect(runAs(carl, ['cat', seen]).stdout).toBe('roots');
      for (const command of [['touch'], ['chmod', '4755'], ['rm', '-f']])
        expect(runAs(carl, [...command, seen]).stderr, command[0]).toMatch(/denied|not permitted/);
      expect(runAs(carl, ['touch', join(scratch.prefix, 'planted')]).stderr).toContain('denied');
      rmSync(join(scratch.scoreboard, String(carl)));
    });

    it('third parties see the real owner and meet the real permissions, wherever they come from', () => {
      const secret = scratch.path('shared/local/lib/secret');
      writeFileSync(secret, 'secret');
      chownSync(secret, owner, owner);
      chmodSync(secret, 0o600);
      scratch.point(anna, scratch.path('shared'));
      expect(runAs(anna, ['cat', join(scratch.prefix, 'lib/secret')]).stdout).toBe('secret');
      // carl has no entry: what he sees is the covered directory.
      expect(runAs(carl, ['cat', join(scratch.prefix, 'who')]).stdout).toBe('covered');
      expect(runAs(carl, ['stat', '-c%u', join(scratch.prefix, 'who')]).stdout).toBe('0\n');
      expect(runAs(carl, ['cat', secret]).stderr).toContain('Permission denied');
      expect(runAs(owner, ['stat', '-c%u:%g', secret]).stdout).toBe(`${owner}:${owner}\n`);
      // One who was handed a directory of anna's view is not its owner there.
      const asCarl = ['setpriv', `--reuid=${carl}`, `--regid=${carl}`, '--clear-groups', '--'];
      const inAnnas = `cd ${scratch.prefix}/lib && exec "$0" "$@"`;
      const shell = ['setpriv', `--reuid=${anna}`, '--', 'sh', '-c', inAnnas];
      expect(runProgram([...shell, 'cat', 'secret']).stdout).toBe('secret');
      const handed = runProgram([
        'python3',
        '-c',
        `import os, sys
os.seteuid(${anna}); os.chdir(sys.argv[1]); os.seteuid(0)
os.execvp(sys.argv[2], sys.argv[2:])`,
        join(scratch.prefix, 'lib'),
        ...[...asCarl, 'sh', '-c', 'cat secret; touch planted; chmod 777 secret; mv secret stolen'],
      ]);
      expect(handed.stdout).toBe('');
      expect(handed.stderr.match(/Permission denied|not permitted/g)).toHaveLength(4);
      expect(readdirSync(scratch.path('shared/local/lib'))).not.toContain('planted');
    });
  },
);
