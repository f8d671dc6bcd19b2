import { expect, it } from 'vitest';
import { parseMountInfo, parseMountOutput } from '../../src/fs/mount-table.ts';

it('Linux: a line of mountinfo tells mount point, type and source', () => {
  const line = '87 67 0:40 / /usr/local rw,nosuid shared:1 master:2 - fuse.obuilder-fs /srv/sb rw,user_id=0';
  expect(parseMountInfo(`${line}\n`)).toEqual([
    { mountPoint: '/usr/local', fsType: 'fuse.obuilder-fs', source: '/srv/sb' },
  ]);
});

it('Linux: blanks, tabs, newlines, backslashes and UTF-8 are what they were, byte by byte', () => {
  const line = '1 2 0:3 / /a\\040b\\011c\\012d\\134040/ü✓ rw - tmpfs no\\040ne rw';
  expect(parseMountInfo(line)).toEqual([
    { mountPoint: '/a b\tc\nd\\040/ü✓', fsType: 'tmpfs', source: 'no ne' },
  ]);
});

it('Linux: mounts keep their order, so the last one at a directory is on top', () => {
  const text = ['1 2 0:3 / /p rw - ext4 a rw', '2 2 0:4 / /p rw - tmpfs b rw', ''].join('\n');
  expect(parseMountInfo(text).map(({ source }) => source)).toEqual(['a', 'b']);
});

it('macOS: lines of mount(8), with blanks and " on " in the paths', () => {
  const text = `/dev/disk1s1 on / (apfs, local, journaled)
/srv/sb on /opt/homebrew (macfuse, nodev, nosuid, synchronous)
/a on b on /Volumes/My Disk (1) (hfs, local)
`;
  expect(parseMountOutput(text)).toEqual([
    { source: '/dev/disk1s1', mountPoint: '/', fsType: 'apfs' },
    { source: '/srv/sb', mountPoint: '/opt/homebrew', fsType: 'macfuse' },
    { source: '/a on b', mountPoint: '/Volumes/My Disk (1)', fsType: 'hfs' },
  ]);
});

it('nothing mounted is an empty table', () => {
  expect([parseMountInfo(''), parseMountOutput('')]).toEqual([[], []]);
});
