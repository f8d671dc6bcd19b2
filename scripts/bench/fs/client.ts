import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { ObuilderError } from '../../../src/errors.ts';

/** What client.cc tells of one figure. */
export interface Took {
  readonly figure: string;
  readonly operations: number;
  readonly ns: number;
}

/** One running client. */
interface Client {
  /** Resolves to the figure that it is warmed up for; undefined when it has no more. */
  ready(): Promise<string | undefined>;
  go(): void;
  took(): Promise<Took>;
  /** Resolves once it has ended; without its input it does so by itself. */
  end(): Promise<void>;
}

/**
 * Runs clients together, figure by figure: each begins only when all are warmed up. Answers what the slowest took; `around` is
 * called just before and just after.
 * @throws {ObuilderError} CLIENT_FAILED when a client does not come to its end. All have ended then.
 */
export async function runClients<Mark>(
  commands: readonly (readonly string[])[],
  mark: () => Promise<Mark>,
  signal: AbortSignal,
): Promise<{ took: Took; before: Mark; after: Mark }[]> {
  const clients = commands.map((command) => startClient(command, signal));
  const results: { took: Took; before: Mark; after: Mark }[] = [];
  try {
    while (
      (await Promise.all(clients.map((client) => client.ready()))).every((figure) => figure !== undefined)
    ) {
      const before = await mark();
      for (const client of clients) client.go();
      const all = await Promise.all(clients.map((client) => client.took()));
      const slowest = all.reduce((one, other) => (other.ns > one.ns ? other : one));
      const operations = all.reduce((sum, one) => sum + one.operations, 0);
      results.push({ took: { ...slowest, operations }, before, after: await mark() });
    }
  } finally {
    await Promise.allSettled(clients.map((client) => client.end()));
  }
  return results;
}

function startClient([command = '', ...args]: readonly string[], signal: AbortSignal): Client {
  const child: ChildProcessByStdio<Writable, Readable, Readable> = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    cwd: '/',
    env: { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', HOME: '/nonexistent' },
    signal,
  });
  child.on('error', () => undefined); // told by its exit
  child.stdin.on('error', () => undefined);
  const exit = once(child, 'close').catch(() => undefined);
  const lastWords = text(child.stderr);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const nextLine = async (): Promise<string[] | undefined> => {
    const line = await lines.next();
    if (line.done !== true) return line.value.split(' ');
    await exit;
    signal.throwIfAborted();
    if (child.exitCode === 0) return undefined;
    throw clientFailed(child.exitCode ?? child.signalCode, await lastWords);
  };
  return {
    ready: async () => (await nextLine())?.[1],
    go: () => child.stdin.write('\n'),
    async took() {
      const [, figure = '', operations, ns] = (await nextLine()) ?? [];
      return { figure, operations: Number(operations), ns: Number(ns) };
    },
    async end() {
      child.stdin.end();
      await exit;
    },
  };
}

function clientFailed(how: number | string | null, lastWords: string): ObuilderError {
  const [firstLine = ''] = lastWords.trim().split('\n');
  return new ObuilderError('CLIENT_FAILED', firstLine || `the client ended with ${how ?? 'no status'}`, {
    hint: 'the contender does not serve this workload',
  });
}
