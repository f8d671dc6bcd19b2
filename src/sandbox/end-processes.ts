import { setTimeout as delay } from 'node:timers/promises';
import { errnoCode, ObuilderError } from '../errors.ts';
import type { CommandRunner } from '../os/exec.ts';
import { refuseSystemUid } from './build-users.ts';

export interface UserProcess {
  readonly pid: number;
  readonly command: string;
}

/** How a system ends the processes of one uid. */
export interface ProcessEnd {
  /**
   * One go at killing them all; `left` are those that survived the last one, undefined at the first.
   * Answers why it may have missed some, where it failed.
   */
  kill(left: readonly UserProcess[] | undefined): Promise<Error | undefined>;
  /** Those that live. */
  list(): Promise<UserProcess[]>;
}

/**
 * Kills every process of `uid`, daemons and fork bombs too, and answers when none is left.
 * The caller has claimed the uid, so nobody starts a new one meanwhile.
 * @throws {ObuilderError} PROCESSES_REMAIN when some are still there after `deadlineMs`; it names them.
 */
export async function endProcesses(uid: number, end: ProcessEnd, deadlineMs = 20_000): Promise<void> {
  refuseSystemUid(uid);
  const deadline = Date.now() + deadlineMs;
  for (let left: readonly UserProcess[] | undefined; ;) {
    const failure = await end.kill(left);
    left = await end.list();
    if (left.length === 0 && failure === undefined) return;
    if (Date.now() > deadline)
      throw failure !== undefined && left.length === 0 ? failure : processesRemain(uid, left);
    await delay(5); // a killed process takes a moment to be gone
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

/** What a helper ends with when it has done its work, unlike all that it is started by. */
export const allKilled = 99;

/**
 * Runs a helper that does one kill(-1) as the user itself: it reaches all in one go, and on Linux none of them can fork any more.
 * The user's processes can stop or kill the helper, hence its time limit; then it answers why it failed.
 */
export async function killAsUser(helper: readonly string[], run: CommandRunner): Promise<Error | undefined> {
  return attempt(helper, run, { okCodes: [allKilled] });
}

/** A helper that needs no exec as the user, which fails while the user has more processes than allowed. */
export function killHelper(uid: number): string[] {
  const ids = `process.setgroups([]); process.setgid(${uid}); process.setuid(${uid});`;
  return [process.execPath, '-e', `${ids} process.kill(-1, 'SIGKILL'); process.exit(${allKilled})`];
}

/** Runs a command that may fail or hang: answers why it did not end well in time. */
export async function attempt(
  argv: readonly string[],
  run: CommandRunner,
  { okCodes = [0] }: { okCodes?: readonly number[] } = {},
): Promise<Error | undefined> {
  try {
    await run(argv, { signal: AbortSignal.timeout(2_000), okCodes });
    return undefined;
  } catch (error) {
    const isCommands = ['COMMAND_FAILED', 'COMMAND_MISSING', 'ABORT_ERR'].includes(errnoCode(error) ?? '');
    if (isCommands && error instanceof Error) return error;
    throw error;
  }
}
