import { errnoCode } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import type { BuildUser } from './build-users.ts';

/** Groups whose members may become root by the usual settings of some system of ours. */
const powerfulGroups = new Set(['admin', 'sudo', 'wheel', 'root', 'docker']);

/** By what a build user could gain privileges, each in a few words; empty for one that is nobody but itself, as all should be. */
export async function privilegesOf({ name }: BuildUser): Promise<string[]> {
  const [groups, isSudoer] = await Promise.all([groupsOf(name), mayUseSudo(name)]);
  const memberships = groups.filter((group) => powerfulGroups.has(group)).map((group) => `in group ${group}`);
  return isSudoer ? [...memberships, 'in sudoers'] : memberships;
}

async function groupsOf(name: string): Promise<string[]> {
  return (await runCommand(['id', '-Gn', name])).stdout.trim().split(/\s+/);
}

/** Asks sudo itself, which alone knows how its files are to be read; without it they give nobody anything. */
async function mayUseSudo(name: string): Promise<boolean> {
  try {
    const env = { ...process.env, LC_ALL: 'C' };
    const { stdout } = await runCommand(['sudo', '-n', '-l', '-U', name], { okCodes: [0, 1], env });
    return /may run the following commands/.test(stdout);
  } catch (error) {
    if (errnoCode(error) === 'COMMAND_MISSING') return false;
    throw error;
  }
}
