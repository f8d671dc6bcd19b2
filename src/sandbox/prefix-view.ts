/**
 * What a sandbox needs of the mounted prefix. Implemented over the mount's supervisor, which this folder knows nothing of.
 */
export interface PrefixView {
  /** Whether it shows a tree to any build user as its own, whoever it belongs to. Throws as `open`. */
  mapsOwners(): Promise<boolean>;

  /**
   * Makes sure that the prefix is mounted and that `uid` sees `rootfs` (its `local`) there from now on.
   * One view per uid at a time: the caller has claimed the uid.
   * @throws {ObuilderError} when the prefix cannot be mounted.
   */
  open(uid: number, rootfs: string): Promise<OpenPrefixView>;
}

export interface OpenPrefixView {
  /** The directory to bind over the prefix in a step's own namespace; undefined when the mount offers none. */
  readonly treeDoor: string | undefined;
  /** Fires when the mount died: what the step saw since cannot be trusted. */
  readonly lost: AbortSignal;
  /** Whether it has died by now: `lost` follows a moment later. To be asked before a result is taken. */
  isLost(): Promise<boolean>;
  close(): Promise<void>;
}

/**
 * How a step comes to see its own tree at the prefix: `tree` binds the mount's tree door over it in the step's namespace,
 * `shared` leaves it to the mount, which tells callers apart, `bind` binds the tree itself (Linux, no FUSE),
 * `none` leaves the machine's own prefix in view.
 */
export type PrefixMode = 'tree' | 'shared' | 'bind' | 'none';
