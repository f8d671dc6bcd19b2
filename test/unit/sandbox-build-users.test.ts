import { describe, expect, test } from 'vitest';
import {
  createLinuxBuildUsers,
  groupaddCommand,
  parsePasswdLine,
  useraddCommand,
} from '../../src/sandbox/build-users-linux.ts';
import {
  createCommands,
  parseRead,
  parseSearchNames,
  removeCommands,
} from '../../src/sandbox/build-users-macos.ts';
import { refuseForeignAccount, refuseSystemUid } from '../../src/sandbox/build-users.ts';

test.each([0, 499, -1, 1.5, NaN, 2 ** 31])('uid %d is refused, and another is asked for', (uid) => {
  expect(() => refuseSystemUid(uid)).toThrow(
    expect.objectContaining({
      code: 'NOT_A_BUILD_USER',
      message: `uid ${uid}: not for a build user, the system keeps it`,
      hint: 'choose another --uid, 500 or above',
    }),
  );
});

test('root is never made, changed or removed', async () => {
  const users = createLinuxBuildUsers({ homePath: '/home/mac0' });
  await expect(users.find(0)).rejects.toMatchObject({ code: 'NOT_A_BUILD_USER' });
  await expect(users.ensure(0)).rejects.toMatchObject({ code: 'NOT_A_BUILD_USER' });
  await expect(users.remove(0)).rejects.toMatchObject({ code: 'NOT_A_BUILD_USER' });
});

test.each(['Ada Lovelace', '', 'obuilder-fs build user 2'])(
  'an account named "%s" is not ours',
  (fullName) => {
    expect(() => refuseForeignAccount({ uid: 1000, name: 'ada', fullName })).toThrow(
      expect.objectContaining({
        code: 'NOT_A_BUILD_USER',
        message: `uid 1000: belongs to the account ada${fullName && ` ("${fullName}")`}, not to a build user`,
        hint: 'choose another --uid',
      }),
    );
  },
);

describe('Linux', () => {
  test('a user is made with a group of its own, no home of its own and no powers', () => {
    expect(groupaddCommand(7000).join(' ')).toBe('groupadd --gid 7000 mac7000');
    expect(useraddCommand(7001, '/home/mac7000')).toEqual([
      ...['useradd', '--uid', '7001', '--gid', '7001', '--shell', '/bin/bash'],
      ...['--home-dir', '/home/mac7000', '--no-create-home', '--comment', 'obuilder-fs build user'],
      ...['--key', 'SUB_UID_COUNT=0', '--key', 'SUB_GID_COUNT=0', 'mac7001'],
    ]);
  });

  test.each([
    ['mac7000:x:7000:7000:obuilder-fs build user:/home/mac7000:/bin/bash\n', 'obuilder-fs build user'],
    ['mac7000:x:7000:7000:obuilder-fs build user,,,:/home/mac7000:/bin/bash\n', 'obuilder-fs build user'],
    ['mac7000:x:7000:7000::/home/mac7000:\n', ''],
  ])('an account is read from %j', (line, fullName) => {
    const account = { name: 'mac7000', uid: 7000, gid: 7000, fullName, homePath: '/home/mac7000' };
    expect(parsePasswdLine(line)).toEqual(account);
  });

  test('no line is no account', () => expect(parsePasswdLine('')).toBeUndefined());
});

describe('macOS', () => {
  test('a user is made by dscl, marked as ours before it can be found by its uid', () => {
    expect(createCommands(705, '/Users/mac705').map((argv) => argv.slice(2))).toEqual([
      ['-create', '/Groups/mac705'],
      ['-create', '/Groups/mac705', 'PrimaryGroupID', '705'],
      ['-create', '/Users/mac705'],
      ['-create', '/Users/mac705', 'RealName', 'obuilder-fs build user'],
      ['-create', '/Users/mac705', 'UserShell', '/bin/bash'],
      ['-create', '/Users/mac705', 'NFSHomeDirectory', '/Users/mac705'],
      ['-create', '/Users/mac705', 'PrimaryGroupID', '705'],
      ['-create', '/Users/mac705', 'Password', '*'],
      ['-create', '/Users/mac705', 'IsHidden', '1'],
      ['-create', '/Users/mac705', 'UniqueID', '705'],
    ]);
    expect(new Set(createCommands(705, '/').map((argv) => argv.slice(0, 2).join(' ')))).toEqual(
      new Set(['dscl .']),
    );
  });

  test('a user is removed with its group', () => {
    expect(removeCommands('mac705').map((argv) => argv.join(' '))).toEqual([
      'dscl . -delete /Users/mac705',
      'dscl . -delete /Groups/mac705',
    ]);
  });

  test.each([
    ['', 'UniqueID', []],
    ['mac705\t\tUniqueID = (\n    705\n)\n', 'UniqueID', ['mac705']],
    [
      'mac705\t\tRealName = (\n    "obuilder-fs build user"\n)\nmac706\t\tRealName = (\n    "obuilder-fs build user"\n)\n',
      'RealName',
      ['mac705', 'mac706'],
    ],
  ])('the search answer %j by %s names %j', (answer, key, names) =>
    expect(parseSearchNames(answer, key)).toEqual(names),
  );

  test('a record is read, whether a value stands beside its key or below it', () => {
    const answer =
      'NFSHomeDirectory: /Users/mac705\nPrimaryGroupID: 705\nRealName:\n obuilder-fs build user\n';
    expect([...parseRead(answer)]).toEqual([
      ['NFSHomeDirectory', '/Users/mac705'],
      ['PrimaryGroupID', '705'],
      ['RealName', 'obuilder-fs build user'],
    ]);
  });
});
