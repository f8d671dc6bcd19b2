import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** A command on a terminal of its own, and somebody who types there. */
export interface Terminal {
  readonly done: Promise<{ readonly code: number | null; readonly shown: string }>;
  /** All that was shown so far. */
  shown(): string;
  type(text: string): void;
  /** Resolves when what was shown since the last call contains `text`. */
  untilShown(text: string): Promise<void>;
}

/** Runs a shell command line on a pseudo terminal (by util-linux's script). */
export function startOnTerminal(commandLine: string): Terminal {
  const child = spawn('script', ['--quiet', '--return', '--command', commandLine, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, TERM: 'dumb', SHELL: '/bin/bash' },
  });
  let shown = '';
  let seen = 0;
  const watchers = new Set<() => void>();
  child.stdout.on('data', (chunk: Buffer) => {
    shown += chunk.toString();
    watchers.forEach((watch) => watch());
  });
  const done = once(child, 'close').then(([code]) => ({ code: code as number | null, shown }));
  return {
    done,
    shown: () => shown,
    type: (text) => child.stdin.write(text),
    untilShown: (text) =>
      new Promise((resolve, reject) => {
        const watch = () => {
          const at = shown.indexOf(text, seen);
          if (at < 0) return;
          seen = at + text.length;
          watchers.delete(watch);
          resolve();
        };
        watchers.add(watch);
        void done.then(() => reject(new Error(`ended without showing ${text}:\n${shown}`)));
        watch();
      }),
  };
}
