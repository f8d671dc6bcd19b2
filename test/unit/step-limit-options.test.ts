import { expect, test } from 'vitest';
import { stepLimits, type StepLimitChoices } from '../../src/cli/step-limit-options.ts';
import { watchLimits } from '../../src/sandbox/step-limits.ts';

const MIB = 2 ** 20;
const HOUR_MS = 3_600_000;

test('a step may take six hours and 4096 processes, print 256 MiB, and use all memory', () => {
  expect(stepLimits({})).toEqual({
    timeoutMs: 6 * HOUR_MS,
    outputBytesMax: 256 * MIB,
    memoryBytesMax: undefined,
    processesMax: 4096,
  });
});

test.each<[StepLimitChoices, object]>([
  [{ stepTimeout: '90s' }, { timeoutMs: 90_000 }],
  [{ stepTimeout: '15m' }, { timeoutMs: 900_000 }],
  [{ stepTimeout: '1.5h' }, { timeoutMs: 1.5 * HOUR_MS }],
  [{ stepTimeout: '24d' }, { timeoutMs: 24 * 24 * HOUR_MS }],
  [{ maxOutput: '70000' }, { outputBytesMax: 70_000 }],
  [{ maxOutput: '64K' }, { outputBytesMax: 65_536 }],
  [{ memory: '1.5G' }, { memoryBytesMax: 1536 * MIB }],
  [{ memory: '2GiB' }, { memoryBytesMax: 2048 * MIB }],
  [{ processes: 100 }, { processesMax: 100 }],
  [{ processes: '100' }, { processesMax: 100 }],
])('%j is %j', (choices, limits) => {
  expect(stepLimits(choices)).toMatchObject(limits);
});

test('none lifts each limit', () => {
  const none = { stepTimeout: 'none', maxOutput: 'none', memory: 'none', processes: 'none' };
  expect(Object.values(stepLimits(none))).toEqual([undefined, undefined, undefined, undefined]);
});

const duration = 'not a duration of at most 24 days';
const count = 'not a number of processes';

test.each<[StepLimitChoices, string]>([
  [{ stepTimeout: '' }, `--step-timeout=: ${duration}`],
  [{ stepTimeout: '90' }, `--step-timeout=90: ${duration}`],
  [{ stepTimeout: '0s' }, `--step-timeout=0s: ${duration}`],
  [{ stepTimeout: '-5m' }, `--step-timeout=-5m: ${duration}`],
  [{ stepTimeout: '25d' }, `--step-timeout=25d: ${duration}`],
  [{ maxOutput: '10%' }, '--max-output=10%: not a size'],
  [{ maxOutput: '0' }, '--max-output=0: not a size'],
  [{ maxOutput: 'lots' }, '--max-output=lots: not a size'],
  [{ memory: '4g' }, '--memory=4g: not a size'],
  [{ memory: '' }, '--memory=: not a size'],
  [{ processes: 0 }, `--processes=0: ${count}`],
  [{ processes: 1.5 }, `--processes=1.5: ${count}`],
  [{ processes: '4K' }, `--processes=4K: ${count}`],
])('%j is refused: %s', (choices, message) => {
  expect(() => stepLimits(choices)).toThrow(
    expect.objectContaining({
      code: 'BAD_OPTION',
      message,
      hint: expect.stringMatching(/^give one such as .*, or none$/) as string,
    }),
  );
});

test('a limit that was met is told as the flags take it', () => {
  let said = '';
  const limits = stepLimits({ maxOutput: '0.5K' });
  const watch = watchLimits(limits, (chunk) => (said += Buffer.from(chunk).toString()));
  watch.output(Buffer.alloc(513, '.'));
  watch.close();
  expect(watch.why()).toBe('it wrote more than --max-output=512');
  expect(said).toBe(`${'.'.repeat(512)}\nobuilder-fs: the step was stopped: ${watch.why()}\n`);
});
