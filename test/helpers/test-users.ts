import { readFileSync } from 'node:fs';
import { createLinuxBuildUsers } from '../../src/sandbox/build-users-linux.ts';
import { endProcessesOf } from '../../src/sandbox/processes.ts';

/** Uids of the tests' own: an account or a process with one of them is always a test's, and may be removed. */
export const testUids = [7710, 7711, 7712, 7713, 7714, 7715, 7716, 7717, 7718, 7719] as const;

/** Why tests with real users cannot run here, or undefined: `describe.skipIf(whyNoTestUsers !== undefined)`. */
export const whyNoTestUsers = reason();

function reason(): string | undefined {
  if (process.platform !== 'linux') return 'real build users are tested on Linux';
  return process.getuid?.() === 0 ? undefined : 'making users takes root';
}

/** Ends the processes of the test uids and removes their accounts: before tests, for what a killed run left, and after. */
export async function removeTestUsers(uids: readonly number[] = testUids): Promise<void> {
  const users = createLinuxBuildUsers({ homePath: '/nonexistent' });
  for (const uid of uids) {
    await endProcessesOf(uid);
    await users.remove(uid);
  }
}

/** The mounts of this process's namespace whose mount point contains `part`. */
export function mountsWith(part: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.split(' ')[4]?.includes(part));
}
