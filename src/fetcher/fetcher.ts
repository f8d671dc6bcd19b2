/** Environment that a base image gives every step made from it, in the image's order. */
export type ImageEnv = readonly (readonly [name: string, value: string])[];

/** Gets the tree of a base image, what a spec's `(from NAME)` names. */
export interface Fetcher {
  /**
   * Fills the existing empty directory `rootfs` with base image `name`.
   * @returns the image's environment.
   * @throws {ObuilderError} UNKNOWN_BASE when there is no such image; it names what was looked for and what there is.
   */
  fetch(
    name: string,
    rootfs: string,
    output: (chunk: Uint8Array) => void,
    signal: AbortSignal,
  ): Promise<ImageEnv>;
}
