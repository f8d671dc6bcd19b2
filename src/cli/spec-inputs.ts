import { readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Options } from 'yargs';
import { errnoCode, ObuilderError } from '../errors.ts';
import { parseSpec } from '../spec/parse-spec.ts';
import type { Spec } from '../spec/spec.ts';

/** Options of the commands that read specs, word for word the same. */
export const secretOption = {
  type: 'string',
  nargs: 1,
  default: [] as string[],
  describe: 'ID:FILE: the value of a secret that the spec asks for',
  coerce: (given: string | string[]) => [given].flat(),
} satisfies Options;

export const idsOption = {
  choices: ['head', 'v0.5'] as const,
  requiresArg: true,
  default: 'head' as const,
  describe: 'Whose ids name the results: the newest OBuilder’s, or v0.5’s, for a store that it filled',
} satisfies Options;

/**
 * The spec in a file, `-` being standard input.
 * @throws {SpecError} {ObuilderError} SPEC_UNREADABLE
 */
export function readSpec(file: string): Spec {
  return parseSpec(readSource(file), specFileName(file));
}

/** What messages call a spec's file. */
export function specFileName(file: string): string {
  return file === '-' ? '<stdin>' : file;
}

function readSource(file: string): Buffer {
  try {
    return readFileSync(file === '-' ? 0 : file);
  } catch (cause) {
    throw new ObuilderError(
      'SPEC_UNREADABLE',
      `spec ${file} cannot be read: ${errnoCode(cause) ?? 'unknown error'}`,
      {
        hint: 'name a file, or - for standard input',
        cause,
      },
    );
  }
}

/** @throws {ObuilderError} CONTEXT_MISSING */
export function readContext(directory: string): string {
  const path = resolve(directory);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return path;
  throw new ObuilderError('CONTEXT_MISSING', `context ${directory} is not a directory`, {
    hint: 'name the directory that the spec copies from',
  });
}

/** The values of secrets, each given as ID:FILE. @throws {ObuilderError} BAD_OPTION, SECRET_UNREADABLE */
export function readSecrets(given: readonly string[]): Map<string, Uint8Array> {
  return new Map(given.map(readSecret));
}

function readSecret(given: string): [string, Uint8Array] {
  const [, id, file] = /^([^:]+):(.+)$/s.exec(given) ?? [];
  if (id === undefined || file === undefined) {
    // What was given may be the secret itself: it is not repeated.
    throw new ObuilderError('BAD_OPTION', '--secret: not ID:FILE', {
      hint: 'as in --secret=token:/run/token',
    });
  }
  try {
    return [id, readFileSync(file)];
  } catch (cause) {
    throw new ObuilderError(
      'SECRET_UNREADABLE',
      `secret ${id}: ${file} cannot be read: ${errnoCode(cause) ?? 'unknown error'}`,
      {
        hint: 'name a file that root can read',
        cause,
      },
    );
  }
}
