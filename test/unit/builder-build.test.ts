import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { initialContext, cachePlaceOf, placeOf, withWorkdir } from '../../src/builder/build-context.ts';
import type { BuildEvent } from '../../src/builder/build-event.ts';
import { createBuilder, type Builder, type BuildResult } from '../../src/builder/builder.ts';
import { ObuilderError } from '../../src/errors.ts';
import type { Fetcher } from '../../src/fetcher/fetcher.ts';
import { byteStringOf } from '../../src/spec/byte-string.ts';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import type { Store } from '../../src/store/store.ts';
import { logOf, startBuild, type StartedBuild } from '../helpers/mock-build.ts';
import { createMockFetcher } from '../helpers/mock-fetcher.ts';
import { createMockSandbox, type MockSandbox } from '../helpers/mock-sandbox.ts';
import { createMockStore } from '../helpers/mock-store.ts';

let root: string;
let source: string;
let store: Store;
let sandbox: MockSandbox;
let builder: Builder;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'build-'));
  source = join(root, 'source');
  mkdirSync(source);
  writeFileSync(join(source, 'file'), 'content');
  store = createMockStore(join(root, 'store'));
  sandbox = createMockSandbox();
  builder = createBuilder({ store, sandbox, fetcher: createMockFetcher([['PATH', '/usr/bin:/bin']]) });
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function start(spec: string, request: Parameters<typeof startBuild>[2] = {}): StartedBuild {
  return startBuild(builder, spec, { sourceDirectory: source, ...request });
}

async function build(spec: string, request: Parameters<typeof startBuild>[2] = {}): Promise<BuildResult> {
  return await start(spec, request).result;
}

/** A path in the tree that a build made. */
async function made(result: BuildResult, path: string): Promise<string> {
  if (!('id' in result)) throw new Error(`the build ended ${result.status}`);
  return join((await store.use(result.id)) ?? '/nonexistent', 'rootfs', path);
}

function stepsOf(events: readonly BuildEvent[]): string[] {
  return events.flatMap((event) =>
    event.type === 'step-end' ? [`${event.index}/${event.total} ${event.status}`] : [],
  );
}

describe('a build', () => {
  it('counts its steps over all nested builds, and says how each ended', async () => {
    const spec = `((build a ((from a) (run (shell "echo a")))) (from b) (workdir /x) (run (shell "echo b")) (run (shell "false")))`;
    const first = start(spec);
    expect((await first.result).status).toBe('failed');
    expect(stepsOf(first.events)).toEqual(['1/5 built', '2/5 built', '3/5 built', '4/5 built', '5/5 failed']);
    const second = start(spec);
    await second.result;
    expect(stepsOf(second.events)).toEqual([
      '1/5 cached',
      '2/5 cached',
      '3/5 cached',
      '4/5 cached',
      '5/5 failed',
    ]);
    const counted = second.events.flatMap((event) =>
      event.type === 'heading' && event.step !== undefined ? [event.step.index] : [],
    );
    expect(counted).toEqual([1, 2, 3, 4, 5]);
  });

  it('is "loaded" only when every result was there', async () => {
    expect((await build('((from base))')).status).toBe('saved');
    expect((await build('((from base))')).status).toBe('loaded');
    expect((await build('((from base) (run (shell true)))')).status).toBe('saved');
  });

  it('does not record a failed step, and keeps those before it', async () => {
    const spec = '((from base) (run (shell "echo kept")) (run (shell "exit 4")))';
    expect(await build(spec)).toMatchObject({
      status: 'failed',
      message: expect.stringContaining('exit status 4') as unknown,
    });
    const again = start(spec);
    await again.result;
    expect(stepsOf(again.events)).toEqual(['1/3 cached', '2/3 cached', '3/3 failed']);
    expect(sandbox.commands).toHaveLength(3);
  });

  it('lets neither nested builds nor their parent see what the other has set', async () => {
    await build(`((build a ((from a) (workdir /w) (env A nested) (user (uid 5) (gid 5)) (shell /bin/sh -c) (run (shell "true"))))
                  (from base) (run (shell "true")))`);
    const [nested, outer] = sandbox.commands;
    expect(nested).toMatchObject({ cwd: '/w', argv: ['/bin/sh', '-c', 'true'] });
    expect(nested?.env).toEqual([
      ['A', 'nested'],
      ['PATH', '/usr/bin:/bin'],
    ]);
    expect(outer).toMatchObject({ cwd: '/', argv: ['/usr/bin/env', 'bash', '-c', 'true'] });
    expect(outer?.env).toEqual([['PATH', '/usr/bin:/bin']]);
  });

  it("gives a fetched tree to the build user, and the image's environment to every later build", async () => {
    await build('((from base))');
    expect(sandbox.adopted).toHaveLength(1);
    builder = createBuilder({ store, sandbox, fetcher: createMockFetcher([['OTHER', 'x']]) });
    await build('((from base) (run (shell "true")) (run (shell "true")))');
    expect(sandbox.adopted).toHaveLength(1);
    expect(sandbox.commands[1]?.env).toEqual([['PATH', '/usr/bin:/bin']]);
  });

  it('passes on what a base image that is not there throws', async () => {
    const fetcher: Fetcher = {
      fetch: () => Promise.reject(new ObuilderError('UNKNOWN_BASE', '"base": no such base image')),
    };
    builder = createBuilder({ store, sandbox, fetcher });
    await expect(build('((from base))')).rejects.toMatchObject({ code: 'UNKNOWN_BASE' });
  });

  it('says what to do when the saved environment is damaged', async () => {
    const result = await build('((from base))');
    writeFileSync(join(await made(result, '..'), 'env'), '((env');
    await expect(build('((from base))')).rejects.toMatchObject({ code: 'RESULT_DAMAGED' });
  });

  it('survives a spec nested very deeply', async () => {
    const depth = 3000;
    const spec = `${'((build a '.repeat(depth)}((from base))${') (from base))'.repeat(depth)}`;
    expect((await build(spec)).status).toBe('saved');
  });

  it('that was cancelled before it starts runs nothing', async () => {
    const started = start('((from base))');
    started.cancel();
    expect(await started.result).toEqual({ status: 'cancelled' });
    expect(sandbox.adopted).toEqual([]);
  });

  it('uses the ids, the shell and the workdirs of the version asked for', async () => {
    const spec = '((from base) (workdir w) (run (shell "true")))';
    const [head, old] = [start(spec), start(spec, { ids: 'v0.5' })];
    expect(await head.result).not.toEqual(await old.result);
    expect(sandbox.commands.map(({ argv }) => argv[0]).sort()).toEqual(['/bin/bash', '/usr/bin/env']);
    expect(logOf(head.events)).toContainEqual(['Heading', '/w: (run (shell true))']);
    expect(logOf(old.events)).toContainEqual(['Heading', '//w: (run (shell true))']);
    expect(sandbox.commands.map(({ cwd }) => cwd)).toEqual(['/w', '/w']);
  });
});

describe('a build whose results are all there', () => {
  it('copies nothing, runs nothing and fetches nothing', async () => {
    const steps = Array.from({ length: 20 }, (_, i) => `(run (shell "echo ${i}"))`).join(' ');
    const spec = `((from base) ${steps})`;
    const rsync = createRsyncCopier();
    let copies = 0;
    const copying = await createDirectoryStore({
      root: join(root, 'real'),
      copier: {
        ...rsync,
        copy: (...args) => {
          copies++;
          return rsync.copy(...args);
        },
      },
    });
    const fetcher = createMockFetcher([]);
    builder = createBuilder({ store: copying, sandbox, fetcher });
    expect((await build(spec)).status).toBe('saved');
    expect([copies, sandbox.commands.length, fetcher.fetched.length]).toEqual([20, 20, 1]);
    const again = start(spec);
    expect((await again.result).status).toBe('loaded');
    expect([copies, sandbox.commands.length, fetcher.fetched.length]).toEqual([20, 20, 1]);
    expect(logOf(again.events).filter(([type]) => type === 'Output')).toHaveLength(21);
    copying.close();
  });
});

describe('secrets', () => {
  const spec = '((from base) (run (secrets (a (target /run/a)) (b (target b))) (shell "true")))';

  it('reach the step, and their values name its result', async () => {
    const one = await build(spec, {
      secrets: new Map([
        ['a', Buffer.from('1')],
        ['b', Buffer.from('2')],
      ]),
    });
    expect(
      sandbox.commands[0]?.secrets.map(({ target, value }) => [target, Buffer.from(value).toString()]),
    ).toEqual([
      ['/run/a', '1'],
      ['/b', '2'],
    ]);
    const two = await build(spec, {
      secrets: new Map([
        ['a', Buffer.from('1')],
        ['b', Buffer.from('3')],
      ]),
    });
    expect(two).not.toEqual(one);
  });

  it('that are not given fail the build with one line and a remedy', async () => {
    expect(await build(spec)).toEqual({
      status: 'failed',
      message: "Couldn't find value for requested secret 'a'",
      hint: 'give it with --secret a:FILE',
    });
  });
});

describe('caches', () => {
  it('are private copies for a step, kept when it fails', async () => {
    const failing = '((from base) (run (cache (c (target ~/cache))) (shell "exit 1")))';
    const cache = await store.openCache('c');
    writeFileSync(join(cache.directory, 'content'), 'x');
    await cache.release();
    sandbox.onRun(({ caches }) => {
      const [mounted] = caches;
      expect(mounted?.target).toBe('/cache');
      expect(sandbox.adopted).toContain(mounted?.directory);
      expect(readFileSync(join(mounted?.directory ?? '', 'content'), 'utf8')).toBe('x');
      writeFileSync(join(mounted?.directory ?? '', 'downloaded'), 'y');
    });
    expect((await build(failing)).status).toBe('failed');
    const after = await store.openCache('c');
    expect(readdirSync(after.directory).sort()).toEqual(['content', 'downloaded']);
    await after.release();
  });
});

describe('paths that a step may not use', () => {
  it.each([
    '(workdir /outside) (run (shell "true"))',
    '(run (cache (c (target /outside/c))) (shell "true"))',
    '(copy (src file) (dst /outside/))',
  ])('fail the build before anything is copied: %s', async (ops) => {
    await build('((from base))');
    const result = await build(`((from base) ${ops})`, { secrets: new Map([['s', Buffer.from('')]]) });
    expect(result).toMatchObject({
      status: 'failed',
      message: expect.stringMatching(/^\/outside\S*: lies outside[^\n]*$/) as unknown,
    });
    expect(sandbox.commands).toEqual([]);
    expect(existsSync(join(root, 'store/cache-tmp'))).toBe(false);
  });
});

describe('copy', () => {
  it('leaves the owner, mode and time of directories that are there alone', async () => {
    mkdirSync(join(source, 'dir'));
    writeFileSync(join(source, 'dir/new'), 'x');
    const result = await build(
      `((from base) (run (shell "mkdir -p usr/dir && chmod 0711 usr usr/dir && touch -d @1000 usr/dir && touch -d @2000 usr")) (user (uid 7) (gid 8))
        (copy (src dir) (dst /usr/)))`,
    );
    const directory = statSync(await made(result, 'usr/dir'));
    expect([directory.mode & 0o7777, directory.uid, directory.mtimeMs]).toEqual([0o711, 0, 1_000_000]);
    const parent = statSync(await made(result, 'usr'));
    expect([parent.mode & 0o7777, parent.mtimeMs]).toEqual([0o711, 2_000_000]);
    expect(readFileSync(await made(result, 'usr/dir/new'), 'utf8')).toBe('x');
  });

  it('follows no link of the tree to tell which directories are there', async () => {
    const outside = join(root, 'outside');
    mkdirSync(join(outside, 'dir'), { recursive: true });
    utimesSync(outside, 1000, 1000);
    mkdirSync(join(source, 'dir'));
    const result = await build(
      `((from base) (run (shell "mkdir usr && ln -s ${outside} usr/dir")) (copy (src dir) (dst /usr/)))`,
    );
    expect(statSync(outside).mtimeMs).toBe(1_000_000);
    expect(lstatSync(await made(result, 'usr/dir')).isDirectory()).toBe(true);
  });

  it('goes to where the workdir is, and makes missing directories', async () => {
    const result = await build(
      '((from base) (workdir a/b) (copy (src file) (dst ./c/./)) (copy (src file) (dst d)))',
    );
    expect(readFileSync(await made(result, 'a/b/c/file'), 'utf8')).toBe('content');
    expect(readFileSync(await made(result, 'a/b/d'), 'utf8')).toBe('content');
  });

  it('takes files from a nested build that is in scope', async () => {
    const result = await build(
      '((build a ((from a) (run (shell "echo made > out")))) (from base) (copy (from (build a)) (src out) (dst in)))',
    );
    expect(readFileSync(await made(result, 'in'), 'utf8')).toBe('made\n');
  });

  it.each([
    ['(src missing) (dst /a)', 'Source path "missing" not found'],
    ['(src ../x) (dst /a)', 'Can\'t use .. in source paths! (in "../x")'],
    ['(src file file) (dst /a)', "When copying multiple items, the destination must end with '/'"],
    ['(src) (dst /a)', 'No source items for copy!'],
  ])('of %s fails the build: %s', async (copy, message) => {
    expect(await build(`((from base) (copy ${copy}))`)).toMatchObject({ status: 'failed', message });
  });

  it('fails when a source changes between hashing and sending, and records nothing', async () => {
    const path = join(source, 'file');
    const { atime, mtime } = statSync(path);
    sandbox.onRun(() => {
      writeFileSync(path, 'changed');
      utimesSync(path, atime, mtime);
    });
    const spec = '((from base) (copy (src file) (dst /a)))';
    expect(await build(spec)).toMatchObject({
      status: 'failed',
      message: expect.stringContaining('changed while it was being copied') as unknown,
    });
    writeFileSync(path, 'content');
    sandbox.onRun(() => undefined);
    expect((await build(spec)).status).toBe('saved');
  });

  it('is not made again when only a mode changes', async () => {
    const spec = '((from base) (copy (src file) (dst /a)))';
    await build(spec);
    chmodSync(join(source, 'file'), 0o755);
    expect((await build(spec)).status).toBe('loaded');
  });
});

describe('places', () => {
  const inWorkdir = (...paths: string[]) =>
    paths.reduce((context, path) => withWorkdir(context, byteStringOf(path)), initialContext('head', []));

  it.each([
    [[], '/', { from: 'root', path: '' }],
    [[], '//.', { from: 'root', path: '' }],
    [[], '.', { from: 'root', path: '.' }],
    [[], 'src', { from: 'root', path: 'src' }],
    [['a', 'b'], './c', { from: 'root', path: 'a/b/c' }],
    [['a'], '../../x', { from: 'root', path: '../x' }],
    [['a'], '/', { from: 'root', path: '' }],
    [['/abs'], 'x', { from: 'absolute', path: '/abs/x' }],
    [['/abs', '/'], 'x', { from: 'root', path: 'x' }],
    [[], '/Users/mac1000/.opam', { from: 'absolute', path: '/Users/mac1000/.opam' }],
    [[], 'C:/x', { from: 'absolute', path: 'C:/x' }],
  ] as const)('in workdirs %j, %s is %j', (workdirs, path, place) => {
    expect(placeOf(inWorkdir(...workdirs), byteStringOf(path))).toEqual(place);
  });

  it("of caches may be written from the user's home", () => {
    expect(cachePlaceOf(inWorkdir('/abs'), byteStringOf('~/.opam/download-cache'))).toEqual({
      from: 'root',
      path: '.opam/download-cache',
    });
  });
});
