import { createHash } from 'node:crypto';
import { bufferOf, byteStringOf, type ByteString } from '../spec/byte-string.ts';
import { userFields } from '../spec/print-spec.ts';
import { printMach, type Sexp } from '../spec/sexp.ts';
import type { User } from '../spec/spec.ts';
import { manifestSexp, type Manifest } from './manifest.ts';

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
  readonly secrets: readonly { readonly value: ByteString; readonly target: ByteString }[];
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
