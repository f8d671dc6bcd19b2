import { createHash } from 'node:crypto';
import { bufferOf, byteStringOf, textOf, type ByteString } from '../spec/byte-string.ts';
import { userFields } from '../spec/print-spec.ts';
import { printMach, type Sexp } from '../spec/sexp.ts';
import type { CopyOp, RunOp, User } from '../spec/spec.ts';
import type { BuildContext } from './build-context.ts';
import { manifestSexp, readManifest, type Manifest } from './manifest.ts';
import { joinDestination } from './obuilder-version.ts';
import { StepRefused } from './step-host.ts';

/** What names a step's result: the SHA-256, in hex, of the pre-image. The same inputs give the ids that OBuilder gives. */
export interface StepId {
  readonly preImage: ByteString;
  readonly id: string;
}

/** All that decides the result of a run. Cache mounts are no part of it. */
export interface RunStep {
  /** Id of the step before. */
  readonly base: string;
  readonly workdir: ByteString;
  readonly user: User;
  /** As the step gets it; duplicates are kept. */
  readonly env: readonly (readonly [name: ByteString, value: ByteString])[];
  readonly command: ByteString;
  readonly shell: readonly ByteString[];
  readonly network: readonly ByteString[];
  /** In the order of the spec. */
  readonly secrets: readonly SecretInPlace[];
}

/** All that decides the result of a copy. */
export interface CopyStep {
  /** Id of the step before. */
  readonly base: string;
  readonly user: User;
  readonly content: CopyContent;
  /** As written, joined to the workdir. */
  readonly dst: ByteString;
}

/** What is copied: one item that is renamed to the destination, or items that go into it. */
export type CopyContent =
  | { readonly kind: 'item'; readonly manifest: Manifest }
  | { readonly kind: 'items'; readonly manifests: readonly Manifest[] };

/** The values of secrets by their ids. */
export type Secrets = ReadonlyMap<string, Uint8Array>;

/** A secret with its value, where a run wants it. */
export interface SecretInPlace {
  readonly value: ByteString;
  readonly target: ByteString;
}

/**
 * The secrets that `run` asks for, in the order of the spec.
 * @throws {StepRefused} when there is none of such a name.
 */
export function secretsInPlace(run: RunOp, secrets: Secrets): SecretInPlace[] {
  return run.secrets.map(({ id, target }) => ({ target, value: secretValue(secrets, id) }));
}

function secretValue(secrets: Secrets, id: ByteString): ByteString {
  const value = secrets.get(textOf(id));
  if (value !== undefined) return byteStringOf(value);
  throw new StepRefused(
    `Couldn't find value for requested secret '${textOf(id)}'`,
    `give it with --secret ${textOf(id)}:FILE`,
  );
}

/** What names the result of `(run …)` in `context`. */
export function runOpId(
  context: BuildContext,
  { base, run, secrets }: { base: string; run: RunOp; secrets: readonly SecretInPlace[] },
): StepId {
  const { workdir, user, env, shell } = context;
  const { shell: command, network } = run;
  return runStepId({ base, workdir, user, env, command, shell, network, secrets });
}

/** Where a copy takes its files. */
export interface CopySource {
  readonly directory: string;
  /** Breaks off reading it. */
  readonly signal?: AbortSignal;
}

/**
 * What names the result of `(copy …)` in `context`, and what it copies: every source file is read.
 * @throws {StepRefused} when there is nothing to copy, or several items and no directory for them. {ObuilderError} BAD_SOURCE.
 */
export async function copyOpId(
  context: BuildContext,
  { base, copy, source }: { base: string; copy: CopyOp; source: CopySource },
): Promise<StepId & { readonly content: CopyContent }> {
  const dst = joinDestination(context.workdir, copy.dst);
  const content = contentFor(dst, await readManifests(copy, source));
  return { ...copyStepId({ base, user: context.user, content, dst }), content };
}

async function readManifests({ src, exclude }: CopyOp, source: CopySource): Promise<Manifest[]> {
  const { directory: sourceDirectory, ...signal } = source;
  const manifests: Manifest[] = [];
  for (const one of src)
    manifests.push(await readManifest({ sourceDirectory, src: one, exclude, ...signal }));
  return manifests;
}

function contentFor(dst: ByteString, manifests: readonly Manifest[]): CopyContent {
  const [first, ...others] = manifests;
  if (first === undefined) throw new StepRefused('No source items for copy!', 'name them in (src …)');
  if (dst.endsWith('/')) return { kind: 'items', manifests };
  if (others.length === 0) return { kind: 'item', manifest: first };
  throw new StepRefused("When copying multiple items, the destination must end with '/'");
}

export function fromStepId(image: ByteString): StepId {
  return stepId(image);
}

export function runStepId(step: RunStep): StepId {
  // OBuilder collects the secrets by consing, which turns their order around.
  const secrets = step.secrets
    .map(({ value, target }) => [field('value', value), field('target', target)])
    .reverse();
  return sexpStepId([
    field('base', bytes(step.base)),
    field('workdir', step.workdir),
    field('user', userFields(step.user)),
    field('env', step.env),
    field('cmd', step.command),
    field('shell', step.shell),
    field('network', step.network),
    field('mount_secrets', secrets),
  ]);
}

export function copyStepId(step: CopyStep): StepId {
  const { content } = step;
  const op =
    content.kind === 'item'
      ? field('Copy_item', [manifestSexp(content.manifest), step.dst])
      : field('Copy_items', [content.manifests.map(manifestSexp), step.dst]);
  return sexpStepId([field('base', bytes(step.base)), field('user', userFields(step.user)), field('op', op)]);
}

function sexpStepId(sexp: Sexp): StepId {
  return stepId(printMach(sexp) as ByteString);
}

function stepId(preImage: ByteString): StepId {
  return { preImage, id: createHash('sha256').update(bufferOf(preImage)).digest('hex') };
}

function field(name: string, value: Sexp): Sexp {
  return [bytes(name), value];
}

const bytes = byteStringOf;
