import { ObuilderError } from '../errors.ts';
import { SpecError } from '../spec/spec-error.ts';
import { EXIT_FAILURE, EXIT_USAGE } from './exit-codes.ts';
import { terminalText } from './terminal-text.ts';

/** Errors in what was asked for, rather than in what the machine could do. */
const USAGE_CODES = new Set(['BAD_USAGE', 'BAD_SUBDIR', 'BAD_PREFIX', 'BAD_UID', 'BAD_TARGET', 'BAD_OPTION']);

/** The one place that words an error for a terminal: one line, the thing and the cause, then the remedy. */
export function describeError(error: unknown): string {
  if (error instanceof ObuilderError)
    return error.hint === undefined ? error.message : `${error.message}; ${error.hint}`;
  return error instanceof Error ? error.message : String(error);
}

export function exitCodeOf(error: unknown): number {
  return error instanceof ObuilderError && USAGE_CODES.has(error.code) ? EXIT_USAGE : EXIT_FAILURE;
}

interface PrintOptions {
  readonly isVerbose: boolean;
  readonly program?: string;
}

/** Prints an error, and for a bad spec the line where it shows; its stack only when asked to. */
export function printError(error: unknown, { isVerbose, program = 'obuilder-fs' }: PrintOptions): void {
  console.error(`${program}: ${terminalText(oneLine(describeError(error)))}`);
  if (error instanceof SpecError && error.underlined !== undefined) console.error(error.underlined);
  if (isVerbose && error instanceof Error) console.error(error.stack);
}

function oneLine(text: string): string {
  return text.trim().replaceAll(/\s*\n\s*/g, '; ');
}
