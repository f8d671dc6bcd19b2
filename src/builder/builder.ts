import { join } from 'node:path';
import type { ByteString } from '../spec/byte-string.ts';
import { buildHeading, fromHeading, opHeading } from '../spec/print-spec.ts';
import { escapeAtom } from '../spec/sexp.ts';
import type { CopyOp, Op, Spec } from '../spec/spec.ts';
import type { BuildEvent } from './build-event.ts';
import { afterOp, initialContext, type BuildContext } from './build-context.ts';
import { copyStep } from './copy-step.ts';
import { fromStep, readImageEnv } from './from-step.ts';
import type { ObuilderVersion } from './obuilder-version.ts';
import { runStep, type Secrets } from './run-step.ts';
import {
  resultGone,
  SharedBuilds,
  type FailedStep,
  type SharedOutcome,
  type StoreStep,
} from './shared-builds.ts';
import { refusalOf, type StepHost } from './step-host.ts';

export interface BuildRequest {
  /** What `(copy …)` copies from. */
  readonly sourceDirectory: string;
  /** The values of secrets by their ids. They enter the ids of the steps that use them. */
  readonly secrets: Secrets;
  /** Hears the build's log, in order. */
  readonly emit: (event: BuildEvent) => void;
  readonly signal: AbortSignal;
  /** Called with a step that has failed, after its output and before its tree is discarded; then the build fails. */
  readonly onFailure?: ((step: FailedStep) => Promise<void>) | undefined;
  /** Whose ids name the results (default: `head`). */
  readonly ids?: ObuilderVersion;
}

export type { FailedStep } from './shared-builds.ts';

/** How a build ended. `loaded`: every step's result was there. */
export type BuildResult =
  | { readonly status: 'saved' | 'loaded'; readonly id: string }
  | { readonly status: 'failed'; readonly message: string; readonly hint?: string }
  | { readonly status: 'cancelled' };

/**
 * Builds specs: each step's result is looked up in the store by its id, and made from the result before it where it is missing.
 * Any number of builds may be under way; those that need the same step at once share it.
 */
export interface Builder {
  /**
   * A failed build is an answer; so is a cancelled one, which comes at once after `signal`.
   * @throws {ObuilderError} when the machine cannot build, or there is no such base image.
   */
  build(spec: Spec, request: BuildRequest): Promise<BuildResult>;

  /** Returns when no step is running any more: a cancelled one may outlive its build. Wait for it before closing store and sandbox. */
  idle(): Promise<void>;
}

export function createBuilder(host: StepHost): Builder {
  const shared = new SharedBuilds(host.store);
  return {
    async build(spec, request) {
      return await new Build(host, shared, request, countSteps(spec)).run(spec);
    },
    idle: () => shared.idle(),
  };
}

/** From, run and copy, of nested builds too. */
function countSteps(spec: Spec): number {
  let count = 0;
  const pending = [spec];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    count += 1 + next.ops.filter(({ op }) => op === 'run' || op === 'copy').length;
    pending.push(...next.builds.map((build) => build.spec));
  }
  return count;
}

/** A result that a step has, or how the build ended with the step. */
type Made = { readonly status: 'made'; readonly id: string; readonly directory: string };
type Ended = Extract<BuildResult, { status: 'failed' | 'cancelled' }>;

/** The results of the nested builds that may be copied from, by their names. */
type Scope = ReadonlyMap<ByteString, string>;

/** One build under way. */
class Build {
  readonly #host: StepHost;
  readonly #shared: SharedBuilds;
  readonly #request: BuildRequest;
  readonly #total: number;
  /** Keeps the results from being removed that later steps may need. */
  readonly #holds: { release(): void }[] = [];
  #index = 0;
  #hasSaved = false;

  constructor(host: StepHost, shared: SharedBuilds, request: BuildRequest, total: number) {
    this.#host = host;
    this.#shared = shared;
    this.#request = request;
    this.#total = total;
  }

  async run(spec: Spec): Promise<BuildResult> {
    try {
      const made = await this.#stage(spec, new Map());
      if (made.status !== 'made') return made;
      return { status: this.#hasSaved ? 'saved' : 'loaded', id: made.id };
    } finally {
      for (const hold of this.#holds) hold.release();
    }
  }

  async #stage(spec: Spec, outerScope: Scope): Promise<Made | Ended> {
    await Promise.resolve(); // nesting, however deep, grows no call stack
    const scope = new Map(outerScope);
    for (const { name, spec: nested } of spec.builds) {
      this.#request.emit({ type: 'heading', text: buildHeading(name) });
      const made = await this.#stage(nested, scope);
      if (made.status !== 'made') return made;
      this.#note(`--> finished "${escapeAtom(name)}"`);
      scope.set(name, made.id);
    }
    let result = await this.#step(fromHeading(spec.from), () => fromStep(this.#host, spec.from));
    if (result.status !== 'made') return result;
    let context = initialContext(this.#request.ids ?? 'head', await readImageEnv(result.directory));
    for (const op of spec.ops) {
      if (op.op === 'run' || op.op === 'copy') {
        const next = await this.#opStep(op, context, result.id, scope);
        if (next.status !== 'made') return next;
        result = next;
      } else {
        this.#request.emit({ type: 'heading', text: opHeading(context.workdir, op) });
        context = afterOp(context, op);
      }
    }
    return result;
  }

  async #opStep(
    op: Extract<Op, { op: 'run' | 'copy' }>,
    context: BuildContext,
    base: string,
    scope: Scope,
  ): Promise<Made | Ended> {
    const { secrets, signal } = this.#request;
    return await this.#step(opHeading(context.workdir, op), async () => {
      if (op.op === 'run') return runStep(this.#host, { context, base, run: op, secrets });
      const source = { directory: await this.#sourceOf(op, scope), signal };
      return await copyStep(this.#host, { context, base, copy: op, source });
    });
  }

  async #sourceOf({ from }: CopyOp, scope: Scope): Promise<string> {
    if (from.kind === 'context') return this.#request.sourceDirectory;
    const id = scope.get(from.name);
    if (id === undefined) throw new Error(`BUG: unknown build "${escapeAtom(from.name)}" passed the parser`);
    const directory = await this.#host.store.use(id);
    if (directory === undefined) throw resultGone(id);
    return join(directory, 'rootfs');
  }

  /** Makes the step, runs it unless its result is there, and says how it went. */
  async #step(heading: string, make: () => StoreStep | Promise<StoreStep>): Promise<Made | Ended> {
    const { emit, signal } = this.#request;
    if (signal.aborted) return { status: 'cancelled' };
    const step = { index: ++this.#index, total: this.#total };
    const begun = performance.now();
    emit({ type: 'heading', text: heading, step });
    let status: 'built' | 'cached' | 'failed' | 'cancelled' = 'failed';
    try {
      const { id, outcome } = await this.#outcomeOf(make);
      if (outcome.status === 'failed' || outcome.status === 'cancelled') {
        status = outcome.status;
        return outcome;
      }
      const hold = await this.#host.store.hold(id);
      if (hold === undefined) throw resultGone(id);
      this.#holds.push(hold);
      status = outcome.status === 'saved' ? 'built' : 'cached';
      this.#hasSaved ||= outcome.status === 'saved';
      this.#note(outcome.status === 'saved' ? `---> saved as "${id}"` : `---> using "${id}" from cache`);
      return { status: 'made', id, directory: outcome.directory };
    } finally {
      emit({ type: 'step-end', ...step, status, elapsedMs: performance.now() - begun });
    }
  }

  async #outcomeOf(
    make: () => StoreStep | Promise<StoreStep>,
  ): Promise<{ id: string; outcome: SharedOutcome | Ended }> {
    const { emit, signal, onFailure } = this.#request;
    try {
      const step = await make();
      const outcome = await this.#shared.run(step, {
        output: (data) => emit({ type: 'output', data }),
        note: (text) => this.#note(text),
        onFailure,
        signal,
      });
      return { id: step.id, outcome };
    } catch (error) {
      if (signal.aborted) return { id: '', outcome: { status: 'cancelled' } };
      const refusal = refusalOf(error);
      if (refusal === undefined) throw error;
      return { id: '', outcome: { status: 'failed', ...refusal } };
    }
  }

  #note(text: string): void {
    this.#request.emit({ type: 'note', text });
  }
}
