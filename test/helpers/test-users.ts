import { readFileSync } from 'node:fs';
import { runCommand } from '../../src/os/exec.ts';
import { endProcessesOf } from '../../src/sandbox/processes-linux.ts';

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
  for (const uid of uids) {
    await endProcessesOf(uid);
    await removeEntry('passwd', uid, ['userdel', '--force']); // also while dead processes are not reaped
    await removeEntry('group', uid, ['groupdel']);
  }
}

async function removeEntry(database: string, id: number, remove: readonly string[]): Promise<void> {
  const found = await runCommand(['getent', database, String(id)], { okCodes: [0, 2] });
  const [name = ''] = found.stdout.split(':');
  if (name !== '') await runCommand([...remove, name]);
}

/** The mounts of this process's namespace whose mount point contains `part`. */
export function mountsWith(part: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.split(' ')[4]?.includes(part));
}
