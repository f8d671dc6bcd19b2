// A mount and a builder in a worker thread of a program of one's own. As root:
//   node examples/embed.mjs STATE-DIR PREFIX
// The worker does the work and sends what happens; this thread stays free, and can end the build at any time (Ctrl-C).
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { createBuilder, createMount } from 'obuilder-fs';

const BUILD_UID = Number(process.env.BUILD_UID ?? 7000);

if (isMainThread) runWorker();
else await work(workerData);

function runWorker() {
  const [stateDir, prefix] = process.argv.slice(2);
  if (prefix === undefined) throw new Error('usage: node examples/embed.mjs STATE-DIR PREFIX');
  const worker = new Worker(fileURLToPath(import.meta.url), {
    workerData: { stateDir: resolve(stateDir), prefix: resolve(prefix) },
    // A step's output pipe changes hands: Node must not close the number that it had when the thread ends.
    trackUnmanagedFds: false,
  });
  worker.on('message', (line) => console.log(line));
  process.on('SIGINT', () => worker.postMessage('cancel'));
}

async function work({ stateDir, prefix }) {
  const say = (line) => parentPort.postMessage(line);
  const cancel = new AbortController();
  parentPort.once('message', () => cancel.abort()).unref();
  await makeBaseImage(stateDir);

  const mount = await createMount({ prefixes: [prefix], stateDir });
  say(`process ${mount.pid === process.pid ? 'of ours' : 'of its own'} serves ${mount.prefixes.join(', ')}`);
  const builder = await createBuilder({
    stateDir,
    prefix,
    uid: BUILD_UID,
    homePath: join(stateDir, 'home'),
  });
  try {
    const build = builder.build(
      `((from base)
        (copy (src greeting) (dst ./))
        (run (secrets (token (target token))) (shell "wc -c < token; mv greeting ${prefix}/; cat ${prefix}/greeting")))`,
      { context: await makeContext(), secrets: { token: '12345' }, signal: cancel.signal },
    );
    for await (const event of build) {
      if (event.type === 'output') say(Buffer.from(event.data).toString().trimEnd());
      else if (event.type === 'step-end') say(`step ${event.index} of ${event.total}: ${event.status}`);
    }
    const result = await build.result;
    say(`the build is ${result.status}; the store has ${builder.results().length} results`);
  } finally {
    await builder.close();
    await mount.unmount();
  }
  say('nothing is mounted any more');
}

/** A base image is a directory: a home, with the prefix's content in `local`. */
async function makeBaseImage(stateDir) {
  await mkdir(join(stateDir, 'images/base/local'), { recursive: true });
  await writeFile(join(stateDir, 'images/base/.obuilder_profile.sh'), '');
}

async function makeContext() {
  const context = await mkdtemp(join(tmpdir(), 'embed-'));
  await writeFile(join(context, 'greeting'), 'hello from the context\n');
  return context;
}
