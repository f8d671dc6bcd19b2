import { execFileSync, spawnSync } from 'node:child_process';
import { chownSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  anna,
  createScratchMount,
  startCaller,
  whyNoMounts,
  type CallerProcess,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

describe.skipIf(whyNoMounts !== undefined).each(['handles', 'paths'])(
  'errors of the file system below a tree reach the caller as themselves (%s)',
  (backing) => {
    let scratch: ScratchMount;
    let user: CallerProcess;
    let tree: string;

    beforeEach(() => {
      scratch = createScratchMount();
      tree = scratch.path('small');
      mkdirSync(tree);
      user = startCaller(anna);
    });
    afterEach(() => {
      user.close();
      scratch.run(['unmount', '--force', scratch.prefix]);
      spawnSync('umount', [tree], { stdio: 'ignore' });
      scratch.close();
    });

    /** Serves anna the file system that is mounted at `tree` by now. */
    function serve(): void {
      const local = join(tree, 'local');
      mkdirSync(local, { recursive: true });
      chownSync(local, anna, anna);
      scratch.point(anna, tree);
      scratch.mount(`--backing=${backing}`);
    }
    const mountTmpfs = (options: string) =>
      execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', tree]);
    const attempt = (body: string) => user.attempt(body, scratch.prefix);
    const FILL = `const fd = fs.openSync(args[0] + '/full', 'w');
      try { for (;;) fs.writeSync(fd, Buffer.alloc(65536)); } finally { fs.closeSync(fd); }`;

    it('ENOSPC: no blocks left', async () => {
      mountTmpfs('size=1m');
      serve();
      expect(await attempt(FILL)).toBe('ENOSPC');
      expect(
        await attempt(`fs.unlinkSync(args[0] + '/full'); fs.writeFileSync(args[0] + '/f', 'fits'); return 1`),
      ).toBe(1);
    });

    it('ENOSPC: no inodes left', async () => {
      mountTmpfs('nr_inodes=20');
      serve();
      for (const make of ['fs.writeFileSync(name, "")', 'fs.mkdirSync(name)', 'fs.symlinkSync("x", name)'])
        expect(
          await attempt(
            `for (let i = 0; ; i++) { const name = args[0] + '/' + i + Math.random(); ${make}; }`,
          ),
        ).toBe('ENOSPC');
    });

    it('EROFS: mounted read-only meanwhile', async () => {
      mountTmpfs('size=1m');
      serve();
      expect(
        await attempt(`fs.mkdirSync(args[0] + '/d'); fs.writeFileSync(args[0] + '/d/f', 'x'); return 1`),
      ).toBe(1);
      // The kernel tells of a closed file a moment after its user has gone on.
      await vi.waitFor(() => execFileSync('mount', ['-o', 'remount,ro', tree], { stdio: 'ignore' }), 20_000);
      for (const change of [
        `fs.writeFileSync(args[0] + '/d/f', 'y')`,
        `fs.writeFileSync(args[0] + '/new', 'y')`,
        `fs.mkdirSync(args[0] + '/new')`,
        `fs.symlinkSync('x', args[0] + '/new')`,
        `fs.linkSync(args[0] + '/d/f', args[0] + '/new')`,
        `fs.unlinkSync(args[0] + '/d/f')`,
        `fs.rmdirSync(args[0] + '/d')`,
        `fs.renameSync(args[0] + '/d', args[0] + '/e')`,
        `fs.chmodSync(args[0] + '/d', 0o700)`,
        `fs.truncateSync(args[0] + '/d/f', 0)`,
        `fs.utimesSync(args[0] + '/d/f', 1, 1)`,
      ])
        expect([change, await attempt(change)]).toEqual([change, 'EROFS']);
      expect(await attempt(`return fs.readFileSync(args[0] + '/d/f', 'utf8')`)).toBe('x');
    });

    it('EIO: a disk that has lost its end', async () => {
      const content = scratch.path('content');
      mkdirSync(join(content, 'local'), { recursive: true });
      writeFileSync(join(content, 'local/big'), Buffer.alloc(6 << 20, 'x'));
      const image = makeImage('8M', '-O', '^has_journal', '-d', content);
      const loop = attach(image);
      truncateSync(image, 4 << 20);
      execFileSync('mount', [loop, tree]);
      execFileSync('losetup', ['--detach', loop]); // once it is unmounted
      serve();
      expect(await attempt(`return fs.readFileSync(args[0] + '/big').length`)).toBe('EIO');
    });

    it('EDQUOT: the quota of a btrfs subvolume', async () => {
      const image = scratch.path('image');
      writeFileSync(image, '');
      truncateSync(image, 128 << 20);
      execFileSync('mkfs.btrfs', ['-q', image]);
      execFileSync('mount', ['-o', 'loop', image, tree]);
      const local = join(tree, 'local');
      for (const command of [
        ['quota', 'enable', tree],
        ['subvolume', 'create', local],
        ['qgroup', 'limit', '1M', local],
      ])
        execFileSync('btrfs', command, { stdio: 'ignore' });
      serve();
      // Node has no name for this error.
      const answer = await attempt(`try { ${FILL} } catch (error) { return -error.errno; }`);
      expect(answer).toBe(constants.errno.EDQUOT);
      expect(await attempt(`fs.unlinkSync(args[0] + '/full'); return 1`)).toBe(1);
    });

    function makeImage(size: string, ...options: string[]): string {
      const image = scratch.path('image');
      execFileSync('mkfs.ext4', ['-q', '-m', '0', ...options, image, size]);
      return image;
    }
    function attach(image: string): string {
      return execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim();
    }
  },
);
