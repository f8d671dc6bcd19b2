/**
 * A broken host or a wrong request: something the person at the keyboard can mend.
 * (A build that fails or is cancelled is a value, see builder/builder.ts; a broken invariant is a plain Error starting "BUG:".)
 * `message` names the thing and the cause, `hint` the remedy. cli/print-error.ts alone words them for a terminal.
 */
export class ObuilderError extends Error {
  override readonly name = 'ObuilderError';
  /** Stable, upper case, for programs: e.g. `PREFIX_BUSY`. */
  readonly code: string;
  readonly hint: string | undefined;

  constructor(code: string, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}

/** The `code` of a Node or addon system error (`ENOENT`…), or undefined for anything else. */
export function errnoCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}
