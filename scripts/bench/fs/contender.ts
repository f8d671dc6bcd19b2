import type { CallerNumber, DataSet } from './data-set.ts';

/** Something that shows the data set to callers at a directory, to be measured. */
export interface Contender {
  readonly name: string;
  readonly kind: 'native' | 'ours' | 'peer';
  /** What it is, in a few words. */
  readonly description: string;
  /**
   * Begins to serve, with nothing cached.
   * @throws {ObuilderError} where it cannot be had on this machine.
   */
  open(data: DataSet): Promise<OpenContender>;
}

export interface OpenContender {
  /** The directory at which a caller finds the data. */
  root(caller: CallerNumber): string;
  /** The command that runs another one as the caller, where it sees that directory. */
  command(caller: CallerNumber, argv: readonly string[]): string[];
  /** Of the process that serves. */
  readonly pid?: number;
  /** Requests that were answered so far; absent where nobody counts them. */
  countTrips?(): Promise<number>;
  close(): Promise<void>;
}
