/**
 * How one kind of storage copies and removes whole directory trees: all in which stores differ.
 * Paths are absolute. Trees hold what build steps left in them, so nothing here may follow a symbolic link inside one.
 */
export interface TreeCopier {
  /**
   * Fills the existing empty directory `target` with the content of `source`, and gives it `source`'s owner, mode and time.
   * When it fails or `signal` fires it throws, and `target` holds whatever was copied by then.
   */
  copy(source: string, target: string, signal: AbortSignal): Promise<void>;

  /**
   * Before a result is saved: lets files of `tree` that are the same in `base` share their storage with it. `spare` does not exist
   * yet and lies beside `tree`; it may be used for the rewritten tree and must not be left behind.
   * Storage that shares by itself has no use for this.
   */
  share?(tree: string, base: string, spare: string, signal: AbortSignal): Promise<void>;

  /** Returns once everything written below `directory` would survive a power failure. */
  settle(directory: string): Promise<void>;

  /** Removes `directory` and everything below it, stopping at other mounted file systems; one that is missing is no failure. */
  remove(directory: string): Promise<void>;
}
