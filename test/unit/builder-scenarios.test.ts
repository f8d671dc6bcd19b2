import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createBuilder, type Builder } from '../../src/builder/builder.ts';
import type { Store } from '../../src/store/store.ts';
import { logOf, startBuild, type LogLine } from '../helpers/mock-build.ts';
import { createMockFetcher } from '../helpers/mock-fetcher.ts';
import { createMockSandbox, type MockSandbox } from '../helpers/mock-sandbox.ts';
import { createMockStore } from '../helpers/mock-store.ts';

interface Scenario {
  name: string;
  sandbox_executions: number;
  builds: { spec: string; log: LogLine[]; result: { ok?: string; cancelled?: true } }[];
}

const { scenarios } = JSON.parse(
  readFileSync(new URL('../vectors/obuilder.json', import.meta.url), 'utf8'),
) as { scenarios: Scenario[] };

let root: string;
let store: Store;
let sandbox: MockSandbox;
let builder: Builder;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'scenario-'));
  sandbox = createMockSandbox();
  const fetcher = createMockFetcher([['PATH', '/usr/bin:/bin']]);
  store = createMockStore(root);
  builder = createBuilder({ store, sandbox, fetcher });
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function scenario(name: string): Scenario['builds'] & { executions: number } {
  const found = scenarios.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no scenario ${name}`);
  return Object.assign([...found.builds], { executions: found.sandbox_executions });
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new Error(`no item ${index}`);
  return item;
}

describe('golden scenarios', () => {
  it('two builds share the step that both need: it runs once, both hear all of it', async () => {
    const builds = scenario('two-builds-share-first-step');
    const first = startBuild(builder, at(builds, 0).spec);
    await first.said('start\n');
    const second = startBuild(builder, at(builds, 1).spec);
    expect(await first.result).toEqual({ status: 'saved', id: at(builds, 0).result.ok });
    expect(await second.result).toEqual({ status: 'saved', id: at(builds, 1).result.ok });
    expect(logOf(first.events)).toEqual(at(builds, 0).log);
    expect(logOf(second.events)).toEqual(at(builds, 1).log);
    expect(sandbox.commands).toHaveLength(builds.executions);
  });

  it('a cancelled build says no more and its step is ended', async () => {
    const builds = scenario('cancel-single');
    const only = startBuild(builder, at(builds, 0).spec);
    await only.said('start\n');
    only.cancel();
    expect(await only.result).toEqual({ status: 'cancelled' });
    await builder.idle();
    expect(logOf(only.events)).toEqual(at(builds, 0).log);
    expect(sandbox.commands).toHaveLength(builds.executions);
  });

  it('a build of a step that is being cancelled waits for its end, then runs it', async () => {
    const builds = scenario('restart-while-cancelling');
    const first = startBuild(builder, at(builds, 0).spec);
    await first.said('start\n');
    first.cancel();
    const second = startBuild(builder, at(builds, 1).spec);
    expect(await first.result).toEqual({ status: 'cancelled' });
    expect(await second.result).toEqual({ status: 'saved', id: at(builds, 1).result.ok });
    expect(logOf(first.events)).toEqual(at(builds, 0).log);
    expect(logOf(second.events)).toEqual(at(builds, 1).log);
    expect(sandbox.commands).toHaveLength(builds.executions);
  });
});

describe('waiting for another process', () => {
  it('is told to every build that waits, once', async () => {
    let begin = (): void => undefined;
    const begun = new Promise<void>((resolve) => (begin = resolve));
    const waits: Store = {
      ...store,
      async build(request, fill, signal) {
        request.onWait?.('another process that is making this result');
        await begun;
        return await store.build(request, fill, signal);
      },
    };
    const waiting = createBuilder({ store: waits, sandbox, fetcher: createMockFetcher([]) });
    const builds = [1, 2].map(() => startBuild(waiting, '((from base))'));
    const note = 'Waiting for another process that is making this result';
    for (const build of builds) await build.said(note);
    begin();
    for (const build of builds) {
      expect((await build.result).status).toBe('saved');
      expect(logOf(build.events).filter(([, text]) => text === note)).toHaveLength(1);
    }
  });
});

describe('sharing', () => {
  const spec =
    '((from base) (run (shell "echo start; while ! test -e $ROOTFS/go; do sleep 0.01; done; echo end")))';

  it('lets one build leave while another still wants the step', async () => {
    const leaving = startBuild(builder, spec);
    await leaving.said('start\n');
    const staying = startBuild(builder, spec);
    await staying.said('start\n');
    leaving.cancel();
    expect(await leaving.result).toEqual({ status: 'cancelled' });
    expect(sandbox.signals[0]?.aborted).toBe(false);
    sandbox.write(0, 'go');
    expect((await staying.result).status).toBe('saved');
    expect(logOf(staying.events).at(-2)).toEqual(['Output', 'start\nend\n']);
  });

  it('gives the same failure to both', async () => {
    const failing =
      '((from base) (run (shell "echo start; while ! test -e $ROOTFS/go; do sleep 0.01; done; exit 3")))';
    const [one, two] = [startBuild(builder, failing), startBuild(builder, failing)];
    await Promise.all([one.said('start\n'), two.said('start\n')]);
    sandbox.write(0, 'go');
    expect(await one.result).toEqual(await two.result);
    expect(await one.result).toMatchObject({ status: 'failed' });
    expect(sandbox.commands).toHaveLength(1);
  });

  it('throws to both what a broken host threw, and the next build tries again', async () => {
    sandbox.breakWith(new Error('no mount'));
    const [one, two] = [startBuild(builder, spec), startBuild(builder, spec)];
    await expect(one.result).rejects.toThrow('no mount');
    await expect(two.result).rejects.toThrow('no mount');
    sandbox.breakWith(undefined);
    const again = startBuild(builder, spec);
    await again.said('start\n');
    sandbox.write(-1, 'go');
    expect((await again.result).status).toBe('saved');
  });
});
