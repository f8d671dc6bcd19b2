import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readManifest, type Manifest } from '../../src/builder/manifest.ts';
import { defaultShell, joinDestination, joinWorkdir } from '../../src/builder/obuilder-version.ts';
import {
  copyStepId,
  fromStepId,
  runStepId,
  type CopyContent,
  type RunStep,
  type StepId,
} from '../../src/builder/step-id.ts';
import { byteStringOf, type ByteString } from '../../src/spec/byte-string.ts';
import { specIds } from '../../src/builder/spec-ids.ts';
import { ObuilderError } from '../../src/errors.ts';
import { parseSpec } from '../../src/spec/parse-spec.ts';
import type { CopyOp, Spec } from '../../src/spec/spec.ts';
import { unpackSourceTree, vectors, type BuildVector } from '../helpers/vectors.ts';

const bytes = byteStringOf;
const rootUser = { kind: 'unix', uid: 0, gid: 0 } as const;

let scratch: string;
let sourceDirectory: string;
/** What the nested build of the vectors leaves in its tree. */
let nestedTree: string;

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'step-id-'));
  sourceDirectory = unpackSourceTree(scratch);
  nestedTree = join(scratch, 'nested');
  mkdirSync(join(nestedTree, 'out'), { recursive: true });
  writeFileSync(join(nestedTree, 'out/bin'), 'bin\n');
});
afterAll(() => {
  rmSync(scratch, { recursive: true });
});

async function contentOf({ from, src, exclude }: CopyOp, dst: ByteString): Promise<CopyContent> {
  const directory = from.kind === 'build' ? nestedTree : sourceDirectory;
  const manifests: Manifest[] = [];
  for (const item of src)
    manifests.push(await readManifest({ sourceDirectory: directory, src: item, exclude }));
  const [first] = manifests;
  return first !== undefined && !dst.endsWith('/')
    ? { kind: 'item', manifest: first }
    : { kind: 'items', manifests };
}

/** The ids of a spec's steps in order, nested builds first. */
async function idsOf(spec: Spec, imageEnv: BuildVector['image_env']): Promise<StepId[]> {
  const ids: StepId[] = [];
  for (const build of spec.builds) ids.push(...(await idsOf(build.spec, imageEnv)));
  let last = fromStepId(spec.from);
  ids.push(last);
  let context: Omit<RunStep, 'base' | 'command' | 'network' | 'secrets'> = {
    workdir: bytes('/'),
    user: rootUser,
    env: imageEnv.map(([name, value]) => [bytes(name), bytes(value)]),
    shell: defaultShell('head'),
  };
  for (const op of spec.ops) {
    if (op.op === 'user') context = { ...context, user: op.user };
    if (op.op === 'workdir') context = { ...context, workdir: joinWorkdir('head', context.workdir, op.path) };
    if (op.op === 'env') {
      const old = context.env.findIndex(([name]) => name === op.name);
      context = { ...context, env: [[op.name, op.value], ...context.env.filter((_, i) => i !== old)] };
    }
    if (op.op === 'run') {
      last = runStepId({ ...context, base: last.id, command: op.shell, network: op.network, secrets: [] });
      ids.push(last);
    }
    if (op.op === 'copy') {
      const dst = joinDestination(context.workdir, op.dst);
      last = copyStepId({ base: last.id, user: context.user, content: await contentOf(op, dst), dst });
      ids.push(last);
    }
  }
  return ids;
}

describe('golden ids', () => {
  const succeeding = vectors.builds.filter(({ runs }) => runs.every(({ result }) => 'ok' in result));

  it('there are some', () => {
    expect(succeeding.length).toBeGreaterThan(20);
  });

  it.each(succeeding)('$name', async ({ spec, image_env, runs }) => {
    const expected = runs[0]?.hashed.map(({ pre, id }) => ({ preImage: byteStringOf(pre), id }));
    expect(await idsOf(parseSpec(spec), image_env)).toEqual(expected);
  });

  it.each(vectors.builds.flatMap(({ runs }) => runs.flatMap(({ hashed }) => hashed)))(
    '$kind $id is the hash of its pre-image',
    ({ pre, id }) => {
      expect(createHash('sha256').update(pre).digest('hex')).toBe(id);
    },
  );
});

describe('the ids of a spec, without a build', () => {
  const request = (imageEnv: BuildVector['image_env']) => ({
    sourceDirectory,
    imageEnv: imageEnv.map(([name, value]) => [bytes(name), bytes(value)] as const),
    secrets: new Map(),
    ids: 'head' as const,
    showSecrets: false,
  });
  const copiesFromBuild = /\(from \(build /;

  it.each(vectors.builds.filter(({ spec }) => !copiesFromBuild.test(spec)))(
    '$name: what a build hashes, as far as it comes',
    async ({ spec, image_env, runs }) => {
      const [run] = runs;
      const identified = specIds(parseSpec(spec), request(image_env));
      if (
        run !== undefined &&
        'error' in run.result &&
        /Unsupported|Not a |No source|secret/.test(run.result.error)
      ) {
        await expect(identified).rejects.toBeInstanceOf(ObuilderError);
        return;
      }
      const expected = run?.hashed.map(({ pre, id, kind }) => ({ preImage: byteStringOf(pre), id, kind }));
      const steps = (await identified).map(({ preImage, id, kind }) => ({ preImage, id, kind }));
      // A build that fails hashes nothing after the step that failed.
      expect(steps.slice(0, expected?.length)).toEqual(expected);
    },
  );

  it.each([
    ['(copy (src a b) (dst c))', 'BAD_SOURCE'],
    ['(copy (src hello.txt dir) (dst c))', 'STEP_REFUSED'],
    ['(copy (src) (dst c))', 'STEP_REFUSED'],
    ['(run (secrets (s (target /s))) (shell x))', 'STEP_REFUSED'],
  ])('%s is refused as a build would: %s', async (op, code) => {
    await expect(specIds(parseSpec(`((from base) ${op})`), request([]))).rejects.toMatchObject({ code });
  });

  it('20,000 nested builds', async () => {
    const depth = 20_000;
    const spec = parseSpec(`${'((build a'.repeat(depth)}((from x))${')(from y))'.repeat(depth)}`);
    expect(await specIds(spec, request([]))).toHaveLength(depth + 1);
  });
});

describe('run ids', () => {
  const step: RunStep = {
    base: 'b',
    workdir: bytes('/'),
    user: rootUser,
    env: [],
    command: bytes('x'),
    shell: [],
    network: [],
    secrets: [],
  };

  it('empty lists are written as ()', () => {
    expect(runStepId(step).preImage).toBe(
      '((base b)(workdir /)(user((uid 0)(gid 0)))(env())(cmd x)(shell())(network())(mount_secrets()))',
    );
  });

  it('secrets come in the reverse of their order in the spec, with their values', () => {
    const secrets = [
      { value: bytes('one'), target: bytes('/1') },
      { value: bytes('t w o'), target: bytes('/2') },
    ];
    expect(runStepId({ ...step, secrets }).preImage).toContain(
      '(mount_secrets(((value"t w o")(target /2))((value one)(target /1))))',
    );
  });

  it('a Windows user is a name', () => {
    expect(runStepId({ ...step, user: { kind: 'windows', name: bytes('A b') } }).preImage).toContain(
      '(user((name"A b")))',
    );
  });

  it('bytes outside ASCII are hashed escaped, but an image name as it is', () => {
    expect(runStepId({ ...step, command: bytes('é') }).preImage).toContain('(cmd"\\195\\169")');
    expect(fromStepId(bytes('é')).id).toBe(createHash('sha256').update('é').digest('hex'));
  });
});

describe('what differs between versions', () => {
  it('the default shell', () => {
    expect(defaultShell('head')).toEqual(['/usr/bin/env', 'bash', '-c']);
    expect(defaultShell('v0.5')).toEqual(['/bin/bash', '-c']);
  });

  it.each([
    ['/', 'src', '/src', '//src'],
    ['/abs/', 'more', '/abs/more', '/abs//more'],
    ['/a', 'b', '/a/b', '/a/b'],
    ['/a', '/b/../c//', '/b/../c//', '/b/../c//'],
    ['/a', '..', '/a/..', '/a/..'],
    ['/a', '', '/a/', '/a/'],
    ['/a', 'C:/x', 'C:/x', '/a/C:/x'],
    ['/a', 'C:\\x', 'C:\\x', '/a/C:\\x'],
    ['/a', 'C:x', '/a/C:x', '/a/C:x'],
  ])('in %s, (workdir %s) is %s in HEAD and %s in v0.5', (workdir, path, head, old) => {
    expect(joinWorkdir('head', bytes(workdir), bytes(path))).toBe(head);
    expect(joinWorkdir('v0.5', bytes(workdir), bytes(path))).toBe(old);
  });

  it.each([
    ['/', '', '/'],
    ['/w', './', '/w/./'],
    ['/w', '.', '/w/.'],
    ['/w/', 'x', '/w/x'],
    ['/w', '/x/', '/x/'],
    ['/w', 'C:/x', '/w/C:/x'],
  ])('in %s, (dst %s) is %s in both', (workdir, dst, joined) => {
    expect(joinDestination(bytes(workdir), bytes(dst))).toBe(joined);
  });
});
