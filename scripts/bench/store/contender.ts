import type { TreeSize } from './tree.ts';

/** A way of making a step's result from the one before. */
export interface StepContender {
  readonly name: string;
  /** Makes a result from the base with one file changed: this is what is timed. */
  step(turn: number): Promise<void>;
  /** Takes that result away and returns when the disk is quiet. */
  undo(turn: number): Promise<void>;
  /**
   * What lies on the disk after that many steps, each made from the one before, as multiples of the base alone. Their results stay.
   * Undefined where every result is a whole copy.
   */
  diskAfter?(steps: number): Promise<number>;
  close(): void;
}

/** What a contender is made from. */
export interface ContenderHost {
  /** A file system that is mounted. */
  readonly disk: string;
  readonly size: TreeSize;
  /** Whether what is saved must survive a power failure. */
  readonly sync: boolean;
  readonly signal: AbortSignal;
}
