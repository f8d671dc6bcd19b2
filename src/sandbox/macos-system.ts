import { realpath } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';
import { runCommand, type CommandRunner } from '../os/exec.ts';
import { createMacosBuildUsers } from './build-users-macos.ts';
import type { BuildUser } from './build-users.ts';
import { suCommand, type EnteredStep, type HostSystem } from './host-system.ts';
import { removeIpc, removeOwned, type IpcObject } from './leftovers.ts';
import { endProcessesOf } from './processes-macos.ts';
import { sandboxExec } from './sandbox-profile.ts';

export interface MacosSystemOptions {
  readonly homePath: string;
  /** Whether steps are confined by sandbox-exec. */
  readonly sandboxExec?: boolean | undefined;
  /** Runs every command that is named here; tests give one that records. */
  readonly run?: CommandRunner;
  /** Where everybody may write, and where at keeps what is a user's. */
  readonly sharedDirectories?: readonly string[];
}

const allSharedDirectories = [
  ...['/private/tmp', '/private/var/tmp', '/private/var/at/jobs'],
  ...['/Users/Shared', '/Library/Caches', '/cores'],
];

export function createMacosSystem(options: MacosSystemOptions): HostSystem {
  const { homePath, run = runCommand, sharedDirectories = allSharedDirectories } = options;

  /** The system makes it where it is missing. */
  async function darwinUserDirectory(user: BuildUser): Promise<string | undefined> {
    const env = { PATH: systemPath };
    const answer = await run(asUser(user, ['getconf', 'DARWIN_USER_TEMP_DIR']), { okCodes: [0, 1], env });
    return parseDarwinDirectory(answer.stdout);
  }

  async function sandboxed(user: BuildUser, { places, network }: EnteredStep): Promise<string[]> {
    const tmp = await physicalPath(places.tmpPath);
    const directories = {
      HOME: await physicalPath(places.homePath),
      PREFIX: await physicalPath(places.prefix),
      TMPDIR: tmp,
      DARWIN_USER_DIR: (await darwinUserDirectory(user)) ?? tmp,
    };
    return sandboxExec(directories, { network });
  }

  return {
    users: createMacosBuildUsers({ homePath, run }),
    hasNamespaces: false,
    endProcessesOf: (uid) => endProcessesOf(uid, run),

    async clearLeftovers(user) {
      const darwin = await darwinUserDirectory(user);
      const all = darwin === undefined ? sharedDirectories : [...sharedDirectories, darwin];
      await removeOwned(user.uid, all, run);
      await run(['crontab', '-u', user.name, '-r'], { okCodes: [0, 1] }); // most have none
      await removeIpc(parseIpcs(user, (await run(['ipcs', '-c'])).stdout), run);
    },

    loginPath: () => Promise.resolve(systemPath),

    async entry(user, step) {
      if (options.sandboxExec !== true) return (login) => ['su', '-l', user.name, '-c', '--', ...login];
      const confined = await sandboxed(user, step);
      // The login shell reads files of the step's home, so it is confined itself.
      return (login) => asUser(user, [...confined, '/bin/bash', '--login', '-c', '--', ...login]);
    },

    asUser,
  };
}

/** What macOS's su has as a login's; /etc/profile puts what /etc/paths names before it. */
const systemPath = '/usr/bin:/bin:/usr/sbin:/sbin';

function asUser(user: BuildUser, argv: readonly string[]): string[] {
  return suCommand(['su', user.name], argv);
}

/**
 * The directory that holds a user's temporary files and caches, by the physical path, from the answer of `getconf DARWIN_USER_TEMP_DIR`:
 * `/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/`. Undefined for any other answer, since everything in there is removed.
 */
export function parseDarwinDirectory(answer: string): string | undefined {
  const [, directory] = /^(?:\/private)?(\/var\/folders\/[^/\n]+\/[^/\n]+)\/T\/?\n?$/.exec(answer) ?? [];
  return directory === undefined || /\/\.\.?(\/|$)/.test(directory) ? undefined : `/private${directory}`;
}

/** By the letter in the first column. */
const ipcKinds = new Map<string | undefined, IpcObject['kind']>([
  ['q', 'queue'],
  ['m', 'memory'],
  ['s', 'semaphores'],
]);

/** What `ipcs -c` lists as the user's: `m 65536 0x00000000 --rw------- mac705 staff mac705 staff`, the owner first, then who made it. */
export function parseIpcs({ uid, name }: BuildUser, list: string): IpcObject[] {
  return list.split('\n').flatMap((line) => {
    const [letter, id, , , owner, , creator] = line.trim().split(/\s+/);
    const kind = ipcKinds.get(letter);
    const isOf = [owner, creator].some((one) => one === name || one === String(uid));
    return kind !== undefined && id !== undefined && isOf ? [{ kind, id }] : [];
  });
}

/** What is not there is no link. */
async function physicalPath(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return path;
    throw error;
  }
}
