import { writeSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';

/** The most that one output event carries, as in OBuilder. */
const CHUNK_BYTES_MAX = 4096;
const REPLAY_READ_BYTES = 64 * 1024;

/** Hands over a log from its beginning, until its end or until `signal` fires. */
export type LogReader = (output: (chunk: Uint8Array) => void, signal: AbortSignal) => Promise<void>;

/**
 * The log of a running step: one writer, and any number of readers that each get all of it, however late they come.
 * It is read back from its file, so a slow reader costs no memory, and the file may be renamed meanwhile.
 */
export class BuildLog {
  readonly #file: FileHandle;
  readonly #onFailure: (cause: unknown) => void;
  readonly #waiting = new Set<() => void>();
  #length = 0;
  #isFinished = false;
  #hasFailed = false;

  private constructor(file: FileHandle, onFailure: (cause: unknown) => void) {
    this.#file = file;
    this.#onFailure = onFailure;
  }

  /** `onFailure` hears, once, that a write failed (disk full…). */
  static async create(path: string, onFailure: (cause: unknown) => void): Promise<BuildLog> {
    return new BuildLog(await open(path, 'wx+', 0o600), onFailure);
  }

  /** Never throws, as it is called from where output arrives. What comes after a failure is dropped. */
  write(chunk: Uint8Array): void {
    if (this.#hasFailed) return;
    try {
      for (let done = 0; done < chunk.length; ) {
        const written = writeSync(this.#file.fd, chunk, done, chunk.length - done, this.#length);
        done += written;
        this.#length += written;
      }
    } catch (cause) {
      this.#hasFailed = true;
      this.#onFailure(cause);
    }
    this.#wake();
  }

  /** No more will be written: readers end when they have read what there is. */
  finish(): void {
    this.#isFinished = true;
    this.#wake();
  }

  readonly read: LogReader = async (output, signal) => {
    let position = 0;
    while (!signal.aborted) {
      if (position < this.#length) {
        const size = Math.min(CHUNK_BYTES_MAX, this.#length - position);
        const { bytesRead, buffer } = await this.#file.read(Buffer.allocUnsafe(size), 0, size, position);
        if (bytesRead === 0) throw new Error('BUG: a log shrank');
        position += bytesRead;
        if (!isAborted(signal)) output(buffer.subarray(0, bytesRead));
      } else if (this.#isFinished) return;
      else await this.#change(signal);
    }
  };

  /** Only when nobody will read any more. */
  async close(): Promise<void> {
    await this.#file.close();
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener('abort', done);
        this.#waiting.delete(done);
        resolve();
      };
      signal.addEventListener('abort', done);
      this.#waiting.add(done);
    });
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}

/** Hands over the saved log at `path`; one that is missing is empty. */
export function savedLog(path: string): LogReader {
  return async (output, signal) => {
    const file = await openIfThere(path);
    if (file === undefined) return;
    try {
      const buffer = Buffer.allocUnsafe(REPLAY_READ_BYTES);
      while (!signal.aborted) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length);
        if (bytesRead === 0) return;
        // A copy: the receiver may keep what it gets.
        const read = Buffer.from(buffer.subarray(0, bytesRead));
        for (let at = 0; at < read.length && !isAborted(signal); at += CHUNK_BYTES_MAX) {
          output(read.subarray(at, at + CHUNK_BYTES_MAX));
        }
      }
    } finally {
      await file.close();
    }
  };
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** `signal.aborted`, read anew: the compiler believes that an earlier look still holds. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}
