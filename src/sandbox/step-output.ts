import { once } from 'node:events';
import { chownSync, closeSync, constants, openSync, unlinkSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { runCommand } from '../os/exec.ts';

/** The one pipe that a step writes both of its streams to, so their order stays. */
export interface StepOutput {
  /** To be the child's stdout and stderr; closed by `started`. */
  readonly fd: number;
  /** Once the child has its copies: from then on the pipe ends when the last writer has gone. */
  started(): void;
  /** Waits until what was written has been heard. */
  drained(): Promise<void>;
}

/** How long to wait for the end of a pipe whose writers are gone; only a descriptor handed to a stranger keeps it open. */
const drainMs = 5_000;

/**
 * A named pipe rather than Node's own: those are sockets, and `echo >/dev/stderr` cannot open a socket; and it belongs to the step's
 * user, or opening it again would be refused.
 */
export async function openStepOutput(
  directory: string,
  user: { readonly uid: number; readonly gid: number },
  output: (chunk: Uint8Array) => void,
): Promise<StepOutput> {
  const path = join(directory, `output-${user.uid}`);
  await runCommand(['rm', '-f', '--', path]); // a killed run's
  await runCommand(['mkfifo', '-m', '600', path]);
  chownSync(path, user.uid, user.gid);
  const readEnd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const fd = openSync(path, constants.O_WRONLY);
  unlinkSync(path);
  const reader = new Socket({ fd: readEnd, readable: true, writable: false });
  const ended = once(reader, 'close');
  reader.on('data', output);
  let isOpen = true;
  return {
    fd,
    started() {
      if (isOpen) closeSync(fd);
      isOpen = false;
    },
    async drained() {
      const giveUp = new AbortController();
      await Promise.race([
        ended,
        delay(drainMs, undefined, { signal: giveUp.signal }).catch(() => undefined),
      ]);
      giveUp.abort();
      reader.destroy();
    },
  };
}
