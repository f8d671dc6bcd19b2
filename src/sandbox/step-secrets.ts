import { posix } from 'node:path';
import type { StepCommand } from './sandbox.ts';

/** The variable that tells a step where its secrets are, as OBuilder's macOS backend has it. */
export const secretsVariable = 'OBUILDER_SECRETS_DIR';

/** The name of a secret's file. */
export function secretName(target: string): string {
  return posix.basename(target);
}

/** Why these secrets cannot be given to a step; undefined when they can. */
export function refusedSecrets(secrets: StepCommand['secrets']): string | undefined {
  const targets = secrets.map(({ target }) => target);
  const nameless = targets.find((target) => ['', '.', '..'].includes(secretName(target)));
  if (nameless !== undefined) return `secret target ${JSON.stringify(nameless)}: it names no file`;
  const twice = targets.find((target, i) =>
    targets.slice(0, i).some((other) => secretName(other) === secretName(target)),
  );
  if (twice === undefined) return undefined;
  return `two secrets are called ${secretName(twice)}: give each a target with a name of its own`;
}
