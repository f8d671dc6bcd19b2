import { readFile } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import { createLinuxBuildUsers } from './build-users-linux.ts';
import { suCommand, type HostSystem } from './host-system.ts';
import { removeIpc, removeOwned, type IpcObject } from './leftovers.ts';
import { endProcessesOf } from './processes-linux.ts';

/** Where everybody may write, POSIX objects among them, and where cron and at keep what is a user's, on the distributions there are. */
const sharedDirectories = [
  ...['/tmp', '/var/tmp', '/dev/shm', '/dev/mqueue', '/run/lock'],
  ...['/var/spool/cron', '/var/spool/cron/crontabs', '/var/spool/cron/atjobs', '/var/spool/at'],
];

/** Steps are in namespaces of their own; su is for those who want them without. */
export function createLinuxSystem(options: { homePath: string }): HostSystem {
  return {
    users: createLinuxBuildUsers(options),
    hasNamespaces: true,
    endProcessesOf: (uid) => endProcessesOf(uid),
    async clearLeftovers({ uid }) {
      await removeOwned(uid, sharedDirectories, runCommand);
      await removeIpc(await ipcObjectsOf(uid), runCommand);
    },
    loginPath,
    // GNU's su would take what follows the name for itself; after -- it is all the shell's.
    entry: (user) => Promise.resolve((login) => ['su', '-l', '--', user.name, '-c', '--', ...login]),
    asUser: (user, argv) => suCommand(['su', '--', user.name], argv),
  };
}

/** The kernel's lists, with the name of the column that holds an object's id. */
const ipcLists = [
  { kind: 'queue', file: '/proc/sysvipc/msg', id: 'msqid' },
  { kind: 'memory', file: '/proc/sysvipc/shm', id: 'shmid' },
  { kind: 'semaphores', file: '/proc/sysvipc/sem', id: 'semid' },
] as const;

async function ipcObjectsOf(uid: number): Promise<IpcObject[]> {
  const found = await Promise.all(
    ipcLists.map(async ({ kind, file, id }) =>
      parseIpcList(uid, id, await textOf(file)).map((object) => ({ kind, id: object })),
    ),
  );
  return found.flat();
}

/** The ids of objects that `uid` made or owns: who made one cannot be changed. */
export function parseIpcList(uid: number, idColumn: string, list: string): string[] {
  const [header = '', ...rows] = list.split('\n');
  const columns = header.trim().split(/\s+/);
  return rows.flatMap((row) => {
    const values = row.trim().split(/\s+/);
    const value = (column: string) => values[columns.indexOf(column)];
    const isOf = [value('uid'), value('cuid')].includes(String(uid));
    return isOf ? [value(idColumn) ?? ''] : [];
  });
}

/** As su takes it; what the login shell's profile makes of it comes after. */
async function loginPath(): Promise<string> {
  return parseLoginPath(await textOf('/etc/login.defs')) ?? '/usr/local/bin:/usr/bin:/bin';
}

/** `ENV_PATH PATH=/usr/local/bin:…`, where `PATH=` may be missing. */
export function parseLoginPath(loginDefs: string): string | undefined {
  return /^\s*ENV_PATH\s+(?:PATH=)?(\S+)/m.exec(loginDefs)?.[1];
}

/** Empty for a file that this machine does not have. */
async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return '';
    throw error;
  }
}
