// The command line of scripts/soak.
import { parseArgs } from 'node:util';
import { soak } from './soak.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    'kill-every': { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
  },
});
const request = {
  seconds: Number(values.minutes) * 60,
  killEverySeconds: Number(values['kill-every']),
  seed: Number(values.seed),
};
console.log(`soak of ${values.minutes} minutes, seed ${values.seed}`);
const report = await soak(request);
console.log(JSON.stringify(report, undefined, 2));
process.exitCode = report.lostWrites.length + report.leftovers.length === 0 ? 0 : 1;
