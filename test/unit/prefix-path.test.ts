import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { mountOptions } from '../../src/fs/mount-options.ts';
import { canonicalPrefix, checkOutside, parsePrefixRequest } from '../../src/fs/prefix-path.ts';

const directory = mkdtempSync(join(realpathSync(tmpdir()), 'obuilder-fs-prefix-path.'));
afterAll(() => rmSync(directory, { recursive: true }));

describe('PREFIX[=SUBDIR]', () => {
  it.each([
    ['/usr/local', '/usr/local', 'local'],
    ['/usr/local=opt', '/usr/local', 'opt'],
    ['/usr/local=a/b/', '/usr/local', 'a/b'],
    ['/home/x=.', '/home/x', ''],
    ['/home/x=./', '/home/x', ''],
    ['/with=equals=local', '/with=equals', 'local'],
    ['/usr/../usr/local/', '/usr/local', 'local'],
    ['relative', resolve('relative'), 'local'],
  ])('%s', (argument, prefix, subdirectory) => {
    expect(parsePrefixRequest(argument)).toEqual({ prefix, subdirectory });
  });

  it.each(['/p=', '/p=..', '/p=../x', '/p=a/..', '/p=/abs', '/p=a//b', '/p=a/./b'])(
    '%s is refused',
    (argument) => {
      expect(() => parsePrefixRequest(argument)).toThrow(
        expect.objectContaining({ code: 'BAD_SUBDIR' }) as Error,
      );
    },
  );

  it.each(['', '=local'])('"%s" is no prefix', (argument) => {
    expect(() => parsePrefixRequest(argument)).toThrow(
      expect.objectContaining({ code: 'BAD_PREFIX' }) as Error,
    );
  });
});

describe('what a mount process reads', () => {
  const prefix = join(directory, 'prefix');
  mkdirSync(join(prefix, 'below'), { recursive: true });
  symlinkSync(prefix, join(directory, 'link'));
  const check = (path: string) => () => checkOutside([prefix], new Map([['scoreboard', path]]));

  it.each(['prefix', 'prefix/below', 'prefix/not/yet', 'link/below', 'link/not/yet'])(
    'must not be %s, in the prefix',
    (path) => {
      const refusal = { code: 'PATH_INSIDE', message: expect.stringContaining(prefix) as string };
      expect(check(join(directory, path))).toThrow(expect.objectContaining(refusal) as Error);
    },
  );

  it.each(['prefix2', 'beside/not/yet', '.'])('may be %s, outside of it', (path) => {
    expect(check(join(directory, path))).not.toThrow();
  });

  it('can be nowhere when the prefix is the root', () => {
    expect(() => checkOutside(['/'], new Map())).toThrow(
      expect.objectContaining({ code: 'BAD_PREFIX' }) as Error,
    );
  });

  it('is compared with the prefix as the kernel names it', async () => {
    expect(await canonicalPrefix(join(directory, 'link'))).toBe(prefix);
    expect(await canonicalPrefix(join(directory, 'nope'))).toBe(join(directory, 'nope'));
  });
});

describe.skipIf(process.platform === 'darwin')('mount options', () => {
  const tail = ['fsname=/sb', 'subtype=obuilder-fs'];

  it.each<[given: string[], options: string[]]>([
    [[], ['allow_other', 'default_permissions', 'nosuid', 'nodev', ...tail]],
    [['suid,dev'], ['allow_other', 'default_permissions', ...tail, 'suid', 'dev']],
    [
      ['ro', 'allow_other'],
      ['default_permissions', 'nosuid', 'nodev', ...tail, 'ro', 'allow_other'],
    ],
    [
      ['', 'ro,,'],
      ['allow_other', 'default_permissions', 'nosuid', 'nodev', ...tail, 'ro'],
    ],
  ])('%j', (given, options) => {
    expect(mountOptions(given, '/sb')).toEqual(options);
  });

  it('a comma or backslash in the scoreboard’s path does not begin an option', () => {
    expect(mountOptions([], '/a,suid\\b')).toContain('fsname=/a\\,suid\\\\b');
  });

  it.each(['bogus', 'ro=1', 'max_read', 'fd=3', 'novncache'])('%s is refused', (option) => {
    const refusal = { code: 'BAD_OPTION', message: `unknown mount option "${option}"` };
    expect(() => mountOptions([`nosuid,${option}`], '/sb')).toThrow(
      expect.objectContaining(refusal) as Error,
    );
  });
});
