import type { Options } from 'yargs';
import type { FailedStep } from '../builder/builder.ts';
import { keepFailed, lookAtFailed } from '../builder/shell.ts';
import { ObuilderError } from '../errors.ts';
import type { BuildHost } from './compose.ts';
import { printError } from './print-error.ts';
import { isOnTerminal, shellRequest } from './shell-request.ts';
import { terminalText } from './terminal-text.ts';

export const onFailureOption = {
  choices: ['discard', 'keep', 'shell'] as const,
  requiresArg: true,
  default: 'discard' as const,
  describe:
    'What becomes of the tree of a step that fails: discard; keep: it can be looked at with obuilder-fs shell; shell: opens one in it at once, on a terminal',
} satisfies Options;

export type OnFailure = (typeof onFailureOption.choices)[number];

/** @throws {ObuilderError} BAD_OPTION: to be known before hours of building. */
export function checkOnFailure(choice: OnFailure): void {
  if (choice !== 'shell' || isOnTerminal()) return;
  throw new ObuilderError('BAD_OPTION', '--on-failure=shell: standard input and output are not a terminal', {
    hint: 'give --on-failure=keep, and look with obuilder-fs shell afterwards',
  });
}

/** What a build does with a step that has failed. That this goes wrong hides nothing of how the step did. */
export function failureHandler(
  choice: OnFailure,
  host: BuildHost,
  signal: AbortSignal,
): ((step: FailedStep) => Promise<void>) | undefined {
  if (choice === 'discard') return undefined;
  const handle = choice === 'keep' ? keep : openShell;
  return (step) =>
    handle(host, step, signal).catch((error: unknown) => printError(error, { isVerbose: false }));
}

async function keep(host: BuildHost, step: FailedStep): Promise<void> {
  const directory = await keepFailed(host, step);
  console.error(
    directory === undefined
      ? `obuilder-fs: the tree of the failed step is not kept: a shell is open in the one before (obuilder-fs shell ${step.id})`
      : `obuilder-fs: the tree of the failed step is kept in ${directory}; look at it: obuilder-fs shell ${step.id}; remove it: obuilder-fs delete ${step.id}`,
  );
}

async function openShell(host: BuildHost, step: FailedStep, signal: AbortSignal): Promise<void> {
  console.error(`obuilder-fs: ${terminalText(step.message)}`);
  console.error('obuilder-fs: a shell in the tree of the failed step, which is discarded afterwards');
  const ending = await lookAtFailed(host, step, shellRequest([], signal));
  if (ending.status === 'failed') console.error(`obuilder-fs: ${terminalText(ending.message)}`);
}
