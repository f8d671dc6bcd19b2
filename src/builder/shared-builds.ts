import { join } from 'node:path';
import { ObuilderError } from '../errors.ts';
import type { StepOutcome } from '../sandbox/sandbox.ts';
import type { Store } from '../store/store.ts';
import { BuildLog, savedLog, type LogReader } from './build-log.ts';
import type { StepStart } from './step-start.ts';

/** Makes one result of the store, unless it is there. */
export interface StoreStep {
  readonly id: string;
  readonly base: string | undefined;
  /** For a look at its tree when it has failed. */
  readonly start: () => StepStart;
  /**
   * Called when the step must really run, before anything is copied for it.
   * @throws {ObuilderError} when the step cannot be run as it is written.
   */
  prepare(): StepWork;
}

/** A step that has failed, and the directory that `Store.build` gave it. */
export interface FailedStep {
  readonly id: string;
  readonly directory: string;
  readonly start: StepStart;
  readonly message: string;
}

/** Fills `directory` (Store.build says what is in it), saying `output` meanwhile; `onWait` when it waits for its turn first. */
export type StepWork = (
  directory: string,
  output: (chunk: Uint8Array) => void,
  signal: AbortSignal,
  onWait: () => void,
) => Promise<StepOutcome>;

/** A build that waits for a step. */
export interface Watcher {
  readonly output: (chunk: Uint8Array) => void;
  readonly note: (text: string) => void;
  /** Called when the step has failed and all its output was heard, before its tree is discarded. Others hear of the failure afterwards. */
  readonly onFailure?: ((step: FailedStep) => Promise<void>) | undefined;
  /** Fires when this build no longer wants the step. */
  readonly signal: AbortSignal;
}

export type SharedOutcome =
  | { readonly status: 'saved' | 'loaded'; readonly directory: string }
  | { readonly status: 'failed'; readonly message: string }
  | { readonly status: 'cancelled' };

/** OBuilder has no such note: there, several processes must not use one store. */
const WAITING_FOR_USER = 'Waiting for a build user: all are busy with other steps';

type Ending = SharedOutcome | { readonly status: 'broken'; readonly error: unknown };

/**
 * Runs a step once for all builds of this process that need it at the same time. Each of them hears the whole log and gets
 * the same outcome. A build that is cancelled leaves at once; the step itself is cancelled when its last watcher has left.
 */
export class SharedBuilds {
  readonly #store: Store;
  readonly #running = new Map<string, RunningStep>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** @throws what `step` or the store threw, to every watcher. */
  async run(step: StoreStep, watcher: Watcher): Promise<SharedOutcome> {
    while (!watcher.signal.aborted) {
      const running = this.#running.get(step.id) ?? this.#start(step);
      if (!running.isAbandoned) return await running.watch(watcher);
      watcher.note('Waiting for previous build to finish cancelling');
      await unlessAborted(running.ended, watcher.signal);
    }
    return { status: 'cancelled' };
  }

  /** Returns when no step is running: cancelled ones outlive the builds that wanted them. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  #start(step: StoreStep): RunningStep {
    const running = new RunningStep(this.#store, step, () => this.#running.delete(step.id));
    this.#running.set(step.id, running);
    return running;
  }
}

class RunningStep {
  readonly ended: Promise<Ending>;
  readonly #store: Store;
  readonly #step: StoreStep;
  readonly #cancel = new AbortController();
  readonly #logKnown: Promise<LogReader>;
  #setLog: (log: LogReader) => void = () => undefined;
  /** Open until the step has ended and its last watcher has left. */
  #log: BuildLog | undefined;
  /** Each with the end of what it hears. */
  readonly #watchers = new Map<Watcher, Promise<void>>();
  /** The note on what it waits for before it runs, for those who join. */
  #waitsFor: string | undefined;
  #hasEnded = false;

  constructor(store: Store, step: StoreStep, onEnd: () => void) {
    this.#store = store;
    this.#step = step;
    this.#logKnown = new Promise((resolve) => (this.#setLog = resolve));
    this.ended = this.#settle(onEnd);
  }

  /** Being cancelled: nobody may join any more. */
  get isAbandoned(): boolean {
    return this.#cancel.signal.aborted;
  }

  async watch(watcher: Watcher): Promise<SharedOutcome> {
    const heard = this.#hear(watcher);
    this.#watchers.set(watcher, heard);
    if (this.#waitsFor !== undefined) watcher.note(this.#waitsFor);
    const leave = () => {
      if (this.#watchers.delete(watcher)) this.#left();
    };
    watcher.signal.addEventListener('abort', leave);
    try {
      await heard;
      const ending = await unlessAborted(this.ended, watcher.signal);
      if (ending?.status === 'broken') throw ending.error;
      return ending ?? { status: 'cancelled' };
    } finally {
      watcher.signal.removeEventListener('abort', leave);
      leave();
    }
  }

  async #hear({ output, signal }: Watcher): Promise<void> {
    const readLog = await unlessAborted(this.#logKnown, signal);
    await readLog?.(output, signal);
  }

  #left(): void {
    if (this.#watchers.size > 0) return;
    if (this.#hasEnded) this.#closeLog();
    else this.#cancel.abort();
  }

  async #settle(onEnd: () => void): Promise<Ending> {
    // Not before the caller has registered this step and begun to watch it.
    await Promise.resolve();
    const ending = await this.#make().catch((error: unknown) => ({ status: 'broken' as const, error }));
    onEnd();
    this.#hasEnded = true;
    this.#setLog(() => Promise.resolve()); // when it ended before there was a log
    if (this.#watchers.size === 0) this.#closeLog();
    return ending;
  }

  async #make(): Promise<SharedOutcome> {
    const { id, base } = this.#step;
    const there = await this.#store.use(id);
    if (there !== undefined) return this.#loaded(there);
    const work = this.#step.prepare();
    const outcome = await this.#store.build(
      { id, base, onWait: (what) => this.#waits(`Waiting for ${what}`) },
      async (directory) => {
        const outcome = await this.#fill(directory, work);
        if (outcome.status === 'failed') await this.#tellFailure(directory, outcome.message);
        return outcome;
      },
      this.#cancel.signal,
    );
    if (outcome.status === 'failed' || outcome.status === 'cancelled') return outcome;
    const directory = await this.#store.use(id);
    if (directory === undefined) throw resultGone(id);
    return outcome.status === 'loaded' ? this.#loaded(directory) : { status: 'saved', directory };
  }

  #waits(note: string): void {
    this.#waitsFor = note;
    for (const watcher of this.#watchers.keys()) watcher.note(note);
  }

  #loaded(directory: string): SharedOutcome {
    this.#setLog(savedLog(join(directory, 'log')));
    return { status: 'loaded', directory };
  }

  async #fill(directory: string, work: StepWork): Promise<StepOutcome> {
    this.#waitsFor = undefined;
    const path = join(directory, 'log');
    const unloggable = new AbortController();
    const log = await BuildLog.create(path, (cause) => unloggable.abort(logUnwritable(path, cause)));
    this.#log = log;
    this.#setLog(log.read);
    const signal = AbortSignal.any([this.#cancel.signal, unloggable.signal]);
    const write = (chunk: Uint8Array) => {
      this.#waitsFor = undefined;
      log.write(chunk);
    };
    try {
      return await work(directory, write, signal, () => this.#waits(WAITING_FOR_USER));
    } finally {
      log.finish();
      unloggable.signal.throwIfAborted();
    }
  }

  async #tellFailure(directory: string, message: string): Promise<void> {
    for (const [{ onFailure }, heard] of this.#watchers) {
      if (onFailure === undefined) continue;
      await heard;
      await onFailure({ id: this.#step.id, directory, start: this.#step.start(), message });
    }
  }

  #closeLog(): void {
    const log = this.#log;
    this.#log = undefined;
    // Everything was written and read: there is nothing that a failing close could still lose.
    log?.close().catch(() => undefined);
  }
}

/** What `promise` gives, or undefined as soon as `signal` fires. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  if (signal.aborted) return undefined;
  let stop = (): void => undefined;
  const aborted = new Promise<undefined>((resolve) => {
    stop = () => {
      resolve(undefined);
    };
    signal.addEventListener('abort', stop);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function logUnwritable(path: string, cause: unknown): ObuilderError {
  return new ObuilderError(
    'LOG_WRITE',
    `${path}: the step's log cannot be written: ${(cause as Error).message}`,
    {
      hint: 'free space on the disk of the store (obuilder-fs clean), then build again',
      cause,
    },
  );
}

/** Another process deleted a result that this build still needs. */
export function resultGone(id: string): ObuilderError {
  return new ObuilderError('BASE_GONE', `${id}: the result was deleted while a build needed it`, {
    hint: 'run the build again: it makes the result anew',
  });
}
