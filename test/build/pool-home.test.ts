import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLinuxSystem } from '../../src/sandbox/linux-system.ts';
import {
  createMovedHome,
  createRedirectedHome,
  putBackPlaced,
  type HomePlacement,
} from '../../src/sandbox/home-placement.ts';
import { createMountedPrefix, type MountedPrefix } from '../../src/sandbox/mounted-prefix.ts';
import { endProcessesOf } from '../../src/sandbox/processes-linux.ts';
import type { Sandbox, StepCommand } from '../../src/sandbox/sandbox.ts';
import { createUserSandbox } from '../../src/sandbox/user-sandbox.ts';
import {
  mainProgram,
  makeScratchDirectory,
  mountsBelow,
  removeScratch,
  runProgram,
  whyNoMounts,
} from '../helpers/scratch-mount.ts';
import { removeTestUsers } from '../helpers/test-users.ts';

describe.skipIf(whyNoMounts !== undefined).each(['one file system', 'two file systems'])(
  'a tree that is placed at the home path by itself, on %s',
  (where) => {
    let directory: string;
    let homes: HomePlacement;
    let rootfs: string;
    const path = (name: string) => join(directory, name);

    beforeEach(() => {
      directory = makeScratchDirectory();
      rootfs = path('result-tmp/id/rootfs');
      mkdirSync(path('homes'));
      if (where === 'two file systems')
        runProgram(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'obuilder-fs-test', path('homes')]);
      mkdirSync(join(rootfs, 'd'), { recursive: true });
      writeFileSync(join(rootfs, 'd/file'), 'before');
      chownSync(rootfs, 7770, 7770);
      homes = createMovedHome({ homePath: path('homes/mac7770'), journal: path('placed.json') });
    });
    afterEach(() => removeScratch(directory));

    const isEmptyPlace = () => {
      const { uid, mode } = lstatSync(path('homes/mac7770'));
      expect([uid, mode & 0o777]).toEqual([0, 0o755]);
      expect(readdirSync(path('homes/mac7770'))).toEqual([]);
      expect(readdirSync(directory)).not.toContain('placed.json');
    };

    it('is there with its owner and goes back with what was changed', async () => {
      for (const round of ['one', 'two']) {
        const { tree, takeBack } = await homes.place(rootfs, 7770);
        expect(tree).toBe(path('homes/mac7770'));
        expect(lstatSync(tree).uid).toBe(7770);
        writeFileSync(join(tree, 'd/file'), round);
        await takeBack();
        expect(readFileSync(join(rootfs, 'd/file'), 'utf8')).toBe(round);
        expect(lstatSync(rootfs).uid).toBe(7770);
        isEmptyPlace();
      }
    });

    it('what a killed process left there is put back before the next is placed', async () => {
      await homes.place(rootfs, 7770);
      const next = path('result-tmp/next/rootfs');
      mkdirSync(next, { recursive: true });
      writeFileSync(join(next, 'next'), '');
      const placed = await homes.place(next, 7770);
      expect(readdirSync(placed.tree)).toEqual(['next']);
      expect(readFileSync(join(rootfs, 'd/file'), 'utf8')).toBe('before');
      await placed.takeBack();
      isEmptyPlace();
    });

    it.each([0o1777, 0o775])('where others may write, in mode %o, nothing is placed', async (mode) => {
      chmodSync(path('homes'), mode);
      await expect(homes.place(rootfs, 7770)).rejects.toMatchObject({
        code: 'HOME_EXPOSED',
        message: `${path('homes/mac7770')}: others than root may write in ${path('homes')}`,
      });
      expect(readFileSync(join(rootfs, 'd/file'), 'utf8')).toBe('before');
    });

    it('it goes away where its result is not being made any more', async () => {
      await homes.place(rootfs, 7770);
      runProgram(['rm', '-rf', path('result-tmp/id')]);
      await putBackPlaced(path('placed.json'));
      isEmptyPlace();
      expect(existsSync(path('result-tmp/id'))).toBe(false);
    });

    it('killed before it was moved, or after it was taken back, nothing is lost', async () => {
      const { takeBack } = await homes.place(rootfs, 7770);
      const journal = readFileSync(path('placed.json'));
      await takeBack();
      if (where === 'two file systems') return; // the copy at the home path is gone with it
      writeFileSync(path('placed.json'), journal);
      await putBackPlaced(path('placed.json'));
      expect(readFileSync(join(rootfs, 'd/file'), 'utf8')).toBe('before');
      isEmptyPlace();
    });

    it('what is not ours is left alone, whatever a journal says', async () => {
      await homes.place(rootfs, 7770);
      runProgram(['mv', path('homes/mac7770'), path('homes/aside')]);
      mkdirSync(path('homes/mac7770'));
      writeFileSync(path('homes/mac7770/letter'), 'a person’s');
      await putBackPlaced(path('placed.json'));
      expect(readFileSync(path('homes/mac7770/letter'), 'utf8')).toBe('a person’s');
      await expect(homes.place(path('homes/aside'), 7770)).rejects.toMatchObject({ code: 'HOME_IN_USE' });
    });
  },
);

describe.skipIf(whyNoMounts !== undefined)(
  'steps without a home in a namespace of their own, as on macOS',
  () => {
    let directory: string;
    let close: (() => Promise<void>)[];
    const path = (name: string) => join(directory, name);
    const uids = [7770, 7771] as const;

    beforeEach(async () => {
      await removeTestUsers(uids);
      directory = makeScratchDirectory();
      close = [];
      for (const made of ['prefix', 'store', 'state', 'cache']) mkdirSync(path(made));
      chmodSync(path('store'), 0o700);
      writeFileSync(path('cache/kept'), 'kept');
    });
    afterEach(async () => {
      for (const end of close) await end();
      expect(mountsBelow(directory)).toEqual([]);
      expect(readdirSync(path('home'))).toEqual([]);
      await removeTestUsers(uids);
      removeScratch(directory);
    });

    function mounted(prefix: string, subdirectory: string): MountedPrefix {
      const lease = createMountedPrefix({
        ...{ prefix, subdirectory, scoreboard: path('scoreboard'), stateDir: path('run') },
        program: [process.execPath, mainProgram],
        endProcesses: async (all) => {
          for (const uid of all) await endProcessesOf(uid);
        },
      });
      close.push(() => lease.close());
      return lease;
    }

    function sandboxOf(users: readonly [number, ...number[]], home: HomePlacement): Sandbox {
      const sandbox = createUserSandbox({
        system: createLinuxSystem({ homePath: path('home') }),
        ...{ uids: users, homePath: path('home'), prefix: path('prefix'), stateDir: path('state'), home },
        ...{ prefixMode: 'shared', prefixView: mounted(path('prefix'), 'local') },
      });
      close.unshift(() => sandbox.close());
      return sandbox;
    }

    async function newTree(sandbox: Sandbox, name: string): Promise<string> {
      const tree = path(`store/${name}/rootfs`);
      mkdirSync(join(tree, 'local'), { recursive: true });
      await sandbox.adopt(tree);
      return tree;
    }

    async function runIn(sandbox: Sandbox, tree: string, script: string, more: Partial<StepCommand> = {}) {
      const command = { argv: ['/bin/sh', '-c', script], cwd: path('home'), env: [], network: ['host'] };
      let output = '';
      const outcome = await sandbox.run(
        { ...command, secrets: [], caches: [], ...more },
        tree,
        (chunk) => (output += Buffer.from(chunk).toString()),
        new AbortController().signal,
      );
      return { outcome, output };
    }

    it('moved: a login of the user’s own, with caches at their targets and secrets, and both ways to the prefix', async () => {
      const home = createMovedHome({ homePath: path('home'), journal: path('state/placed.json') });
      const sandbox = sandboxOf([7770], home);
      const tree = await newTree(sandbox, 'one');
      const cache = path('cache');
      await sandbox.adopt(cache);
      const { outcome, output } = await runIn(
        sandbox,
        tree,
        `set -e; id -u; pwd; cat .cache/kept; echo new > .cache/new; cat "$OBUILDER_SECRETS_DIR/token"
      echo x > ${path('prefix')}/made; cat ~/local/made; echo y > ~/local/more; cat ${path('prefix')}/more`,
        {
          caches: [{ target: path('home/.cache'), directory: cache }],
          secrets: [{ target: '/run/secrets/token', value: Buffer.from('hunter2\n') }],
        },
      );
      expect([output, outcome.status]).toEqual([`7770\n${path('home')}\nkepthunter2\nx\ny\n`, 'ok']);
      expect(readdirSync(tree).sort()).toEqual(['.cache', 'local']);
      expect(readdirSync(join(tree, '.cache'))).toEqual([]);
      expect(readdirSync(join(tree, 'local')).sort()).toEqual(['made', 'more']);
      expect(readdirSync(cache).sort()).toEqual(['kept', 'new']);
      expect(existsSync(path('home.secrets'))).toBe(false);
    });

    it('redirected: several at once each see their own tree at the home path, on results that they share', async () => {
      mkdirSync(path('home'));
      const sandbox = sandboxOf([7770, 7771], createRedirectedHome(path('home'), mounted(path('home'), '')));
      const trees = [await newTree(sandbox, 'one'), await newTree(sandbox, 'two')];
      const both = await Promise.all(
        trees.map((tree, i) =>
          runIn(
            sandbox,
            tree,
            `set -e; test ~ = ${path('home')}; echo ${i} > ~/who; echo ${i} > ${path('prefix')}/who
          for n in $(seq 50); do test "$(cat ~/who ~/local/who | sort -u)" = ${i}; mkdir -p ~/d/$n; done
          test "$(stat -c %u ~/who ~/local ~/d | sort -u)" = "$(id -u)"; id -u`,
          ),
        ),
      );
      expect(both.map(({ outcome }) => outcome)).toEqual([{ status: 'ok' }, { status: 'ok' }]);
      expect(both.map(({ output }) => output).sort()).toEqual(['7770\n', '7771\n']);
      for (const [i, tree] of trees.entries()) {
        expect(readFileSync(join(tree, 'who'), 'utf8')).toBe(`${i}\n`);
        expect([lstatSync(join(tree, 'who')).uid, lstatSync(join(tree, 'd/50')).uid]).toEqual([7770, 7770]);
      }
    });
  },
);
