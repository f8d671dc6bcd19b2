import { ObuilderError } from '../errors.ts';
import type { Fetcher } from '../fetcher/fetcher.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { Store } from '../store/store.ts';

/** What steps are made with. */
export interface StepHost {
  readonly store: Store;
  readonly sandbox: Sandbox;
  readonly fetcher: Fetcher;
}

/** A step that cannot be run as the spec has it. */
export class StepRefused extends Error {
  override readonly name = 'StepRefused';
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

/** The spec's or its sources' fault, not the machine's: the build fails, and that is an answer. */
const SPEC_FAULTS = new Set(['PATH_OUTSIDE', 'BAD_SOURCE', 'SOURCE_CHANGED']);

/** The failure that `error` means for a build, or undefined when it is a broken host's or ours. */
export function refusalOf(error: unknown): { readonly message: string; readonly hint?: string } | undefined {
  const isRefusal =
    error instanceof StepRefused || (error instanceof ObuilderError && SPEC_FAULTS.has(error.code));
  if (!isRefusal) return undefined;
  return error.hint === undefined ? { message: error.message } : { message: error.message, hint: error.hint };
}
