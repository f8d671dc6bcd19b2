import { describe, expect, it } from 'vitest';
import { mountOptions } from '../../src/fs/mount-options.ts';

describe('mount options', () => {
  it('are ours, but where what was given says otherwise', () => {
    expect(mountOptions([], '/sb', 'linux')).toEqual([
      ...['allow_other', 'default_permissions', 'nosuid', 'nodev'],
      ...['fsname=/sb', 'subtype=obuilder-fs'],
    ]);
    expect(mountOptions(['suid,dev', 'ro'], '/sb', 'linux')).toEqual([
      ...['allow_other', 'default_permissions', 'fsname=/sb', 'subtype=obuilder-fs'],
      ...['suid', 'dev', 'ro'],
    ]);
  });

  it('on macOS forbid the kernel to cache names, which it would show to every caller', () => {
    expect(mountOptions([], '/sb', 'darwin')).toContain('novncache');
    expect(mountOptions(['anything-of-macfuse'], '/sb', 'darwin')).toContain('anything-of-macfuse');
  });

  it('that are not known are refused by name', () => {
    expect(() => mountOptions(['bogus'], '/sb', 'linux')).toThrow('unknown mount option "bogus"');
  });

  it('keep a comma in the scoreboard’s name', () => {
    expect(mountOptions([], '/a,b', 'linux')).toContain('fsname=/a\\,b');
  });
});
