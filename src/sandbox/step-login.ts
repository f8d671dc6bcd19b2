import { constants } from 'node:os';
import type { BuildUser } from './build-users.ts';
import type { StepCommand, StepOutcome } from './sandbox.ts';
import type { StepPlaces } from './step-places.ts';
import { secretsVariable } from './step-secrets.ts';

/**
 * Runs as the build user, in its login shell, with the working directory, the environment and the command as arguments, so nothing
 * in them is ever parsed. The profile is sourced at home, in a function, where it cannot reach these arguments, and gets no input, which
 * may be the step's. That a profile ends with a false test is no failure.
 */
export const loginScript = `
cd 2>/dev/null
umask 022
profile() { . ~/.obuilder_profile.sh; }
if [ -e ~/.obuilder_profile.sh ]; then profile </dev/null; fi
mkdir -p -- "$1" && cd -- "$1" || exit
unset OLDPWD
shift
exec /usr/bin/env -- "$@"
`;

/** What a login shell is given to run the command: a script, its name and its arguments. */
export function loginArguments(command: StepCommand, places: StepPlaces): string[] {
  const secrets = [[secretsVariable, places.secretsPath] as const];
  const own = [...(command.secrets.length > 0 ? secrets : []), ['TMPDIR', places.tmpPath] as const];
  const env = [...own, ...command.env];
  const assignments = env.map(([name, value]) => `${name}=${value}`);
  return [loginScript, 'obuilder-fs-step', command.cwd, ...assignments, ...command.argv];
}

/** A login's environment, as `su -l` gives it: nothing of the operator's gets into a step. */
export function loginEnv(user: BuildUser, places: StepPlaces, path: string): Record<string, string> {
  return {
    HOME: places.homePath,
    USER: user.name,
    LOGNAME: user.name,
    SHELL: '/bin/bash',
    PATH: path,
    TMPDIR: places.tmpPath,
  };
}

/** How a child process ended, as Node tells it. */
export interface ProcessEnding {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** As shells tell it. */
export function exitStatusOf({ code, signal }: ProcessEnding): number {
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

/** How a step ended: by itself, perhaps having met a limit of the kernel's, or stopped by one of ours. */
export type Ending = (ProcessEnding & { readonly met?: string | undefined }) | { readonly stopped: string };

export function outcomeOf(argv: readonly string[], ending: Ending): StepOutcome {
  if ('stopped' in ending) {
    return { status: 'failed', message: `${quoted(argv)} was stopped: ${ending.stopped}` };
  }
  if (ending.code === 0) return { status: 'ok' };
  const how = ending.signal === null ? `exit status ${ending.code ?? -1}` : `signal ${ending.signal}`;
  const why = ending.met === undefined ? '' : `: ${ending.met}`;
  return { status: 'failed', message: `${quoted(argv)} failed with ${how}${why}` };
}

/** OBuilder's way: each element between quotes, nothing escaped. */
export function quoted(argv: readonly string[]): string {
  return argv.map((argument) => `"${argument}"`).join(' ');
}
