import { errnoCode } from '../errors.ts';
import { runCommand, type CommandRunner } from '../os/exec.ts';
import {
  buildUserFullName,
  buildUserName,
  nameTaken,
  refuseForeignAccount,
  refuseSystemUid,
  type BuildUser,
  type BuildUsers,
} from './build-users.ts';

/** Build users in the local directory node, made by dscl. Not administrators: nothing that they run needs to be. */
export function createMacosBuildUsers(options: { homePath: string; run?: CommandRunner }): BuildUsers {
  const { homePath, run = runCommand } = options;
  const users: BuildUsers = {
    async list() {
      const search = await run(['dscl', '.', '-search', '/Users', 'RealName', buildUserFullName]);
      const names = parseSearchNames(search.stdout, 'RealName');
      const uids = await Promise.all(names.map((name) => uidOf(name, run)));
      const found = await Promise.all(uids.sort((a, b) => a - b).map((uid) => findAccount(uid, run)));
      return found.filter((user) => user !== undefined);
    },
    async find(uid) {
      refuseSystemUid(uid);
      return findAccount(uid, run);
    },
    async ensure(uid) {
      refuseSystemUid(uid);
      const user = (await findAccount(uid, run)) ?? (await createUser(uid, homePath, run));
      if (user.homePath === homePath) return user;
      await run(setHomeCommand(user.name, homePath));
      return { ...user, homePath };
    },
    async remove(uid) {
      const user = await users.find(uid);
      if (user === undefined) return;
      await runAll(removeCommands(user.name), run);
    },
  };
  return users;
}

/**
 * The commands that make a build user, in order. The full name comes before the uid: an account is found by its uid, so a
 * creation that was interrupted leaves either nothing to be found or an account marked as ours.
 */
export function createCommands(uid: number, homePath: string): string[][] {
  const name = buildUserName(uid);
  const user = `/Users/${name}`;
  const group = `/Groups/${name}`;
  return [
    create(group),
    create(group, 'PrimaryGroupID', String(uid)),
    create(user),
    create(user, 'RealName', buildUserFullName),
    create(user, 'UserShell', '/bin/bash'),
    create(user, 'NFSHomeDirectory', homePath),
    create(user, 'PrimaryGroupID', String(uid)),
    create(user, 'Password', '*'),
    create(user, 'IsHidden', '1'),
    create(user, 'UniqueID', String(uid)),
  ];
}

export function setHomeCommand(name: string, homePath: string): string[] {
  return create(`/Users/${name}`, 'NFSHomeDirectory', homePath);
}

export function removeCommands(name: string): string[][] {
  return [
    ['dscl', '.', '-delete', `/Users/${name}`],
    ['dscl', '.', '-delete', `/Groups/${name}`],
  ];
}

/** The accounts that `dscl . -search /Users KEY VALUE` lists: `mac705		UniqueID = (`. */
export function parseSearchNames(answer: string, key: string): string[] {
  return [...answer.matchAll(new RegExp(`^(\\S+)\\s+${key}\\b`, 'gm'))].map(([, name = '']) => name);
}

/** What `dscl . -read` prints: `Key: value`, or `Key:` and the value on the next line, indented, when it holds a blank. */
export function parseRead(answer: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const [, key, value] of answer.matchAll(/^(\w+):[ \n]+(.*)$/gm)) {
    if (key !== undefined && value !== undefined) values.set(key, value.trim());
  }
  return values;
}

function create(record: string, ...attribute: string[]): string[] {
  return ['dscl', '.', '-create', record, ...attribute];
}

async function findAccount(uid: number, run: CommandRunner): Promise<BuildUser | undefined> {
  const search = await run(['dscl', '.', '-search', '/Users', 'UniqueID', String(uid)]);
  const [name] = parseSearchNames(search.stdout, 'UniqueID');
  if (name === undefined) return undefined;
  const keys = ['RealName', 'PrimaryGroupID', 'NFSHomeDirectory'];
  const record = parseRead((await run(['dscl', '.', '-read', `/Users/${name}`, ...keys])).stdout);
  refuseForeignAccount({ uid, name, fullName: record.get('RealName') ?? '' });
  return {
    uid,
    gid: Number(record.get('PrimaryGroupID') ?? uid),
    name,
    homePath: record.get('NFSHomeDirectory') ?? '',
  };
}

async function uidOf(name: string, run: CommandRunner): Promise<number> {
  const record = parseRead((await run(['dscl', '.', '-read', `/Users/${name}`, 'UniqueID'])).stdout);
  return Number(record.get('UniqueID'));
}

/** Writing the same record twice ends in the same record, so two processes at once do no harm. */
async function createUser(uid: number, homePath: string, run: CommandRunner): Promise<BuildUser> {
  try {
    await runAll(createCommands(uid, homePath), run);
  } catch (error) {
    if (errnoCode(error) !== 'COMMAND_FAILED') throw error;
    throw nameTaken(uid, error);
  }
  const name = buildUserName(uid);
  return { uid, gid: uid, name, homePath };
}

async function runAll(commands: string[][], run: CommandRunner): Promise<void> {
  for (const command of commands) await run(command);
}
