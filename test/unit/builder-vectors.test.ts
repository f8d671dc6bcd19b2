import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BuildEvent } from '../../src/builder/build-event.ts';
import { createBuilder, type BuildResult } from '../../src/builder/builder.ts';
import { parseSpec } from '../../src/spec/parse-spec.ts';
import { logOf, type LogLine } from '../helpers/mock-build.ts';
import { createMockFetcher } from '../helpers/mock-fetcher.ts';
import { createMockSandbox, type MockSandbox } from '../helpers/mock-sandbox.ts';
import { createMockStore } from '../helpers/mock-store.ts';

interface SandboxConfig {
  argv: string[];
  cwd: string;
  env: [string, string][];
  network: string[];
}

interface Entry {
  path: string;
  type: string;
  mode?: string;
  uid: number;
  gid: number;
  sha256?: string;
  target?: string;
}

interface Run {
  run: number;
  log: LogLine[];
  sandbox_configs: SandboxConfig[];
  result: { ok?: string; error?: string; rootfs?: Entry[] };
}

interface GoldenBuild {
  name: string;
  spec: string;
  image_env: [string, string][];
  secrets: [string, string][];
  runs: Run[];
}

const vectors = new URL('../vectors/', import.meta.url).pathname;
const { builds } = JSON.parse(readFileSync(join(vectors, 'obuilder.json'), 'utf8')) as {
  builds: GoldenBuild[];
};

/** Where we do better on purpose, what OBuilder answered and what we answer. */
const BETTER: Record<string, { error: string; status: string }> = {
  // A cache name is escaped before it becomes a path.
  'cache-not-in-id-2': {
    error: 'Unix.Unix_error(Unix.ENOENT, "mkdir", "$STORE/cache/foo/bar")',
    status: 'saved',
  },
};

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vectors-'));
  execFileSync('tar', ['-xpf', join(vectors, 'src.tar'), '-C', directory]);
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

function configsOf(sandbox: MockSandbox): SandboxConfig[] {
  return sandbox.commands.map(({ argv, cwd, env, network }) => ({
    // Ours tells tar to leave the directories that are there alone.
    argv: argv[0] === 'tar' ? ['tar', '-xf', '-'] : [...argv],
    cwd,
    env: env.map(([name, value]) => [name, value]),
    network: [...network],
  }));
}

function treeOf(top: string, path = ''): Entry[] {
  const stat = lstatSync(join(top, path));
  const owner = { uid: stat.uid, gid: stat.gid };
  if (stat.isSymbolicLink()) {
    return [{ path, type: 'symlink', ...owner, target: readlinkSync(join(top, path)) }];
  }
  const mode = (stat.mode & 0o7777).toString(8).padStart(4, '0');
  if (stat.isFile()) {
    const sha256 = createHash('sha256')
      .update(readFileSync(join(top, path)))
      .digest('hex');
    return [{ path, type: 'file', mode, ...owner, sha256 }];
  }
  const children = readdirSync(join(top, path)).map((name) => (path === '' ? name : `${path}/${name}`));
  return [{ path, type: 'dir', mode, ...owner }, ...children.flatMap((child) => treeOf(top, child))];
}

const byPath = (a: Entry, b: Entry) => (a.path < b.path ? -1 : 1);

describe.each(builds)('golden build $name', ({ name, spec, image_env, secrets, runs }) => {
  it('says, runs and makes what OBuilder does, the first time and the second', async () => {
    const root = join(directory, `store-${name}`);
    const store = createMockStore(root);
    const better = BETTER[name];
    for (const run of runs) {
      const sandbox = createMockSandbox();
      const events: BuildEvent[] = [];
      const result = await createBuilder({ store, sandbox, fetcher: createMockFetcher(image_env) }).build(
        parseSpec(spec),
        {
          sourceDirectory: join(directory, 'src'),
          secrets: new Map(secrets.map(([id, value]) => [id, Buffer.from(value)])),
          emit: (event) => events.push(event),
          signal: new AbortController().signal,
        },
      );
      if (better !== undefined) {
        expect(run.result.error).toBe(better.error);
        expect(result.status).toBe(run.run === 1 ? better.status : 'loaded');
        continue;
      }
      expect(answerOf(result)).toEqual(run.result.ok ?? run.result.error);
      expect(logOf(events)).toEqual(run.log);
      expect(configsOf(sandbox)).toEqual(
        run.sandbox_configs.map(({ argv, cwd, env, network }) => ({ argv, cwd, env, network })),
      );
      if ('id' in result && run.result.rootfs !== undefined) {
        const rootfs = join((await store.use(result.id)) ?? '', 'rootfs');
        expect(treeOf(rootfs).sort(byPath)).toEqual(run.result.rootfs.map(comparable).sort(byPath));
      }
    }
  });
});

/** Times are what they are, and a link has no mode. */
function comparable({ path, type, mode, uid, gid, sha256, target }: Entry): Entry {
  if (type === 'file') return { path, type, mode, uid, gid, sha256 } as Entry;
  if (type === 'dir') return { path, type, mode, uid, gid } as Entry;
  return { path, type, uid, gid, target } as Entry;
}

function answerOf(result: BuildResult): string {
  if (result.status === 'failed') return result.message;
  return 'id' in result ? result.id : result.status;
}
