import { readdir, readFile } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import { allKilled, endProcesses, killAsUser, killHelper, type UserProcess } from './end-processes.ts';

/** Every process that may act as `uid`, without those that are dead and only not yet reaped. */
export async function processesOf(uid: number): Promise<UserProcess[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(pids.map(async (pid) => processFromStatus(uid, pid, await statusOf(pid))));
  return found.filter((one) => one !== undefined);
}

/**
 * As `endProcesses` has it. A list of processes alone proves nothing, however empty: one that forks and ends while it is
 * read is not on it, and neither is its child. So a kill(-1) as the user comes before each.
 */
export function endProcessesOf(uid: number, deadlineMs?: number): Promise<void> {
  async function kill(left: readonly UserProcess[] | undefined): Promise<Error | undefined> {
    for (const { pid } of left ?? []) killOne(pid);
    return killAsUser(left === undefined ? quickHelper(uid) : killHelper(uid), runCommand);
  }
  return endProcesses(uid, { kill, list: () => processesOf(uid) }, deadlineMs);
}

/** Some ten times as fast as the one that needs no exec as the user. */
function quickHelper(uid: number): string[] {
  const ids = ['--reuid', String(uid), '--regid', String(uid), '--clear-groups'];
  return ['setpriv', ...ids, '--', '/bin/sh', '-c', `kill -KILL -1; exit ${allKilled}`];
}

function killOne(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (errnoCode(error) !== 'ESRCH') throw error;
  }
}

async function statusOf(pid: string): Promise<string> {
  try {
    return await readFile(`/proc/${pid}/status`, 'latin1');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(errnoCode(error) ?? '')) return ''; // ended meanwhile
    throw error;
  }
}

/** The process, if any of its uids (real, effective, saved, file system) is `uid` and it lives. */
export function processFromStatus(uid: number, pid: string, status: string): UserProcess | undefined {
  const field = (name: string) => new RegExp(`^${name}:\\t(.*)$`, 'm').exec(status)?.[1] ?? '';
  if (!field('Uid').split('\t').includes(String(uid))) return undefined;
  // A zombie with threads is alive: only its first thread has ended.
  if (/^[ZX]/.test(field('State')) && Number(field('Threads')) <= 1) return undefined;
  return { pid: Number(pid), command: field('Name') };
}
