import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const SWITCH = '/sys/module/fuse/parameters/enable_uring';

/** Whether this kernel has FUSE over io_uring, and we may turn it on. */
export function hasIoUring(): boolean {
  return existsSync(SWITCH) && process.getuid?.() === 0;
}

/**
 * Turns FUSE over io_uring on or off for what is mounted until `setBack` is called; it stays as it is then. Where the kernel does not have it, it
 * is off.
 */
export function setIoUring(isOn: boolean): { setBack(): void } {
  if (!hasIoUring()) return { setBack: () => undefined };
  const before = readFileSync(SWITCH, 'latin1');
  writeFileSync(SWITCH, isOn ? 'Y' : 'N');
  return { setBack: () => writeFileSync(SWITCH, before) };
}
