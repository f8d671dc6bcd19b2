import type { Sandbox, StepCommand } from '../sandbox/sandbox.ts';
import { textOf, type ByteString } from '../spec/byte-string.ts';
import type { BuildContext, Env } from './build-context.ts';

/** Where a step's command starts, and with what. */
export type StepStart = Pick<StepCommand, 'cwd' | 'env' | 'network'>;

/** @throws {ObuilderError} PATH_OUTSIDE */
export function stepStart(
  sandbox: Sandbox,
  { place, env }: Pick<BuildContext, 'place' | 'env'>,
  network: readonly ByteString[],
): StepStart {
  return { cwd: sandbox.locate(place), env: envOf(env), network: network.map(textOf) };
}

/** Of what has no context: at the home. */
export function startAtHome(sandbox: Sandbox, env: Env): StepStart {
  return stepStart(sandbox, { place: { from: 'root', path: '' }, env }, []);
}

function envOf(env: Env): StepStart['env'] {
  return env.map(([name, value]) => [textOf(name), textOf(value)] as const);
}
