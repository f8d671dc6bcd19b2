import type { CopyProgress } from '../store/copy-progress.ts';
import { formatBytes } from './format-bytes.ts';

/** How far some work is, or how much of it there is; what is not known is missing. */
export interface Amount {
  readonly items?: number;
  readonly bytes?: number;
}

export interface Progress {
  /** `line` is printed for good, above how far it is. */
  note(line: string | undefined, done: Amount): void;
  end(): void;
}

interface ProgressOutput {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const TERMINAL_INTERVAL_MS = 200;
const PLAIN_INTERVAL_MS = 5_000;

/**
 * Shows how far `what` is: on a terminal in one line that is drawn anew, elsewhere as a line every few seconds. Work that is over
 * before the first of these shows nothing.
 */
export function createProgress(
  what: string,
  total: Amount,
  { out = console, line = process.stderr }: { out?: Pick<Console, 'log'>; line?: ProgressOutput } = {},
): Progress {
  const isTerminal = line.isTTY === true;
  const intervalMs = isTerminal ? TERMINAL_INTERVAL_MS : PLAIN_INTERVAL_MS;
  const begun = performance.now();
  let shown = begun;
  let isDrawn = false;

  function clear(): void {
    if (isDrawn) line.write('\r\x1b[K');
    isDrawn = false;
  }

  return {
    note(text, done) {
      if (text !== undefined) {
        clear();
        out.log(text);
      }
      const now = performance.now();
      if (now - shown < intervalMs) return;
      shown = now;
      const words = progressWords(what, { done, total, elapsedMs: now - begun });
      if (isTerminal) line.write(`\r\x1b[K${words}`);
      else line.write(`obuilder-fs: ${words}\n`);
      isDrawn = isTerminal;
    },
    end: clear,
  };
}

/** `copying files: 1200 of 50000, 24.0 MiB of 1.0 GiB, 12.0 MiB/s, 85 s left` */
export function progressWords(
  what: string,
  { done, total, elapsedMs }: { done: Amount; total: Amount; elapsedMs: number },
): string {
  const parts: string[] = [];
  if (done.items !== undefined)
    parts.push(`${done.items}${total.items === undefined ? '' : ` of ${total.items}`}`);
  if (done.bytes !== undefined) {
    parts.push(
      `${formatBytes(done.bytes)}${total.bytes === undefined ? '' : ` of ${formatBytes(total.bytes)}`}`,
    );
    parts.push(`${formatBytes(Math.round((done.bytes * 1000) / Math.max(1, elapsedMs)))}/s`);
  }
  const part = partDone(done, total);
  if (part > 0 && part < 1) parts.push(`${Math.ceil((elapsedMs / 1000) * (1 / part - 1))} s left`);
  return `${what}: ${parts.join(', ')}`;
}

function partDone(done: Amount, total: Amount): number {
  if (total.bytes !== undefined && done.bytes !== undefined) return done.bytes / total.bytes;
  if (total.items !== undefined && done.items !== undefined) return done.items / total.items;
  return 0;
}

/** One line for the copies under way; where several are, it shows them in turn. */
export function copyingPrinter(): (progress: CopyProgress | undefined) => void {
  let shown: Progress | undefined;
  return (progress) => {
    if (progress === undefined) {
      shown?.end();
      shown = undefined;
      return;
    }
    const { done, total } = progress;
    shown ??= createProgress('copying files', { items: total.files, bytes: total.bytes });
    shown.note(undefined, { items: done.files, bytes: done.bytes });
  };
}
