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
  for (let helper = quickHelper; ; helper = sureHelper) {
    const failure = await killAllOf(uid, helper(uid));
    const left = await processesOf(uid);
    if (left.length === 0 && failure === undefined) return;
    if (Date.now() > deadline)
      throw failure !== undefined && left.length === 0 ? failure : processesRemain(uid, left);
    for (const { pid } of left) killOne(pid);
    await delay(5); // a killed process takes a moment to be gone
  }
}

/** What a helper ends with when it has done its work, unlike all that it is started by. */
const allKilled = 99;

/**
 * One kill(-1) as the user itself: the kernel signals all it may in one go, and none of them can fork any more. A list of processes
 * alone proves nothing, however empty: one that forks and ends while it is read is not on it, and neither is its child.
 * The user's processes can stop or kill the helper, hence its time limit; then it answers why it failed.
 */
async function killAllOf(uid: number, helper: readonly string[]): Promise<Error | undefined> {
  try {
    await runCommand(helper, { signal: AbortSignal.timeout(2_000), okCodes: [allKilled] });
    return undefined;
  } catch (error) {
    const isHelpers = ['COMMAND_FAILED', 'COMMAND_MISSING', 'ABORT_ERR'].includes(errnoCode(error) ?? '');
    if (isHelpers && error instanceof Error) return error;
    throw error;
  }
}

function quickHelper(uid: number): string[] {
  const ids = ['--reuid', String(uid), '--regid', String(uid), '--clear-groups'];
  return ['setpriv', ...ids, '--', '/bin/sh', '-c', `kill -KILL -1; exit ${allKilled}`];
}

/** Some ten times slower. It needs no exec as the user, which fails while the user has more processes than allowed; nor setpriv. */
function sureHelper(uid: number): string[] {
  const ids = `process.setgroups([]); process.setgid(${uid}); process.setuid(${uid});`;
  return [process.execPath, '-e', `${ids} process.kill(-1, 'SIGKILL'); process.exit(${allKilled})`];
}

function killOne(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (errnoCode(error) !== 'ESRCH') throw error;
  }
}

export function processesRemain(uid: number, left: readonly UserProcess[]): ObuilderError {
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
