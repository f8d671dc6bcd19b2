import { expect, test } from 'vitest';
import { hostOptions } from '../../src/cli/host-options.ts';

test.skipIf(process.platform === 'darwin')(
  'sandbox-exec is refused where there is none, with what is there instead',
  () => {
    expect(() => hostOptions({ sandboxExec: true })).toThrow(
      expect.objectContaining({
        code: 'BAD_OPTION',
        message: '--sandbox-exec: only macOS has sandbox-exec',
        hint: 'leave it out: here each step has namespaces of its own, and they keep it from more',
      }),
    );
    expect(hostOptions({}).sandboxExec).toBe(false);
  },
);
