import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoCode, ObuilderError } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import { refuseSystemUid } from './build-users.ts';

export interface UserProcess {
  readonly pid: number;
  readonly command: string;
}

/** Every process that may act as `uid`, without those that are dead and only not yet reaped. */
export async function processesOf(uid: number): Promise<UserProcess[]> {
  return process.platform === 'linux' ? processesInProc(uid) : processesByPs(uid);
}

/**
 * Kills every process of `uid`, daemons and fork bombs too, and answers when none is left.
 * The caller has claimed the uid, so nobody starts a new one meanwhile.
 * @throws {ObuilderError} PROCESSES_REMAIN when some are still there after `deadlineMs`; it names them.
 */
export async function endProcessesOf(uid: number, deadlineMs = 20_000): Promise<void> {
  refuseSystemUid(uid);
  const deadline = Date.now() + deadlineMs;
  let left = await processesOf(uid);
  while (left.length > 0) {
    if (Date.now() > deadline) throw processesRemain(uid, left);
    await killAllOf(uid);
    for (const { pid } of left) killOne(pid);
    await delay(5); // a killed process takes a moment to be gone
    left = await processesOf(uid);
  }
}

/**
 * One kill(-1) as the user itself: the kernel signals all it may in one go, so no fork slips through, as it could between
 * reading a list and killing what is on it. The user's processes can stop or kill the helper, hence its time limit.
 */
async function killAllOf(uid: number): Promise<void> {
  if (process.platform !== 'linux') return;
  const id = String(uid);
  const asUser = ['setpriv', '--reuid', id, '--regid', id, '--clear-groups', '--'];
  const argv = ['prlimit', '--nproc=unlimited', ...asUser, '/bin/sh', '-c', 'kill -KILL -1'];
  try {
    await runCommand(argv, { signal: AbortSignal.timeout(2_000), okCodes: [0, 1] });
  } catch (error) {
    if (!['COMMAND_FAILED', 'ABORT_ERR'].includes(errnoCode(error) ?? '')) throw error;
  }
}

function killOne(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (errnoCode(error) !== 'ESRCH') throw error;
  }
}

function processesRemain(uid: number, left: UserProcess[]): ObuilderError {
  const names = left.slice(0, 5).map(({ pid, command }) => `${command} (${pid})`);
  const more = left.length > names.length ? ` and ${left.length - names.length} more` : '';
  return new ObuilderError(
    'PROCESSES_REMAIN',
    `uid ${uid}: processes that cannot be killed: ${names.join(', ')}${more}`,
    {
      hint: 'they wait in the kernel, for a dead mount or a disk: unmount what they use, or restart the machine',
    },
  );
}

async function processesInProc(uid: number): Promise<UserProcess[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(pids.map(async (pid) => processFromStatus(uid, pid, await statusOf(pid))));
  return found.filter((one) => one !== undefined);
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

async function processesByPs(uid: number): Promise<UserProcess[]> {
  const list = await runCommand(['ps', '-axo', 'pid=,uid=,ruid=,state=,comm=']);
  return parsePs(uid, list.stdout);
}

export function parsePs(uid: number, list: string): UserProcess[] {
  return list.split('\n').flatMap((line) => {
    const [, pid, effective, real, state, command] =
      /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? [];
    if (pid === undefined || command === undefined || state?.startsWith('Z')) return [];
    return [effective, real].includes(String(uid)) ? [{ pid: Number(pid), command }] : [];
  });
}
