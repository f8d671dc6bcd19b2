import { rmSync } from 'node:fs';
import { createConnection, createServer, type Server } from 'node:net';
import { text } from 'node:stream/consumers';
import { errnoCode } from '../errors.ts';
import { native, type TreeCounts } from './native.ts';

/** The kernel's limit for a socket's path; a state directory below a longer one has no statistics. */
const SOCKET_PATH_BYTES_MAX = process.platform === 'darwin' ? 103 : 107;
/** A mount process that lives answers at once: its JavaScript thread has nothing else to do. */
const ANSWER_DEADLINE_MS = 2_000;

/**
 * Tells what was counted on a mount to whoever connects to `socket`, which lies in the run directory, where only root gets.
 * Undefined where the path is too long for one.
 */
export function serveStatistics(socket: string, prefix: string): Server | undefined {
  if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX) return undefined;
  rmSync(socket, { force: true }); // a killed mount process's
  const server = createServer((connection) => {
    connection.on('error', () => undefined); // the asker went away
    connection.end(JSON.stringify(native().statistics(prefix)));
  });
  server.listen(socket);
  server.unref();
  return server;
}

/** What a mount process counted; undefined when it does not answer. Never touches the mount. */
export async function readStatistics(socket: string): Promise<TreeCounts[] | undefined> {
  if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX) return undefined;
  const connection = createConnection(socket);
  connection.setTimeout(ANSWER_DEADLINE_MS, () => connection.destroy());
  try {
    const answer = await text(connection);
    return answer === '' ? undefined : (JSON.parse(answer) as TreeCounts[]);
  } catch (error) {
    const code = errnoCode(error);
    if (
      code === 'ENOENT' ||
      code === 'ECONNREFUSED' ||
      code === 'ECONNRESET' ||
      code === 'ERR_STREAM_PREMATURE_CLOSE'
    ) {
      return undefined;
    }
    throw error;
  }
}
