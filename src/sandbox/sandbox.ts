import type { Readable } from 'node:stream';

/** How a step ended. Failing is a value; a broken host throws an ObuilderError instead. */
export type StepOutcome =
  | { readonly status: 'ok' }
  /** `message` is one line, worded as OBuilder words it: `"/bin/bash" "-c" "false" failed with exit status 1`. */
  | { readonly status: 'failed'; readonly message: string }
  | { readonly status: 'cancelled' };

/**
 * A place in a step's file system. A spec's own root (`/`) is not the machine's: what was written relative to it stays
 * `root`, what the spec wrote as any other absolute path is `absolute`.
 */
export type StepPath =
  { readonly from: 'root'; readonly path: string } | { readonly from: 'absolute'; readonly path: string };

export interface StepCommand {
  readonly argv: readonly string[];
  /** Where it starts, from `locate`; made first where it is missing. */
  readonly cwd: string;
  readonly env: readonly (readonly [name: string, value: string])[];
  /** What the spec's `(network …)` says: nothing, or `host`. A sandbox that cannot isolate the network ignores it. */
  readonly network: readonly string[];
  /**
   * Files of the step alone, all in the directory that its OBUILDER_SECRETS_DIR names, each under the last component of its target.
   * A target from `locate` shows the file there too.
   */
  readonly secrets: readonly { readonly target: string; readonly value: Uint8Array }[];
  /** `directory` is the step's private copy of the cache, `target` where the step sees it, from `locate`. */
  readonly caches: readonly { readonly target: string; readonly directory: string }[];
  /** Without it standard input is at its end from the start. */
  readonly stdin?: Readable;
  /** Called once if the step has to wait for others to end, before it starts. */
  readonly onWait?: () => void;
  /**
   * With a terminal of its own, which this process's terminal is connected to: `stdin` and `output` have no part in it then, nor
   * have limits on time and output.
   */
  readonly onTerminal?: boolean;
  /** Called when it has ended by itself, with its exit status as shells tell it: 128 and more for a signal. */
  readonly onExit?: (exitStatus: number) => void;
}

/**
 * Runs the commands of steps, isolated from the host and from each other. Several `run`s may be under way at once.
 */
export interface Sandbox {
  /**
   * The path at which a step finds `path`.
   * @throws {ObuilderError} PATH_OUTSIDE when it lies where a step may not work; it names the path and the places that may be used.
   */
  locate(path: StepPath): string;

  /** Where a path from `locate` is kept, relative to the step's `rootfs` ('' is that itself); undefined when in no part of it. */
  inTree(located: string): string | undefined;

  /** Makes a tree the build user's own: a freshly fetched base image before its result is saved, and a step's copy of a cache. */
  adopt(directory: string): Promise<void>;

  /**
   * Runs `command` on the tree `rootfs` and answers when it and every process it left behind are gone.
   * Output (both streams) goes to `output` as it is written. After `signal` the answer is `cancelled`.
   * @throws {ObuilderError} when the host cannot run steps (no mount, no user…); the step is then neither saved nor failed.
   */
  run(
    command: StepCommand,
    rootfs: string,
    output: (chunk: Uint8Array) => void,
    signal: AbortSignal,
  ): Promise<StepOutcome>;

  /** Gives back what the sandbox holds (mount lease, users). Idempotent. */
  close(): Promise<void>;
}
