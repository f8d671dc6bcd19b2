import { describe, expect, it } from 'vitest';
import { soak } from '../helpers/soak.ts';
import { whyNoMounts } from '../helpers/scratch-mount.ts';

describe.skipIf(whyNoMounts !== undefined)('a minute of mixed load', () => {
  it('with the mount process killed or stopped every few seconds loses no completed write and leaves nothing', async () => {
    const seed = Number(process.env['OBUILDER_FS_SEED'] ?? Date.now() % 2 ** 31);
    const report = await soak({ seconds: 45, killEverySeconds: 7, seed });
    console.log(JSON.stringify(report));
    expect(report).toMatchObject({ lostWrites: [], leftovers: [] });
    expect(report.kills + report.hangs).toBeGreaterThan(2);
    expect(report.completedWrites).toBeGreaterThan(0);
  });
});
