import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { TreeCopier } from '../../src/store/tree-copier.ts';

const never = new AbortController().signal;

/** What every copier promises of the trees that it copies; `place` is where it is to work. */
export function treeCopierContract(
  name: string,
  createCopier: () => TreeCopier,
  place: () => string = () => '/var/tmp',
): void {
  describe(`tree copier contract: ${name}`, () => {
    let root: string;
    let copier: TreeCopier;
    let source: string;
    beforeEach(async () => {
      root = mkdtempSync(join(place(), 'copier-'));
      copier = createCopier();
      source = join(root, 'source');
      await copier.create(source);
      fillTree(source);
    });
    afterEach(async () => {
      for (const unit of ['source', 'copy', 'moved']) await copier.remove(join(root, unit));
      rmSync(root, { recursive: true, force: true });
    });

    it('a copy is the same in everything that a step can tell', async () => {
      await copier.copy(source, join(root, 'copy'), never);
      expect(describeTree(join(root, 'copy'))).toBe(describeTree(source));
      expect(describeTree(source).split('\n').length).toBeGreaterThan(15);
    });

    it('filling a directory gives it the same content and attributes', async () => {
      const target = join(root, 'copy');
      await copier.create(target);
      mkdirSync(join(target, 'inside'));
      const elsewhere = mkdtempSync(join(tmpdir(), 'copier-'));
      fillTree(elsewhere);
      await copier.fill(elsewhere, join(target, 'inside'), never);
      expect(describeTree(join(target, 'inside'))).toBe(describeTree(elsewhere));
      rmSync(elsewhere, { recursive: true, force: true });
    });

    it('what is done to a copy is not done to the original, nor the other way round', async () => {
      const copy = join(root, 'copy');
      await copier.copy(source, copy, never);
      writeFileSync(join(copy, 'file'), 'changed');
      writeFileSync(join(source, 'large'), 'x', { flag: 'r+' });
      chmodSync(join(copy, 'dir'), 0o711);
      expect(readFileSync(join(source, 'file'), 'utf8')).toBe('text');
      expect(readFileSync(join(copy, 'large'), 'latin1')[0]).toBe('l');
      expect(lstatSync(join(source, 'dir')).mode & 0o7777).toBe(0o2750);
    });

    it('a cancelled copy throws, and what there is of it can be removed', async () => {
      const cancelled = AbortSignal.abort();
      await expect(copier.copy(source, join(root, 'copy'), cancelled)).rejects.toThrow();
      await copier.remove(join(root, 'copy'));
      expect(existsSync(join(root, 'copy'))).toBe(false);
    });

    it('moves at once, and a missing unit is told', async () => {
      const before = describeTree(source);
      await copier.move(source, join(root, 'moved'));
      expect(existsSync(source)).toBe(false);
      expect(describeTree(join(root, 'moved'))).toBe(before);
      await expect(copier.move(source, join(root, 'copy'))).rejects.toMatchObject({ code: 'ENOENT' });
    });

    it('removes a tree that no walk could enter, without following its links, and a missing one is no failure', async () => {
      const outside = join(root, 'outside');
      writeFileSync(outside, 'stays');
      symlinkSync(outside, join(source, 'out'));
      execFileSync('chattr', ['+i', join(source, 'file')], { stdio: 'ignore' });
      execFileSync('chattr', ['-i', join(source, 'file')], { stdio: 'ignore' });
      chmodSync(join(source, 'dir'), 0);
      await copier.settle(source);
      await copier.remove(source);
      expect(existsSync(source)).toBe(false);
      expect(readFileSync(outside, 'utf8')).toBe('stays');
      await copier.remove(source);
    });
  });
}

/** One of everything that a step may leave behind. */
function fillTree(tree: string): void {
  const at = (name: string) => join(tree, name);
  writeFileSync(at('file'), 'text');
  chownSync(at('file'), 7760, 7761);
  chmodSync(at('file'), 0o4711);
  linkSync(at('file'), at('hard-link'));
  writeFileSync(at('large'), 'large'.repeat(300_000));
  writeFileSync(at('empty'), '');
  writeFileSync(at('name\nwith \xff bytes'), 'odd');
  writeFileSync(at('sparse'), 'at its beginning');
  execFileSync('truncate', ['-s', '32M', at('sparse')]);
  writeFileSync(at('sparse'), 'in its middle', { flag: 'a' });
  execFileSync('truncate', ['-s', '64M', at('sparse')]);
  symlinkSync('../nowhere', at('link'));
  execFileSync('chown', ['-h', '7762:7763', at('link')]);
  execFileSync('mkfifo', [at('fifo')]);
  execFileSync('mknod', [at('device'), 'c', '1', '3']);
  execFileSync('setfattr', ['-n', 'user.note', '-v', 'kept', at('large')]);
  mkdirSync(at('dir'));
  linkSync(at('file'), at('dir/hard-link'));
  mkdirSync(at('dir/deep'));
  writeFileSync(at('dir/deep/last'), 'last');
  execFileSync('setfacl', ['-m', 'u:7764:rw', at('large')]);
  execFileSync('setfacl', ['-d', '-m', 'u:7764:rx', at('dir/deep')]);
  chownSync(at('dir'), 7760, 7761);
  chmodSync(at('dir'), 0o2750);
  for (const [number, name] of ['file', 'link', 'dir/deep', 'dir', '.'].entries()) {
    lutimesSync(at(name), 1_000_000_000 + number, 1_100_000_000 + number + 0.25);
  }
  chmodSync(tree, 0o751);
}

/** Each file's name, type, mode, owner, links, size, time, target and content, extended attributes and access lists. */
function describeTree(tree: string): string {
  const script = `
    find . -printf '%p %y %m %U:%G %l ' \\( -type d -printf '%T@\\n' -o -type f -printf '%T@ %s %n\\n' -o -type l -printf '%T@\\n' -o -printf '\\n' \\) | sort
    find . -type f -print0 | sort -z | xargs -0 sha256sum
    find . -type c -exec stat -c '%n %t:%T' {} +
    find . ! -type l ! -type p ! -type c -print0 | sort -z | xargs -0 getfattr -hd -m '^user' --
    find . ! -type l -print0 | sort -z | xargs -0 getfacl -pnE -- | grep -v '^# [og]'
    [ "$(du -k sparse | cut -f1)" -lt 32768 ] && echo sparse has holes`;
  return execFileSync('sh', ['-c', script], { cwd: tree, encoding: 'latin1' });
}
