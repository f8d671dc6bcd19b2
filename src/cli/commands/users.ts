import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { ObuilderError } from '../../errors.ts';
import { tryLockFile } from '../../fs/file-lock.ts';
import { checkRoot } from '../../fs/prefix-path.ts';
import type { BuildUser } from '../../sandbox/build-users.ts';
import { privilegesOf } from '../../sandbox/user-privileges.ts';
import { lockPathOf } from '../../sandbox/user-pool.ts';
import { buildUids } from '../build-user-options.ts';
import { jsonOption, stateDirOption } from '../common-options.ts';
import { hostSystemOf } from '../compose.ts';

/** Its users are those that are there: none is made or moved here. */
const hostSystem = () => hostSystemOf({ homePath: '', sandboxExec: false });

interface UsersArguments {
  'state-dir': string;
}

export const usersCommand: CommandModule = {
  command: 'users <command>',
  describe: 'List or remove the accounts that steps run as',
  builder: (yargs: Argv) =>
    yargs
      .command([listCommand, removeCommand] as CommandModule[])
      .demandCommand(1, 'name one of list, remove')
      .example('$0 users list', 'every build user of this machine')
      .example('$0 users remove 705-712', 'removes eight'),
  handler: () => undefined,
};

const listCommand: CommandModule<object, UsersArguments & { json: boolean }> = {
  command: 'list',
  describe: 'Every build user, whether it runs a step, and by what it could gain privileges',
  builder: (yargs) => yargs.option('state-dir', stateDirOption).option('json', jsonOption),
  handler: async (argv) => {
    checkRoot('listing build users');
    const users = await Promise.all((await hostSystem().users.list()).map((user) => describe(user, argv)));
    if (argv.json) console.log(JSON.stringify({ users }, undefined, 2));
    else for (const user of users) console.log(line(user));
    for (const { name, privileges } of users) {
      if (privileges.length === 0) continue;
      const why = privileges.join(', ');
      console.error(
        `obuilder-fs: ${name} could gain privileges: ${why}; take it out of there, no step needs that`,
      );
    }
  },
};

const removeCommand: CommandModule<object, UsersArguments & { uid: string[] }> = {
  command: 'remove <uid..>',
  describe:
    'End the processes of build users, remove what they left and their accounts; an account that is not ours is refused',
  builder: (yargs) =>
    yargs
      .positional('uid', {
        type: 'string',
        array: true,
        demandOption: true,
        describe: 'A uid, or a range such as 705-712',
      })
      .option('state-dir', stateDirOption),
  handler: async (argv) => {
    checkRoot('removing build users');
    for (const uid of argv.uid.flatMap((range) => buildUids(range))) await remove(uid, argv);
  },
};

interface DescribedUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly homePath: string;
  readonly isBusy: boolean;
  readonly privileges: readonly string[];
}

async function describe(user: BuildUser, argv: UsersArguments): Promise<DescribedUser> {
  const { name, uid, gid, homePath } = user;
  const claim = tryClaim(uid, argv);
  claim?.release();
  return { name, uid, gid, homePath, isBusy: claim === undefined, privileges: await privilegesOf(user) };
}

function line({ name, uid, homePath, isBusy, privileges }: DescribedUser): string {
  const warning = privileges.length === 0 ? '' : `  (${privileges.join(', ')})`;
  return `${name.padEnd(12)} uid ${uid}  home ${homePath}  ${isBusy ? 'runs a step' : 'idle'}${warning}`;
}

async function remove(uid: number, argv: UsersArguments): Promise<void> {
  const system = hostSystem();
  const user = await system.users.find(uid);
  if (user === undefined) {
    console.log(`uid ${uid}: there is no build user`);
    return;
  }
  const claim = tryClaim(uid, argv);
  if (claim === undefined) {
    throw new ObuilderError('USER_BUSY', `${user.name}: runs a step`, {
      hint: 'wait for the build, or end it',
    });
  }
  try {
    await system.endProcessesOf(uid);
    await system.clearLeftovers(user);
    await system.users.remove(uid);
    console.log(`removed ${user.name}`);
  } finally {
    claim.release();
  }
}

/** As a step takes it: undefined while one runs. */
function tryClaim(uid: number, argv: UsersArguments): { release(): void } | undefined {
  const directory = join(argv['state-dir'], 'sandbox');
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return tryLockFile(lockPathOf(directory, uid), 'exclusive');
}
