import type { CommandRunner } from '../os/exec.ts';
import { attempt, endProcesses, killAsUser, killHelper, type UserProcess } from './end-processes.ts';

/** Every process that acts as `uid`, without those that are dead and only not yet reaped. */
export async function processesOf(uid: number, run: CommandRunner): Promise<UserProcess[]> {
  return parsePs(uid, (await run(['ps', '-axo', 'pid=,uid=,ruid=,state=,comm='])).stdout);
}

export function parsePs(uid: number, list: string): UserProcess[] {
  return list.split('\n').flatMap((line) => {
    const [, pid, effective, real, state, command] =
      /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? [];
    if (pid === undefined || command === undefined || state?.startsWith('Z')) return [];
    return [effective, real].includes(String(uid)) ? [{ pid: Number(pid), command }] : [];
  });
}

/**
 * As `endProcesses` has it. The user's launchd jobs go first, or launchd would start them again. Then, over and over, one
 * kill(-1) as the user, which is quick, and pkill by real and by effective uid as root, whom nobody stops.
 */
export function endProcessesOf(uid: number, run: CommandRunner, deadlineMs?: number): Promise<void> {
  async function kill(left: readonly UserProcess[] | undefined): Promise<Error | undefined> {
    if (left === undefined) await attempt(['launchctl', 'bootout', `user/${uid}`], run); // most have no jobs
    const failure = await killAsUser(killHelper(uid), run);
    for (const id of ['-U', '-u']) await run(['pkill', '-KILL', id, String(uid)], { okCodes: [0, 1] });
    return failure;
  }
  return endProcesses(uid, { kill, list: () => processesOf(uid, run) }, deadlineMs);
}
