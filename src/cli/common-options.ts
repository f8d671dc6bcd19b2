import { resolve } from 'node:path';
import type { Options } from 'yargs';

export const DEFAULT_STATE_DIR = '/var/lib/obuilder-fs';

/** Options that several commands share, word for word the same. */
export const stateDirOption = {
  type: 'string',
  requiresArg: true,
  default: process.env['OBUILDER_FS_STATE_DIR'] ?? DEFAULT_STATE_DIR,
  describe: 'Directory for locks, records of mounts, the scoreboard and the store (or OBUILDER_FS_STATE_DIR)',
  coerce: (path: string) => resolve(path),
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
