/**
 * How one kind of storage makes, copies, moves and removes whole directory trees: all in which stores differ.
 * Paths are absolute. Trees hold what build steps left in them, so nothing here may follow a symbolic link inside one.
 *
 * A unit is what a store keeps under one name: a result's directory (`rootfs` and what lies beside it), or a cache. Storage with
 * snapshots of its own makes them of units.
 */
export interface TreeCopier {
  /** Makes the empty unit `target`, 0700 and ours, where nothing is yet. */
  create(target: string): Promise<void>;

  /**
   * Makes the unit `target`, where nothing is yet, the same as the unit `source`, which nobody changes meanwhile: content, owners,
   * modes, times, hard links, special files, and whatever else of its attributes the storage keeps.
   * When it fails or `signal` fires it throws, and `target` holds whatever was copied by then.
   */
  copy(source: string, target: string, signal: AbortSignal): Promise<void>;

  /** As `copy`, from any directory of this machine into the existing empty directory `target`, which gets `source`'s attributes too. */
  fill(source: string, target: string, signal: AbortSignal): Promise<void>;

  /**
   * Before a result is saved: lets files of `tree` that are the same in `base` share their storage with it. `spare` does not exist
   * yet and lies beside `tree`; it may be used for the rewritten tree and must not be left behind.
   * Storage that shares by itself has no use for this.
   */
  share?(tree: string, base: string, spare: string, signal: AbortSignal): Promise<void>;

  /** Returns once everything written below `directory` would survive a power failure. */
  settle(directory: string): Promise<void>;

  /** rename(2) of a unit within its store, at once, to where nothing is. A missing one is ENOENT. */
  move(from: string, to: string): Promise<void>;

  /** Removes a unit and everything below it, stopping at other mounted file systems; one that is missing is no failure. */
  remove(directory: string): Promise<void>;
}
