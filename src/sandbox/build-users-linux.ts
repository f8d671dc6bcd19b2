import { errnoCode } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import {
  buildUserFullName,
  buildUserName,
  nameTaken,
  refuseForeignAccount,
  refuseSystemUid,
  type BuildUser,
  type BuildUsers,
} from './build-users.ts';

/** Tries at a change while another process makes one too: each lost try means that somebody else's went through. */
const triesMax = 5;

/** Build users in /etc/passwd, made by useradd. They share one home path, which useradd neither makes nor fills. */
export function createLinuxBuildUsers(options: { homePath: string }): BuildUsers {
  const users: BuildUsers = {
    async list() {
      const accounts = (await runCommand(['getent', 'passwd'])).stdout.split('\n').map(parsePasswdLine);
      const ours = accounts.filter((account) => account?.fullName === buildUserFullName);
      return ours
        .filter((account) => account !== undefined)
        .map(({ uid, gid, name, homePath }) => ({ uid, gid, name, homePath }))
        .sort((a, b) => a.uid - b.uid);
    },
    async find(uid) {
      refuseSystemUid(uid);
      return findAccount(uid);
    },
    async ensure(uid) {
      refuseSystemUid(uid);
      const user = (await findAccount(uid)) ?? (await createUser(uid, options.homePath));
      if (user.homePath === options.homePath) return user;
      return moveHome(user, options.homePath);
    },
    async remove(uid) {
      const user = await users.find(uid);
      if (user === undefined) return;
      await removeUser(user);
    },
  };
  return users;
}

/** One line of `getent passwd`; undefined when it is none. */
export function parsePasswdLine(
  line: string,
): { name: string; uid: number; gid: number; fullName: string; homePath: string } | undefined {
  const [name, , uid, gid, gecos, homePath] = line.trimEnd().split(':');
  if (name === undefined || uid === undefined || gid === undefined) return undefined;
  return {
    name,
    uid: Number(uid),
    gid: Number(gid),
    fullName: gecos?.split(',')[0] ?? '', // the rest are room and telephone numbers
    homePath: homePath ?? '',
  };
}

export function groupaddCommand(uid: number): string[] {
  return ['groupadd', '--gid', String(uid), buildUserName(uid)];
}

/** No password, no home from skel, and no ranges of subordinate ids: it needs to be nobody but itself. */
export function useraddCommand(uid: number, homePath: string): string[] {
  return [
    'useradd',
    ...['--uid', String(uid), '--gid', String(uid)],
    ...['--shell', '/bin/bash', '--home-dir', homePath, '--no-create-home'],
    ...['--comment', buildUserFullName],
    ...['--key', 'SUB_UID_COUNT=0', '--key', 'SUB_GID_COUNT=0'],
    buildUserName(uid),
  ];
}

/** What usermod and userdel end with when the user has processes; dead ones that init has not reaped yet count. */
const busy = 8;

async function moveHome(user: BuildUser, homePath: string): Promise<BuildUser> {
  const { exitCode } = await runCommand(['usermod', '--home', homePath, user.name], { okCodes: [0, busy] });
  if (exitCode === 0) return { ...user, homePath };
  await removeUser(user);
  return createUser(user.uid, homePath);
}

/** By force, which without --remove touches no files: dead processes do not keep the account. */
async function removeUser({ name }: BuildUser): Promise<void> {
  await runCommand(['userdel', '--force', name], { okCodes: [0, 6] }); // 6: gone meanwhile
  await runCommand(['groupdel', name], { okCodes: [0, 6] }); // userdel takes it along only by default
}

async function findAccount(uid: number): Promise<BuildUser | undefined> {
  const answer = await runCommand(['getent', 'passwd', String(uid)], { okCodes: [0, 2] });
  const account = parsePasswdLine(answer.stdout);
  if (account === undefined) return undefined;
  refuseForeignAccount(account);
  return { uid: account.uid, gid: account.gid, name: account.name, homePath: account.homePath };
}

/** Another process may be making the same user: then its account is as good as ours. */
async function createUser(uid: number, homePath: string): Promise<BuildUser> {
  let failure: unknown;
  for (let tries = 0; tries < triesMax; tries++) {
    failure = (await tryCommand(groupaddOnce(uid))) ?? (await tryCommand(runCommand(useraddCommand(uid, homePath))));
    const user = await findAccount(uid);
    if (user !== undefined) return user;
  }
  throw nameTaken(uid, failure);
}

async function groupaddOnce(uid: number): Promise<void> {
  const group = await runCommand(['getent', 'group', String(uid)], { okCodes: [0, 2] });
  if (group.stdout.startsWith(`${buildUserName(uid)}:`)) return;
  await runCommand(groupaddCommand(uid));
}

async function tryCommand(command: Promise<unknown>): Promise<unknown> {
  try {
    await command;
    return undefined;
  } catch (error) {
    if (errnoCode(error) !== 'COMMAND_FAILED') throw error;
    return error;
  }
}
