import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type * as Library from '../../src/index.ts';
import type { BuildEvent } from '../../src/index.ts';
import { createScratchBuild, firstBuilder, type ScratchBuild } from '../helpers/scratch-build.ts';
import { mountsBelow, whyNoMounts } from '../helpers/scratch-mount.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

describe.skipIf(whyNoMounts !== undefined)('the library', () => {
  let scratch: ScratchBuild;
  let library: typeof Library;
  /** The package by its own name, as another package has it. */
  const packageName = 'obuilder-fs';

  beforeAll(async () => {
    scratch = await createScratchBuild();
    library = (await import(packageName)) as typeof Library;
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  const options = (): Library.BuilderOptions => ({
    stateDir: scratch.stateDir,
    prefix: scratch.prefix,
    uid: firstBuilder,
    homePath: scratch.path(`home${firstBuilder}`),
  });
  const spec = (...ops: string[]) => `((from base) ${ops.join('\n')})`;
  const run = (script: string) => `(run (shell ${JSON.stringify(script)}))`;
  const textOf = (events: readonly BuildEvent[]) =>
    events.map((event) => (event.type === 'output' ? Buffer.from(event.data).toString() : '')).join('');

  async function withBuilder(use: (builder: Library.EmbeddedBuilder) => Promise<void>): Promise<void> {
    const builder = await library.createBuilder(options());
    try {
      await use(builder);
    } finally {
      await builder.close();
    }
  }

  it('the example embeds a mount and a builder in a worker thread', () => {
    const answer = spawnSync(
      process.execPath,
      [join(root, 'examples/embed.mjs'), scratch.path('embedded'), scratch.prefix],
      { encoding: 'utf8', env: { ...process.env, BUILD_UID: String(firstBuilder) } },
    );
    expect(answer.stderr).toBe('');
    expect(answer.stdout.trimEnd().split('\n')).toEqual([
      `process of its own serves ${scratch.prefix}`,
      'step 1 of 3: built',
      'step 2 of 3: built',
      '5',
      'hello from the context',
      'step 3 of 3: built',
      'the build is saved; the store has 3 results',
      'nothing is mounted any more',
    ]);
    expect(mountsBelow(scratch.directory)).toEqual([]);
  });

  it('a build gives its log events in order, and its result; log, results, delete and prune work on the store', async () => {
    await withBuilder(async (builder) => {
      const build = builder.build(spec(run('echo one; echo two')), { context: scratch.path('context') });
      const events: BuildEvent[] = [];
      for await (const event of build) events.push(event);
      const result = await build.result;
      if (result.status !== 'saved') throw new Error(JSON.stringify(result));
      expect(textOf(events)).toBe('one\ntwo\n');
      expect(events[0]).toMatchObject({ type: 'heading', text: '(from base)' });
      expect(events.at(-1)).toMatchObject({ type: 'step-end', status: 'built' });
      const log: Uint8Array[] = [];
      await builder.log(result.id, (chunk) => log.push(chunk));
      expect(Buffer.concat(log).toString()).toBe('one\ntwo\n');
      expect(builder.results().map(({ id }) => id)).toContain(result.id);
      const removed: string[] = [];
      await builder.delete(result.id, (id) => removed.push(id));
      expect(removed).toEqual([result.id]);
      expect(await builder.prune(new Date(Date.now() + 1000))).toBeGreaterThan(0);
      expect(builder.results()).toEqual([]);
      expect(await builder.healthcheck()).toEqual({ status: 'passed' });
    });
  });

  it('an aborted build ends as cancelled, and its events end', async () => {
    await withBuilder(async (builder) => {
      const cancel = new AbortController();
      const build = builder.build(spec(run('echo started; sleep 1000')), {
        context: scratch.path('context'),
        signal: cancel.signal,
      });
      for await (const event of build) if (event.type === 'output') cancel.abort();
      expect(await build.result).toEqual({ status: 'cancelled' });
    });
  });

  it('what is wrong with a spec or a machine is thrown to who reads the events, and to who awaits the result', async () => {
    await withBuilder(async (builder) => {
      const bad = builder.build('((from base) (rum))', { context: scratch.path('context') });
      await expect(bad[Symbol.asyncIterator]().next()).rejects.toBeInstanceOf(library.SpecError);
      await expect(bad.result).rejects.toBeInstanceOf(library.SpecError);
      const nowhere = builder.build('((from nowhere))', { context: scratch.path('context') });
      await expect(nowhere.result).rejects.toMatchObject({ code: 'UNKNOWN_BASE' });
    });
  });

  it('a mount tells when its process is gone, and refuses to go while it is used', async () => {
    const mount = await library.createMount({ prefixes: [scratch.prefix], stateDir: scratch.stateDir });
    expect(mountsBelow(scratch.directory)).toEqual([scratch.prefix]);
    const user = spawn('sh', ['-c', 'echo in; read x'], {
      cwd: scratch.prefix,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(user.stdout, 'data');
    await expect(mount.unmount()).rejects.toMatchObject({ code: 'PREFIX_IN_USE' });
    await mount.unmount({ force: true });
    await mount.ended;
    user.kill('SIGKILL');
    expect(mountsBelow(scratch.directory)).toEqual([]);
    await mount.unmount();
  });

  it('a mount that is no longer wanted when it answers goes again', async () => {
    const signal = AbortSignal.abort();
    const mount = await library.createMount({
      prefixes: [scratch.prefix],
      stateDir: scratch.stateDir,
      signal,
    });
    await mount.ended;
    expect(mountsBelow(scratch.directory)).toEqual([]);
  });

  it('a mount goes with the process that asked for it, however it dies', async () => {
    const script = `import { createMount } from 'obuilder-fs';
      const mount = await createMount(${JSON.stringify({ prefixes: [scratch.prefix], stateDir: scratch.stateDir })});
      console.log(mount.pid); setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [pid] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    child.kill('SIGKILL');
    await expect.poll(() => readdirSync('/proc').includes(pid), { timeout: 30_000 }).toBe(false);
    expect(mountsBelow(scratch.directory)).toEqual([]);
  });

  describe('its types, in a program that has the packed package', () => {
    let consumer: string;

    beforeAll(() => {
      consumer = scratch.path('consumer');
      const packages = join(consumer, 'node_modules');
      mkdirSync(join(packages, 'obuilder-fs'), { recursive: true });
      mkdirSync(join(packages, '@types'));
      for (const name of ['@types/node', 'undici-types'])
        symlinkSync(join(root, 'node_modules', name), join(packages, name));
      execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', consumer], {
        cwd: root,
      });
      const [archive = ''] = readdirSync(consumer).filter((name) => name.endsWith('.tgz'));
      const into = ['-C', join(packages, 'obuilder-fs'), '--strip-components=1'];
      execFileSync('tar', ['-xzf', join(consumer, archive), ...into]);
      const program = `import { createBuilder, createMount, type BuildEvent, type Mount } from 'obuilder-fs';
        const mount: Mount = await createMount({ prefixes: ['/usr/local'], cache: 'none' });
        const builder = await createBuilder({ uid: 7000, prefixMode: 'bind', rsyncMode: 'hardlink' });
        const build = builder.build('((from base))', { context: '.', secrets: { a: 'b' }, ids: 'v0.5' });
        for await (const event of build) { const same: BuildEvent = event; void same; }
        const result = await build.result;
        // @ts-expect-error -- a failed build has no id
        result.id;
        // @ts-expect-error -- no such mode
        await createBuilder({ prefixMode: 'bound' });
        await builder.close(); await mount.unmount({ force: true });`;
      writeFileSync(join(consumer, 'use.mts'), program);
    });

    it.each(['--module nodenext', '--module preserve --moduleResolution bundler'])(
      'are complete with tsc %s',
      (resolution) => {
        const flags = ['--ignoreConfig', '--noEmit', '--strict', '--target', 'es2023', '--lib', 'es2023'];
        const tsc = spawnSync(
          join(root, 'node_modules/.bin/tsc'),
          [...flags, ...resolution.split(' '), 'use.mts'],
          { cwd: consumer, encoding: 'utf8' },
        );
        expect(tsc.stdout).toBe('');
        expect(tsc.status).toBe(0);
      },
    );
  });
});
