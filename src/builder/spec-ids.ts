import { ObuilderError } from '../errors.ts';
import { byteStringOf, type ByteString } from '../spec/byte-string.ts';
import { opSexp } from '../spec/print-spec.ts';
import { printInline } from '../spec/sexp.ts';
import type { CopyOp, Op, RunOp, Spec } from '../spec/spec.ts';
import { afterOp, initialContext, type BuildContext, type Env } from './build-context.ts';
import type { ObuilderVersion } from './obuilder-version.ts';
import { refusalOf } from './step-host.ts';
import { copyOpId, fromStepId, runOpId, secretsInPlace, type Secrets, type StepId } from './step-id.ts';

export interface SpecIdsRequest {
  /** What `(copy …)` copies from; not needed by a spec that copies nothing. */
  readonly sourceDirectory?: string;
  /** The environment of every image. */
  readonly imageEnv: Env;
  readonly secrets: Secrets;
  readonly ids: ObuilderVersion;
  /** Whether pre-images tell the values of secrets; the ids are made of them either way. */
  readonly showSecrets: boolean;
  readonly signal?: AbortSignal;
}

/** The id that a build would give one step. */
export interface IdentifiedStep {
  /** The operation, on one line. */
  readonly op: string;
  readonly kind: 'from' | 'run' | 'copy';
  /** What the id is the hash of. */
  readonly preImage: ByteString | undefined;
  /** Undefined from the first copy of a nested build's files on: they are known when it is built. */
  readonly id: string | undefined;
}

/**
 * The ids of a spec's steps in the order of a build, nested builds first, without building anything.
 * @throws {ObuilderError} CONTEXT_MISSING when something is copied from no directory; STEP_REFUSED for a step that a build would refuse;
 *   BAD_SOURCE.
 */
export async function specIds(spec: Spec, request: SpecIdsRequest): Promise<IdentifiedStep[]> {
  const steps: IdentifiedStep[] = [];
  await identifyStage(spec, request, steps);
  return steps;
}

async function identifyStage(spec: Spec, request: SpecIdsRequest, steps: IdentifiedStep[]): Promise<void> {
  await Promise.resolve(); // nesting, however deep, grows no call stack
  for (const build of spec.builds) await identifyStage(build.spec, request, steps);
  const from = fromStepId(spec.from);
  steps.push({ op: printInline([byteStringOf('from'), spec.from]), kind: 'from', ...from });
  let base: string | undefined = from.id;
  let context = initialContext(request.ids, request.imageEnv);
  for (const op of spec.ops) {
    if (op.op === 'run' || op.op === 'copy') {
      const step: StepId | undefined = await identify(op, { context, base, request });
      base = step?.id;
      const { preImage, id } = step ?? { preImage: undefined, id: undefined };
      steps.push({ op: printInline(opSexp(op)), kind: op.op, preImage, id });
    } else {
      context = afterOp(context, op);
    }
  }
}

interface StepPlace {
  readonly context: BuildContext;
  readonly base: string | undefined;
  readonly request: SpecIdsRequest;
}

async function identify(
  op: Extract<Op, { op: 'run' | 'copy' }>,
  { context, base, request }: StepPlace,
): Promise<StepId | undefined> {
  if (base === undefined) return undefined;
  try {
    if (op.op === 'run') return identifyRun(context, { base, run: op, request });
    return await identifyCopy(context, { base, copy: op, request });
  } catch (error) {
    const refusal = refusalOf(error);
    if (refusal === undefined || error instanceof ObuilderError) throw error;
    const { message, ...hint } = refusal;
    throw new ObuilderError('STEP_REFUSED', `${printInline(opSexp(op))}: ${message}`, hint);
  }
}

const HIDDEN = byteStringOf('***');

function identifyRun(
  context: BuildContext,
  { base, run, request }: { base: string; run: RunOp; request: SpecIdsRequest },
): StepId {
  const secrets = secretsInPlace(run, request.secrets);
  const step = runOpId(context, { base, run, secrets });
  if (request.showSecrets) return step;
  const hidden = secrets.map(({ target }) => ({ target, value: HIDDEN }));
  return { ...step, preImage: runOpId(context, { base, run, secrets: hidden }).preImage };
}

async function identifyCopy(
  context: BuildContext,
  { base, copy, request }: { base: string; copy: CopyOp; request: SpecIdsRequest },
): Promise<StepId | undefined> {
  if (copy.from.kind === 'build') return undefined;
  const { sourceDirectory, signal } = request;
  if (sourceDirectory === undefined) {
    throw new ObuilderError(
      'CONTEXT_MISSING',
      `${printInline(opSexp({ op: 'copy', ...copy }))} copies from no directory`,
      {
        hint: 'name the directory that the spec copies from, after the spec',
      },
    );
  }
  const source = { directory: sourceDirectory, ...(signal === undefined ? {} : { signal }) };
  const { preImage, id } = await copyOpId(context, { base, copy, source });
  return { preImage, id };
}
