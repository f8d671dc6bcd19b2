import { resolve } from 'node:path';
import type { Options } from 'yargs';
import { ObuilderError } from '../errors.ts';

export const DEFAULT_STATE_DIR = '/var/lib/obuilder-fs';

/** Reads an option that names one path; yargs collects one that is repeated. */
export function onePath(option: string): (given: string | string[]) => string {
  return (given) => {
    if (typeof given === 'string' && given !== '') return resolve(given);
    const problem = given === '' ? 'is empty' : 'is given twice';
    throw new ObuilderError('BAD_USAGE', `--${option} ${problem}`, { hint: 'give one path' });
  };
}

/** Options that several commands share, word for word the same. */
export const stateDirOption = {
  type: 'string',
  requiresArg: true,
  default: process.env['OBUILDER_FS_STATE_DIR'] ?? DEFAULT_STATE_DIR,
  describe: 'Directory for locks, records of mounts, the scoreboard and the store (or OBUILDER_FS_STATE_DIR)',
  coerce: onePath('state-dir'),
} satisfies Options;

export const jsonOption = {
  type: 'boolean',
  default: false,
  describe: 'Print JSON, for scripts',
} satisfies Options;

export function defaultScoreboard(stateDir: string): string {
  return `${stateDir}/scoreboard`;
}

/** The prefix that Homebrew insists on. */
export function defaultPrefix(): string {
  return process.platform === 'darwin' && process.arch === 'arm64' ? '/opt/homebrew' : '/usr/local';
}
