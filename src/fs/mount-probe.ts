import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** How often a mount is asked whether it answers, and how long it may take. */
export interface ProbeTimes {
  readonly everyMs: number;
  readonly deadlineMs: number;
}

/** An answer takes microseconds; this is for a machine that is drowning, where a mount process that is slow must not pass for a hung one. */
export const PROBE_TIMES: ProbeTimes = { everyMs: 5_000, deadlineMs: 30_000 };

/**
 * Whether the mount process of a prefix answers, be it with an error, within the time. It is asked by a process of its own: whoever
 * waits for a hung mount cannot be called back, and can be killed only once that mount is gone.
 */
export function answers(prefix: string, deadlineMs: number): Promise<boolean> {
  // The kernel remembers no names of the shared root, and this one it has never met: only the mount process can answer.
  const name = `.obuilder-fs-probe.${randomBytes(8).toString('hex')}`;
  const child = spawn('/bin/ls', ['-d', join(prefix, name)], { stdio: 'ignore', cwd: '/' });
  child.unref();
  return new Promise((resolve) => {
    const deadline = setTimeout(() => {
      child.kill('SIGKILL');
      resolve(false);
    }, deadlineMs).unref();
    const answered = () => {
      clearTimeout(deadline);
      resolve(true);
    };
    child.once('exit', answered);
    child.once('error', answered); // a probe that could not be started says nothing against the mount
  });
}

/**
 * Asks again and again. Resolves with false once an answer is missing, with true when `isServing` says that the mount is not the
 * same any more, or `signal` that nobody wants to know. Keeps no process from ending.
 */
export async function watchAnswers(
  prefix: string,
  times: ProbeTimes,
  isServing: () => boolean,
  signal: AbortSignal,
): Promise<boolean> {
  while (!signal.aborted && isServing()) {
    if (!(await answers(prefix, times.deadlineMs))) return !isServing();
    await delay(times.everyMs, undefined, { ref: false, signal }).catch(() => undefined);
  }
  return true;
}
